// SPDX-License-Identifier: Apache-2.0
#include "tokenizer/vocabulary.h"

#include "base/error.h"

namespace starattn {

void Vocabulary::read(const JsonObject& json) {
  if (json.json().empty()) fail(Exit::bad_data, "{}: the vocabulary is empty", json.where());
  ids_.reserve(json.json().size());
  for (const auto& [content, id] : json.json().items()) {
    if (!id.is_number_integer() || id < 0 || id >= kMaxSize) {
      fail(Exit::bad_data, "{}: token '{}': expected an id from 0 to {}, got {}", json.where(),
           content, kMaxSize - 1, to_line(id).substr(0, 80));
    }
    add(content, id.get<std::int64_t>(), json.where());
  }
}

void Vocabulary::add(std::string content, std::int64_t id, const std::string& where) {
  if (content.empty()) fail(Exit::bad_data, "{}: token {} is the empty string", where, id);
  if (content.size() > kMaxTokenBytes) {
    fail(Exit::bad_data, "{}: token {} has {} bytes, at most {} are read", where, id,
         content.size(), kMaxTokenBytes);
  }
  if (id < 0 || id >= kMaxSize) {
    fail(Exit::bad_data, "{}: token '{}': expected an id from 0 to {}, got {}", where, content,
         kMaxSize - 1, id);
  }
  const auto token = static_cast<Token>(id);
  if (const Token known = find(content); known >= 0 && known != token) {
    fail(Exit::bad_data, "{}: token '{}' has two ids, {} and {}", where, content, known, token);
  }
  const auto index = static_cast<std::size_t>(id);
  if (contents_.size() <= index) contents_.resize(index + 1);
  if (!contents_[index].empty() && contents_[index] != content) {
    fail(Exit::bad_data, "{}: tokens '{}' and '{}' have the same id {}", where, contents_[index],
         content, id);
  }
  contents_[index] = content;
  ids_.emplace(std::move(content), token);
}

Token Vocabulary::find(std::string_view content) const {
  const auto it = ids_.find(content);
  return it == ids_.end() ? -1 : it->second;
}

const std::string& Vocabulary::content(Token token) const {
  static const std::string kNone;
  return token >= 0 && static_cast<std::size_t>(token) < contents_.size()
             ? contents_[static_cast<std::size_t>(token)]
             : kNone;
}

}  // namespace starattn
