// SPDX-License-Identifier: Apache-2.0
#include "base/error.h"

#include "base/text.h"

namespace starattn {
namespace {

constexpr std::size_t kMaxMessage = 2000;

// Names and texts from files may be anything: bytes that are no UTF-8 stand there as \xff.
std::string readable(std::string_view message) {
  std::string_view rest = message.substr(0, kMaxMessage);
  std::string text;
  for (std::size_t bad = 0; !is_utf8(rest, &bad); rest.remove_prefix(bad + 1)) {
    text += rest.substr(0, bad);
    const bool is_cut = message.size() > kMaxMessage && rest.size() - bad < 4;
    if (!is_cut) text += fmt::format("\\x{:02x}", static_cast<unsigned char>(rest[bad]));
  }
  text += rest;
  return message.size() <= kMaxMessage ? text : text + " ...";
}

}  // namespace

Error::Error(Exit exit, const std::string& message)
    : std::runtime_error(readable(message)), exit_(exit) {}

void broken_invariant(const char* condition, const char* file, int line) {
  fail(Exit::bug,
       "{}:{}: this must hold and does not: {}. This is a bug in starattn; please report it", file,
       line, condition);
}

}  // namespace starattn
