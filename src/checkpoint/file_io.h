// SPDX-License-Identifier: Apache-2.0
// The file calls that checkpoints need beyond base/file.h: reads at an offset, sizes, and files
// under a temporary name that become visible whole or not at all.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>
#include <string>

#include "base/file.h"

namespace starattn {

std::uint64_t file_size(int fd, const std::string& path);  // throws io

// Fills `bytes` from `offset`; a failed or short read throws io.
void read_at(int fd, std::uint64_t offset, std::span<std::byte> bytes, const std::string& path);

// Opens a regular file to read, never through a symbolic link. Throws no_input where there is none,
// io where it cannot be had now.
FileDescriptor open_regular(const std::string& path);

// All of a small regular file. Throws no_input, bad_data over max_bytes, io.
std::string read_regular(const std::string& path, std::size_t max_bytes);

bool exists(const std::string& path);  // anything of that name, links not followed

// The directory, made where it is missing, parents too, each of them synced: what is saved below
// would be lost with a name that is lost. Throws cannot_create, io.
void make_directories(const std::string& path);

// "<final path>.tmp.<16 hex digits>": new, open for reading and writing, removed at the end unless
// published. Several writers never share one.
class TemporaryFile {
 public:
  explicit TemporaryFile(const std::string& final_path);  // throws cannot_create
  ~TemporaryFile();
  TemporaryFile(TemporaryFile&& other) noexcept;
  TemporaryFile& operator=(TemporaryFile&&) = delete;

  const std::string& path() const { return path_; }
  int fd() const { return file_.get(); }

  void sync();     // fsync of the contents; a failure is final, the file is garbage. Throws io
  void publish();  // rename to the final path, fsync the directory. Throws io

 private:
  std::string final_path_;
  std::string path_;  // empty once published
  FileDescriptor file_;
};

// For a file that was just written: is_as_written reads it again. What it finds wrong, be it the
// values or the file's own structure, is a fault of the disk and no bad data. Throws io.
void read_back(const std::string& path, const std::function<bool()>& is_as_written);

}  // namespace starattn
