// SPDX-License-Identifier: Apache-2.0
// Files without surprises: whole reads with a size limit, durable writes.
#pragma once

#include <cstddef>
#include <span>
#include <string>
#include <string_view>

namespace starattn {

// The whole file. Throws no_input when it cannot be opened, bad_data over max_bytes and for a Git
// LFS pointer in its place, io on a failed read.
std::string read_file(const std::string& path, std::size_t max_bytes);

// Write to "<path>.tmp.<pid>", fsync, rename over path, fsync the directory: after a crash the path
// holds the old bytes or the new ones. Throws cannot_create or io.
void write_file_durably(const std::string& path, std::string_view bytes);

// Throws what that would throw where it could not even begin; the path keeps what it has.
void require_creatable(const std::string& path);

bool is_same_file(const std::string& path, const std::string& other);  // false where one is absent

void fsync_directory(const std::string& directory);  // throws io
std::string parent_directory(const std::string& path);

// An open file descriptor, closed at the end.
class FileDescriptor {
 public:
  FileDescriptor() = default;
  explicit FileDescriptor(int fd) : fd_(fd) {}
  ~FileDescriptor();
  FileDescriptor(FileDescriptor&& other) noexcept : fd_(other.fd_) { other.fd_ = -1; }
  FileDescriptor& operator=(FileDescriptor&& other) noexcept;
  int get() const { return fd_; }
  bool valid() const { return fd_ >= 0; }

 private:
  int fd_ = -1;
};

// A regular file, to read. Throws no_input, io.
FileDescriptor open_to_read(const std::string& path);

// All of it or an exception (io); `path` is for the message.
void write_all(int fd, std::string_view bytes, const std::string& path);

// The same for a file written piece by piece; without commit() the path keeps what it had.
class DurableFile {
 public:
  explicit DurableFile(std::string path);  // throws cannot_create
  ~DurableFile();
  DurableFile(const DurableFile&) = delete;
  DurableFile& operator=(const DurableFile&) = delete;

  void append(std::string_view bytes);  // throws io
  void commit();                        // once, at the end; throws cannot_create or io

 private:
  std::string path_;
  std::string temporary_;  // empty once it has become the file
  FileDescriptor file_;
};

}  // namespace starattn
