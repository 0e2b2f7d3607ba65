// SPDX-License-Identifier: Apache-2.0
// The tokens of a model: content <-> id, both unique. Ids may have holes.
#pragma once

#include <functional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "base/json.h"
#include "base/next_token.h"

namespace starattn {

class Vocabulary {
 public:
  static constexpr std::int64_t kMaxSize = std::int64_t{1} << 22;
  static constexpr std::size_t kMaxTokenBytes = std::size_t{1} << 12;

  // Reads {"token": id, ...}. Throws Error(bad_data) naming the token.
  void read(const JsonObject& json);
  // Adds one; the same token again changes nothing.
  void add(std::string content, std::int64_t id, const std::string& where);

  Token find(std::string_view content) const;            // -1 when there is none
  const std::string& content(Token token) const;         // empty when there is none
  std::size_t size() const { return contents_.size(); }  // the largest id + 1

 private:
  struct Hash {
    using is_transparent = void;
    std::size_t operator()(std::string_view text) const {
      return std::hash<std::string_view>{}(text);
    }
  };
  std::vector<std::string> contents_;  // by id
  std::unordered_map<std::string, Token, Hash, std::equal_to<>> ids_;
};

}  // namespace starattn
