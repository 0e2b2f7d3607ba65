// SPDX-License-Identifier: Apache-2.0
// XXH3-128 digests of bytes and, one per 16 MiB piece, of files. They find damage, not forgery.
#pragma once

#include <compare>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

struct XXH3_state_s;

namespace starattn {

struct Digest {
  std::uint64_t high = 0;
  std::uint64_t low = 0;

  std::string hex() const;  // 32 lower-case digits, as xxhsum -H2 prints it
  static std::optional<Digest> from_hex(std::string_view text);
  auto operator<=>(const Digest&) const = default;
};

Digest digest_of(std::span<const std::byte> bytes);
Digest digest_of(std::string_view text);

// The digest of bytes that come in parts.
class StreamDigest {
 public:
  StreamDigest();
  void add(std::span<const std::byte> bytes);
  void add(std::string_view text);
  Digest value() const;  // of everything added so far

 private:
  struct Free {
    void operator()(XXH3_state_s* state) const;
  };
  std::unique_ptr<XXH3_state_s, Free> state_;
};

constexpr std::size_t kPieceBytes = std::size_t{16} << 20;

constexpr std::uint64_t n_pieces_of(std::uint64_t n_bytes) {
  return n_bytes / kPieceBytes + (n_bytes % kPieceBytes != 0);
}

// What the manifest knows of a file: its size and the digest of each of its pieces.
struct FileDigests {
  std::uint64_t n_bytes = 0;
  std::vector<Digest> pieces;  // n_pieces_of(n_bytes)
  bool operator==(const FileDigests&) const = default;
};

// The digests of pieces first, first + step, ... of bytes that are mapped, on n_threads threads.
std::vector<Digest> digest_pieces(std::span<const std::byte> bytes, std::size_t first,
                                  std::size_t step, int n_threads);

// A file's digests from its bytes as they pass, in order.
class PieceDigests {
 public:
  void add(std::span<const std::byte> bytes);
  FileDigests value();  // of everything added so far; once

 private:
  FileDigests file_;
  StreamDigest piece_;
};

// Reads the open file from its start to its end, 16 MiB at a time. `path` is for messages. Throws
// io.
FileDigests digest_file(int fd, const std::string& path);

}  // namespace starattn
