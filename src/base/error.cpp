// SPDX-License-Identifier: Apache-2.0
#include "base/error.h"

namespace starattn {

void broken_invariant(const char* condition, const char* file, int line) {
  fail(Exit::bug,
       "{}:{}: this must hold and does not: {}. This is a bug in starattn; please report it", file,
       line, condition);
}

}  // namespace starattn
