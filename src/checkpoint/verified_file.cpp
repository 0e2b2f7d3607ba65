// SPDX-License-Identifier: Apache-2.0
#include "checkpoint/verified_file.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "base/error.h"
#include "checkpoint/file_io.h"

namespace starattn {

VerifiedFile::VerifiedFile(std::string path, FileDigests expected)
    : path_(std::move(path)), expected_(std::move(expected)), file_(open_regular(path_)) {
  STARATTN_CHECK(expected_.pieces.size() == n_pieces_of(expected_.n_bytes));
  const std::uint64_t size = file_size(file_.get(), path_);
  if (size != expected_.n_bytes) {
    fail(Exit::bad_data, "{}: the manifest says {} bytes, the file has {}", path_,
         expected_.n_bytes, size);
  }
}

std::size_t VerifiedFile::size_of_piece(std::uint64_t piece) const {
  return std::min<std::uint64_t>(kPieceBytes, expected_.n_bytes - piece * kPieceBytes);
}

void VerifiedFile::read_piece(std::uint64_t piece, std::span<std::byte> bytes) {
  const std::uint64_t begin = piece * kPieceBytes;
  read_at(file_.get(), begin, bytes, path_);
  const Digest found = digest_of(bytes);
  if (found != expected_.pieces[piece]) {
    fail(Exit::bad_data,
         "{}: damaged in piece {} (bytes {} to {}): the manifest's digest is {}, the file's is {}",
         path_, piece, begin, begin + bytes.size() - 1, expected_.pieces[piece].hex(), found.hex());
  }
}

const VerifiedFile::Slot& VerifiedFile::cached(std::uint64_t piece) {
  Slot& slot = piece == 0 ? first_ : current_;
  if (slot.piece != piece) {
    slot.piece = UINT64_MAX;  // in case reading fails halfway
    slot.bytes.resize(size_of_piece(piece));
    read_piece(piece, slot.bytes);
    slot.piece = piece;
  }
  return slot;
}

void VerifiedFile::check_all() {
  for (std::uint64_t piece = 0; piece < expected_.pieces.size(); ++piece) cached(piece);
}

void VerifiedFile::read(std::uint64_t offset, std::span<std::byte> bytes) {
  if (offset > n_bytes() || bytes.size() > n_bytes() - offset) {
    fail(Exit::bad_data, "{}: {} bytes asked for at byte {}, the file has {}", path_, bytes.size(),
         offset, n_bytes());
  }
  while (!bytes.empty()) {
    const std::uint64_t piece = offset / kPieceBytes;
    const std::size_t skip = offset % kPieceBytes;
    const std::size_t n = std::min(bytes.size(), size_of_piece(piece) - skip);
    const bool whole = n == size_of_piece(piece);
    if (whole && piece != first_.piece && piece != current_.piece) {
      read_piece(piece, bytes.first(n));  // straight to where it belongs, checked there
    } else {
      std::memcpy(bytes.data(), cached(piece).bytes.data() + skip, n);
    }
    offset += n;
    bytes = bytes.subspan(n);
  }
}

}  // namespace starattn
