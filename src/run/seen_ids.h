// SPDX-License-Identifier: Apache-2.0
// Which answers an input has asked for so far. They are known by document and query, so two lines
// that share both could not be told apart.
#pragma once

#include <cstdint>
#include <string>
#include <unordered_map>

#include "checkpoint/digest.h"
#include "io/document.h"

namespace starattn {

class SeenIds {
 public:
  // Throws Error(bad_data), naming the line where they were first, for ids that were there before.
  void add(const Document& document, const std::string& where);

 private:
  struct Hash {
    std::size_t operator()(const Digest& digest) const { return digest.low; }
  };
  std::unordered_map<Digest, std::int64_t, Hash> line_of_;  // by document and query
};

}  // namespace starattn
