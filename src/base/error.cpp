// SPDX-License-Identifier: Apache-2.0
#include "base/error.h"

namespace starattn {
namespace {

constexpr std::size_t kMaxMessage = 2000;

}  // namespace

Error::Error(Exit exit, const std::string& message)
    : std::runtime_error(message.size() <= kMaxMessage ? message
                                                       : message.substr(0, kMaxMessage) + " ..."),
      exit_(exit) {}

void broken_invariant(const char* condition, const char* file, int line) {
  fail(Exit::bug,
       "{}:{}: this must hold and does not: {}. This is a bug in starattn; please report it", file,
       line, condition);
}

}  // namespace starattn
