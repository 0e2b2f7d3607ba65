// SPDX-License-Identifier: Apache-2.0
#include "checkpoint/digest.h"

#include <sys/mman.h>
#include <xxhash.h>

#include <algorithm>
#include <atomic>
#include <charconv>
#include <new>
#include <thread>

#include "base/error.h"
#include "checkpoint/file_io.h"

namespace starattn {
namespace {

Digest from_xxh(XXH128_hash_t hash) {
  return {hash.high64, hash.low64};
}

bool parse_hex64(std::string_view text, std::uint64_t& value) {
  const bool digits_only = std::all_of(text.begin(), text.end(), [](char c) {
    return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f');
  });
  if (!digits_only) return false;
  return std::from_chars(text.data(), text.data() + text.size(), value, 16).ec == std::errc();
}

}  // namespace

std::string Digest::hex() const {
  return fmt::format("{:016x}{:016x}", high, low);
}

std::optional<Digest> Digest::from_hex(std::string_view text) {
  Digest digest;
  if (text.size() != 32 || !parse_hex64(text.substr(0, 16), digest.high) ||
      !parse_hex64(text.substr(16), digest.low)) {
    return std::nullopt;
  }
  return digest;
}

Digest digest_of(std::span<const std::byte> bytes) {
  return from_xxh(XXH3_128bits(bytes.data(), bytes.size()));
}

Digest digest_of(std::string_view text) {
  return digest_of(std::as_bytes(std::span(text)));
}

void StreamDigest::Free::operator()(XXH3_state_s* state) const {
  XXH3_freeState(state);
}

StreamDigest::StreamDigest() : state_(XXH3_createState()) {
  if (!state_) throw std::bad_alloc();
  STARATTN_CHECK(XXH3_128bits_reset(state_.get()) == XXH_OK);
}

void StreamDigest::add(std::span<const std::byte> bytes) {
  if (bytes.empty()) return;
  STARATTN_CHECK(XXH3_128bits_update(state_.get(), bytes.data(), bytes.size()) == XXH_OK);
}

void StreamDigest::add(std::string_view text) {
  add(std::as_bytes(std::span(text)));
}

Digest StreamDigest::value() const {
  return from_xxh(XXH3_128bits_digest(state_.get()));
}

std::vector<Digest> digest_pieces(std::span<const std::byte> bytes, std::size_t first,
                                  std::size_t step, int n_threads) {
  const std::size_t n_pieces = n_pieces_of(bytes.size());
  std::vector<Digest> digests(n_pieces > first ? (n_pieces - first + step - 1) / step : 0);
  std::atomic<std::size_t> next{0};
  const auto work = [&] {
    for (std::size_t i = next++; i < digests.size(); i = next++) {
      const std::size_t begin = (first + i * step) * kPieceBytes;
      const auto piece = bytes.subspan(begin, std::min(kPieceBytes, bytes.size() - begin));
      // Only advice: asks for the piece in one go rather than page by page.
      ::madvise(const_cast<std::byte*>(piece.data()), piece.size(), MADV_WILLNEED);
      digests[i] = digest_of(piece);
    }
  };
  std::vector<std::jthread> helpers;
  for (int i = 1; i < n_threads; ++i) helpers.emplace_back(work);
  work();
  helpers.clear();
  return digests;
}

void PieceDigests::add(std::span<const std::byte> bytes) {
  while (!bytes.empty()) {
    const std::size_t n =
        std::min<std::size_t>(bytes.size(), kPieceBytes - file_.n_bytes % kPieceBytes);
    piece_.add(bytes.first(n));
    bytes = bytes.subspan(n);
    file_.n_bytes += n;
    if (file_.n_bytes % kPieceBytes != 0) continue;
    file_.pieces.push_back(piece_.value());
    piece_ = {};
  }
}

FileDigests PieceDigests::value() {
  if (file_.n_bytes % kPieceBytes != 0) file_.pieces.push_back(piece_.value());
  return std::move(file_);
}

FileDigests digest_file(int fd, const std::string& path) {
  FileDigests digests{file_size(fd, path), {}};
  std::vector<std::byte> piece(std::min<std::uint64_t>(kPieceBytes, digests.n_bytes));
  for (std::uint64_t offset = 0; offset < digests.n_bytes; offset += kPieceBytes) {
    const auto part =
        std::span(piece).first(std::min<std::uint64_t>(kPieceBytes, digests.n_bytes - offset));
    read_at(fd, offset, part, path);
    digests.pieces.push_back(digest_of(part));
  }
  return digests;
}

}  // namespace starattn
