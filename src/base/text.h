// SPDX-License-Identifier: Apache-2.0
// Numbers as people read and write them.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace starattn {

// "4096", "32k" = 32,768, "1m" = 1,048,576. Throws Error(usage) naming `option` on anything else.
std::int64_t parse_tokens(std::string_view text, std::string_view option);

// "4", a number of blocks. Throws Error(usage) naming `option` on anything else.
std::int64_t parse_blocks(std::string_view text, std::string_view option);

// "100GiB", "1.5 TB", "4096" (bytes). Throws Error(usage) naming `option` on anything else.
std::uint64_t parse_bytes(std::string_view text, std::string_view option);

// "90s", "45m", "12h", "7d", "2w" in seconds. Throws Error(usage) naming `option` on anything else.
double parse_duration(std::string_view text, std::string_view option);

std::string with_commas(std::int64_t number);  // 131,072
std::string human_bytes(std::uint64_t bytes);  // "1.50 GiB"
std::string human_seconds(double seconds);     // "850 ms", "12.3 s", "4 min 05 s", "3 d 07 h"

// Control characters as \x1b, but for line ends and tabs: text from elsewhere must not steer a
// terminal.
std::string printable(std::string_view text);
std::string one_line(std::string_view text);  // the same, blanks for line ends and tabs

// At most n bytes, cut between characters.
std::string_view first_characters(std::string_view text, std::size_t n);

inline constexpr std::string_view kByteOrderMark = "\xef\xbb\xbf";  // some editors begin with it

// True when the text is well-formed UTF-8 (no surrogates, no overlong forms); else sets the offset.
bool is_utf8(std::string_view text, std::size_t* bad_offset = nullptr);

}  // namespace starattn
