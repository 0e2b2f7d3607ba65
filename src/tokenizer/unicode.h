// SPDX-License-Identifier: Apache-2.0
// Characters in UTF-8: what a stretch of bytes begins with, and what kind of character it is.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

namespace starattn {

inline constexpr std::string_view kReplacementCharacter = "\xef\xbf\xbd";  // U+FFFD
inline constexpr std::string_view kMetaspace = "\xe2\x96\x81";             // U+2581 ▁

// What bytes begin with: a character, bytes that can never be one (the longest such stretch that
// starts like a character), or the beginning of a character whose end is not there.
enum class Utf8 { character, broken, incomplete };
struct Utf8Unit {
  Utf8 kind;
  std::size_t n_bytes;  // at least 1
};
Utf8Unit first_unit(std::string_view bytes);  // bytes: not empty

// Each broken or incomplete stretch becomes one U+FFFD.
std::string to_valid_utf8(std::string_view bytes);

// Of valid UTF-8: the character at a byte offset, and its length.
std::size_t character_bytes(std::string_view text, std::size_t at);
char32_t character_at(std::string_view text, std::size_t at);
std::size_t character_before(std::string_view text, std::size_t at);  // its offset; at > 0
void append_utf8(std::string& text, char32_t character);

bool is_white_space(char32_t character);     // the Unicode property White_Space
bool is_word_character(char32_t character);  // letters, marks, digits, connectors and joiners (\w)

}  // namespace starattn
