// SPDX-License-Identifier: Apache-2.0
// A file of which nobody sees a byte before the digest of its 16 MiB piece has been checked. The
// bytes handed out are the very bytes that were checked, not a second reading of the disk, so a
// file that changes in between cannot slip through.
#pragma once

#include <cstddef>
#include <cstdint>
#include <exception>
#include <span>
#include <string>
#include <vector>

#include "base/file.h"
#include "checkpoint/digest.h"

namespace starattn {

class VerifiedFile {
 public:
  // Throws no_input when it cannot be opened, bad_data when its size is not the expected one.
  VerifiedFile(std::string path, FileDigests expected);

  // Reads every piece once. Throws bad_data naming file, piece and byte range, or io.
  void check_all();

  // Bytes [offset, offset + bytes.size()), checked again as they are read. Throws as check_all;
  // bad_data past the end. After an exception the memory holds nothing of use.
  void read(std::uint64_t offset, std::span<std::byte> bytes);

  const std::string& path() const { return path_; }
  std::uint64_t n_bytes() const { return expected_.n_bytes; }

  // An exception cannot pass through the C frames of HDF5: the driver leaves it here.
  std::exception_ptr pending_error;

 private:
  struct Slot {
    std::uint64_t piece = UINT64_MAX;  // none yet
    std::vector<std::byte> bytes;
  };
  std::size_t size_of_piece(std::uint64_t piece) const;
  void read_piece(std::uint64_t piece, std::span<std::byte> bytes);
  const Slot& cached(std::uint64_t piece);

  std::string path_;
  FileDigests expected_;
  FileDescriptor file_;
  Slot first_;    // piece 0 stays: HDF5's own structures are there
  Slot current_;  // the piece that sequential reading is in
};

}  // namespace starattn
