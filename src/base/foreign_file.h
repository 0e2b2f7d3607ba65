// SPDX-License-Identifier: Apache-2.0
// Files that hold something else than their names say, told by their first bytes.
#pragma once

#include <string>
#include <string_view>

namespace starattn {

bool is_lfs_pointer(std::string_view bytes);

// What the file is and what to do about it, to go behind its name; empty where it is nothing that
// people often have in place of a model's file. "is a GGUF file, ..."
std::string what_else_it_is(std::string_view bytes);

}  // namespace starattn
