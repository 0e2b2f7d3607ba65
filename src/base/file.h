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

// A DurableFile in one call. Throws cannot_create or io.
void write_file_durably(const std::string& path, std::string_view bytes);

// Throws what that would throw where it could not even begin; the path keeps what it has.
void require_creatable(const std::string& path);

// Where a path leads, which need not exist: symbolic links are followed to the last one.
std::string real_path(const std::string& path);

// Throws cannot_create, and says what to do, for a folder, a pipe, a device, or a name of something
// that a process has open (/dev/stdout): they can be neither replaced nor continued.
void require_place_for_output(const std::string& path);

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
// Whether the path still leads to the open file, or another has taken its place.
bool is_still_at(const FileDescriptor& file, const std::string& path);

// All of it or an exception (io); `path` is for the message.
void write_all(int fd, std::string_view bytes, const std::string& path);

// A file written piece by piece to "<path>.tmp.starattn" and renamed over the path at the end, both
// synced: after a crash the path holds the old bytes or the new ones. Without commit() it keeps
// what it had. What a killed process left in the temporary file goes with the next one's.
class DurableFile {
 public:
  explicit DurableFile(const std::string& path);  // throws cannot_create
  ~DurableFile();
  DurableFile(const DurableFile&) = delete;
  DurableFile& operator=(const DurableFile&) = delete;

  void append(std::string_view bytes);  // throws io
  void commit();                        // once, at the end; throws cannot_create or io

 private:
  std::string path_;       // symbolic links followed
  std::string temporary_;  // empty once it has become the file
  FileDescriptor file_;
};

}  // namespace starattn
