// SPDX-License-Identifier: Apache-2.0
#include "tokenizer/byte_level.h"

#include <array>

#include "tokenizer/unicode.h"

namespace starattn {
namespace {

struct Alphabet {
  std::array<std::string, 256> letters;  // of each byte
  std::array<int, 512> bytes;            // of each character below U+0200, -1 where there is none
};

// The printable characters of Latin-1 stand for themselves; the other 68 bytes take U+0100 onwards.
const Alphabet& alphabet() {
  static const Alphabet kAlphabet = [] {
    Alphabet result;
    result.bytes.fill(-1);
    char32_t next = 0x100;
    for (unsigned byte = 0; byte < 256; ++byte) {
      const bool is_printable = (byte >= 0x21 && byte <= 0x7e) || (byte >= 0xa1 && byte != 0xad);
      const char32_t letter = is_printable ? byte : next++;
      append_utf8(result.letters[byte], letter);
      result.bytes[letter] = static_cast<int>(byte);
    }
    return result;
  }();
  return kAlphabet;
}

}  // namespace

std::string to_byte_alphabet(std::string_view bytes) {
  std::string text;
  for (const char byte : bytes) text += alphabet().letters[static_cast<unsigned char>(byte)];
  return text;
}

std::optional<std::string> from_byte_alphabet(std::string_view text) {
  std::string bytes;
  for (std::size_t at = 0; at < text.size(); at += character_bytes(text, at)) {
    const char32_t letter = character_at(text, at);
    if (letter >= alphabet().bytes.size() || alphabet().bytes[letter] < 0) return std::nullopt;
    bytes += static_cast<char>(alphabet().bytes[letter]);
  }
  return bytes;
}

}  // namespace starattn
