// SPDX-License-Identifier: Apache-2.0
// The `format` of a JSON schema's strings.
#pragma once

#include <optional>
#include <string>
#include <string_view>

namespace starattn {

// What strings of a format look like (RFC 3339, RFC 4122), as a regular expression; nothing for
// formats that are not supported.
std::optional<std::string> regex_of_format(std::string_view name);

}  // namespace starattn
