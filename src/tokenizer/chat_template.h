// SPDX-License-Identifier: Apache-2.0
// What a chat template (Jinja) says without being run: the texts that it writes.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace starattn {

// In their order: what stands outside of {{ }} and {% %} as it is, and each string literal within,
// its escapes resolved. Comments are left out; an unfinished template ends where it ends.
std::vector<std::string> texts_of_template(std::string_view chat_template);

}  // namespace starattn
