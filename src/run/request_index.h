// SPDX-License-Identifier: Apache-2.0
// The requests of a batch file, by their contexts: those with equal ones become one document, so
// that each context is encoded once. The file is read twice; in between, digests and offsets are
// kept, no texts: 32 bytes a request.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <unordered_map>
#include <vector>

#include "base/file.h"
#include "checkpoint/digest.h"
#include "io/document.h"
#include "io/line_reader.h"

namespace starattn {

class RequestIndex {
 public:
  // Of one document at most, unless a single one is longer: the bytes of its questions. What a
  // context has beyond that becomes a document of its own.
  static constexpr std::size_t kMaxQuestionBytes = std::size_t{64} << 20;

  // Throws Error(no_input | io).
  RequestIndex(const std::string& path, std::string question_marker);

  // Which context a request has, in the order in which they were first seen.
  std::int64_t context_of(const Document& request);
  // A request to be answered, of that context.
  void add(std::int64_t context, const Line& line);

  std::int64_t n_requests() const { return n_requests_; }  // that were added
  std::int64_t n_contexts() const { return n_contexts_; }  // with one that was added

  // Requests of one context, in input order; contexts in the order in which they were first seen.
  // None when all were given. Throws Error(io) when the file has changed since they were added.
  std::optional<Document> next();

 private:
  struct Place {
    std::int64_t line = 0;
    std::uint64_t begin = 0;
    std::uint64_t n_bytes = 0;
    std::uint64_t hash = 0;
  };
  struct DigestHash {
    std::size_t operator()(const Digest& digest) const { return digest.low; }
  };

  Document read(const Place& place) const;

  std::string path_;
  std::string question_marker_;
  FileDescriptor file_;
  std::unordered_map<Digest, std::int64_t, DigestHash> context_of_;
  std::vector<std::vector<Place>> places_;  // by context
  std::int64_t n_requests_ = 0;
  std::int64_t n_contexts_ = 0;
  std::size_t at_context_ = 0;  // where next() goes on
  std::size_t at_place_ = 0;
};

}  // namespace starattn
