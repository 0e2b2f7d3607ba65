// SPDX-License-Identifier: Apache-2.0
#include "tokenizer/unicode.h"

#include <utf8proc.h>

#include "base/text.h"

namespace starattn {
namespace {

unsigned byte_at(std::string_view text, std::size_t at) {
  return static_cast<unsigned char>(text[at]);
}

std::size_t bytes_announced(unsigned lead) {  // 0: no character starts like this
  if (lead < 0x80) return 1;
  if (lead < 0xc2 || lead > 0xf4) return 0;
  return lead < 0xe0 ? 2 : lead < 0xf0 ? 3 : 4;
}

}  // namespace

Utf8Unit first_unit(std::string_view bytes) {
  const unsigned lead = byte_at(bytes, 0);
  const std::size_t n = bytes_announced(lead);
  if (n == 0) return {Utf8::broken, 1};
  // The second byte's range rules out overlong forms, surrogates and what lies past U+10FFFF.
  unsigned low = lead == 0xe0 ? 0xa0 : lead == 0xf0 ? 0x90 : 0x80;
  unsigned high = lead == 0xed ? 0x9f : lead == 0xf4 ? 0x8f : 0xbf;
  for (std::size_t i = 1; i < n; ++i) {
    if (i == bytes.size()) return {Utf8::incomplete, i};
    if (byte_at(bytes, i) < low || byte_at(bytes, i) > high) return {Utf8::broken, i};
    low = 0x80;
    high = 0xbf;
  }
  return {Utf8::character, n};
}

std::string to_valid_utf8(std::string_view bytes) {
  if (is_utf8(bytes)) return std::string(bytes);
  std::string text;
  while (!bytes.empty()) {
    const Utf8Unit unit = first_unit(bytes);
    text += unit.kind == Utf8::character ? bytes.substr(0, unit.n_bytes) : kReplacementCharacter;
    bytes.remove_prefix(unit.n_bytes);
  }
  return text;
}

std::size_t character_bytes(std::string_view text, std::size_t at) {
  const unsigned lead = byte_at(text, at);
  return lead < 0x80 ? 1 : lead < 0xe0 ? 2 : lead < 0xf0 ? 3 : 4;
}

char32_t character_at(std::string_view text, std::size_t at) {
  const unsigned lead = byte_at(text, at);
  if (lead < 0x80) return lead;
  const std::size_t n = character_bytes(text, at);
  char32_t character = lead & (0x7fU >> n);
  for (std::size_t i = 1; i < n; ++i) character = character << 6 | (byte_at(text, at + i) & 0x3fU);
  return character;
}

std::size_t character_before(std::string_view text, std::size_t at) {
  --at;
  while (at > 0 && (byte_at(text, at) & 0xc0U) == 0x80U) --at;
  return at;
}

void append_utf8(std::string& text, char32_t character) {
  utf8proc_uint8_t bytes[4];
  const auto n = utf8proc_encode_char(static_cast<utf8proc_int32_t>(character), bytes);
  text.append(reinterpret_cast<const char*>(bytes), static_cast<std::size_t>(n));
}

bool is_white_space(char32_t c) {
  return (c >= 0x09 && c <= 0x0d) || c == 0x20 || c == 0x85 || c == 0xa0 || c == 0x1680 ||
         (c >= 0x2000 && c <= 0x200a) || c == 0x2028 || c == 0x2029 || c == 0x202f || c == 0x205f ||
         c == 0x3000;
}

bool is_word_character(char32_t c) {
  switch (utf8proc_category(static_cast<utf8proc_int32_t>(c))) {
    case UTF8PROC_CATEGORY_LU:
    case UTF8PROC_CATEGORY_LL:
    case UTF8PROC_CATEGORY_LT:
    case UTF8PROC_CATEGORY_LM:
    case UTF8PROC_CATEGORY_LO:
    case UTF8PROC_CATEGORY_MN:
    case UTF8PROC_CATEGORY_MC:
    case UTF8PROC_CATEGORY_ME:
    case UTF8PROC_CATEGORY_ND:
    case UTF8PROC_CATEGORY_NL:
    case UTF8PROC_CATEGORY_PC:
      return true;
    default:  // joiners, and the circled and squared letters
      return c == 0x200c || c == 0x200d || (c >= 0x24b6 && c <= 0x24e9) ||
             (c >= 0x1f130 && c <= 0x1f149) || (c >= 0x1f150 && c <= 0x1f169) ||
             (c >= 0x1f170 && c <= 0x1f189);
  }
}

}  // namespace starattn
