// SPDX-License-Identifier: Apache-2.0
// Files read in place, and what happens to them meanwhile.
#pragma once

#include <sys/stat.h>

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>

#include "base/file.h"

namespace starattn {

// A read-only, shared mapping of a whole file: ranks of one node share its pages. Bytes that cannot
// be read (the file was cut off, its disk fails) read as 0 and are told by check_unchanged(); no
// signal ends the process.
class MappedFile {
 public:
  explicit MappedFile(const std::string& path);  // throws no_input, io
  ~MappedFile();
  MappedFile(MappedFile&& other) noexcept;
  MappedFile& operator=(MappedFile&& other) noexcept;

  std::span<const std::byte> bytes() const { return {data_, size_}; }
  const std::string& path() const { return path_; }

  // Which file it is and when it was written, for a look at whether two ranks of a node have mapped
  // the same one.
  struct Identity {
    std::uint64_t inode, size;
    std::int64_t seconds, nanoseconds;
    bool operator==(const Identity&) const = default;
  };
  Identity identity() const;

  // Throws io where the file was written or cut off, or could not be read, since it was mapped.
  // Another file under its name is none of that: the mapping keeps this one.
  void check_unchanged() const;
  // Its attributes have changed and its size and time of writing have not: it was renamed or
  // deleted, or written by somebody who sets times. The bytes can tell.
  bool has_new_attributes() const;
  void accept_attributes();  // the bytes are the same

 private:
  struct stat state() const;

  std::string path_;
  FileDescriptor file_;
  struct stat mapped_ {};  // when it was mapped
  const std::byte* data_ = nullptr;
  std::size_t size_ = 0;
  int region_ = -1;  // among those whose read errors are caught
};

}  // namespace starattn
