// SPDX-License-Identifier: Apache-2.0
// A tokenizer.json that is sound but asks for something we do not do. Apart from other errors,
// because a tokenizer.model beside it may then serve instead.
#pragma once

#include "base/error.h"

namespace starattn {

class UnsupportedTokenizer : public Error {
 public:
  using Error::Error;
};

// what: "normalizer 'Precompiled'"; supported: what there is instead.
[[noreturn]] inline void unsupported(const std::string& where, const std::string& what,
                                     const std::string& supported) {
  throw UnsupportedTokenizer(Exit::bad_data,
                             fmt::format("{}: {} is not supported ({})", where, what, supported));
}

}  // namespace starattn
