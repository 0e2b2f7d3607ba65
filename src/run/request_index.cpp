// SPDX-License-Identifier: Apache-2.0
#include "run/request_index.h"

#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <utility>

#include "base/error.h"
#include "io/request.h"

namespace starattn {
namespace {

// Of all that stands before the question.
Digest digest_of_context(const Document& request) {
  StreamDigest digest;
  const auto add = [&](std::string_view text) {
    digest.add(fmt::format("{} ", text.size()));
    digest.add(text);
  };
  add(request.kind == DocumentKind::chat ? "chat" : "completion");
  for (const Message& message : request.messages) {
    add(message.role);
    add(message.text);
  }
  add(request.context_file);
  add(request.context);
  return digest.value();
}

}  // namespace

RequestIndex::RequestIndex(const std::string& path, std::string question_marker)
    : path_(path), question_marker_(std::move(question_marker)), file_(open_to_read(path)) {}

std::int64_t RequestIndex::context_of(const Document& request) {
  return context_of_
      .emplace(digest_of_context(request), static_cast<std::int64_t>(context_of_.size()))
      .first->second;
}

void RequestIndex::add(std::int64_t context, const Line& line) {
  if (std::ssize(places_) <= context) places_.resize(static_cast<std::size_t>(context) + 1);
  std::vector<Place>& places = places_[static_cast<std::size_t>(context)];
  if (places.empty()) ++n_contexts_;
  places.push_back({line.number, line.begin, line.text.size(), digest_of(line.text).low});
  ++n_requests_;
}

std::optional<Document> RequestIndex::next() {
  while (at_context_ < places_.size() && at_place_ == places_[at_context_].size()) {
    places_[at_context_] = {};
    ++at_context_;
    at_place_ = 0;
  }
  if (at_context_ == places_.size()) return std::nullopt;
  const std::vector<Place>& places = places_[at_context_];
  Document document = read(places[at_place_++]);
  std::size_t n_bytes = document.queries[0].text.size();
  while (at_place_ < places.size() && n_bytes < kMaxQuestionBytes) {
    Document other = read(places[at_place_++]);
    n_bytes += other.queries[0].text.size();
    document.queries.push_back(std::move(other.queries[0]));
  }
  return document;
}

Document RequestIndex::read(const Place& place) const {
  std::string text(place.n_bytes, '\0');
  std::size_t n_read = 0;
  while (n_read < text.size()) {
    const ssize_t n = ::pread(file_.get(), text.data() + n_read, text.size() - n_read,
                              static_cast<off_t>(place.begin + n_read));
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) fail(Exit::io, "reading {} failed: {}", path_, std::strerror(errno));
    if (n == 0) break;  // it is shorter now
    n_read += static_cast<std::size_t>(n);
  }
  if (n_read < text.size() || digest_of(text).low != place.hash) {
    fail(Exit::io,
         "{}:{}: the line has changed since the run began; leave the input alone while it is read",
         path_, place.line);
  }
  return parse_request(text, place.line, fmt::format("{}:{}", path_, place.line), question_marker_);
}

}  // namespace starattn
