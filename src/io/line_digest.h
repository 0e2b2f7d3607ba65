// SPDX-License-Identifier: Apache-2.0
// Lines of output end with a digest of what stands before it, so that a rerun notices a line that
// was changed:
//
//   {"id":"a", ... ,"digest":"<16 hex digits>"}
//
// It is XXH3-64 of all bytes of the line in front of `,"digest":`.
#pragma once

#include <string>
#include <string_view>

namespace starattn {

std::string with_digest(std::string_view object);  // of a line that ends with '}'

enum class LineDigest { none, right, wrong };
LineDigest check_digest(std::string_view line);

// Throws Error(bad_data) where the digest is wrong.
void refuse_changed(std::string_view line, const std::string& where);

}  // namespace starattn
