// SPDX-License-Identifier: Apache-2.0
#include "base/file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <utility>

#include "base/error.h"
#include "base/foreign_file.h"

namespace starattn {
namespace {

std::size_t size_of_file(const FileDescriptor& file) {
  struct stat info {};
  STARATTN_CHECK(::fstat(file.get(), &info) == 0);
  return static_cast<std::size_t>(info.st_size);
}

}  // namespace

// O_NONBLOCK: opening a pipe would wait for a writer.
FileDescriptor open_to_read(const std::string& path) {
  FileDescriptor file(::open(path.c_str(), O_RDONLY | O_NONBLOCK | O_CLOEXEC));
  if (!file.valid()) fail(Exit::no_input, "cannot open {}: {}", path, std::strerror(errno));
  struct stat info {};
  if (::fstat(file.get(), &info) != 0)
    fail(Exit::io, "cannot stat {}: {}", path, std::strerror(errno));
  if (!S_ISREG(info.st_mode)) fail(Exit::no_input, "{} is not a regular file", path);
  return file;
}

FileDescriptor::~FileDescriptor() {
  if (fd_ >= 0) ::close(fd_);
}

FileDescriptor& FileDescriptor::operator=(FileDescriptor&& other) noexcept {
  std::swap(fd_, other.fd_);
  return *this;
}

bool is_same_file(const std::string& path, const std::string& other) {
  struct stat one {};
  struct stat two {};
  return ::stat(path.c_str(), &one) == 0 && ::stat(other.c_str(), &two) == 0 &&
         one.st_dev == two.st_dev && one.st_ino == two.st_ino;
}

std::string read_file(const std::string& path, std::size_t max_bytes) {
  const FileDescriptor file = open_to_read(path);
  const std::size_t size = size_of_file(file);
  if (size > max_bytes) {
    fail(Exit::bad_data, "{}: {} bytes, at most {} are read", path, size, max_bytes);
  }
  std::string bytes(size, '\0');
  std::size_t done = 0;
  while (done < size) {
    const ssize_t n = ::read(file.get(), bytes.data() + done, size - done);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) fail(Exit::io, "reading {} failed at byte {}: {}", path, done, std::strerror(errno));
    if (n == 0) fail(Exit::io, "{} shrank while it was read: {} of {} bytes", path, done, size);
    done += static_cast<std::size_t>(n);
  }
  if (is_lfs_pointer(bytes)) fail(Exit::bad_data, "{} {}", path, what_else_it_is(bytes));
  return bytes;
}

void write_all(int fd, std::string_view bytes, const std::string& path) {
  std::size_t done = 0;
  while (done < bytes.size()) {
    const ssize_t n = ::write(fd, bytes.data() + done, bytes.size() - done);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0)
      fail(Exit::io, "writing {} failed after {} bytes: {}", path, done, std::strerror(errno));
    done += static_cast<std::size_t>(n);
  }
}

DurableFile::DurableFile(std::string path)
    : path_(std::move(path)), temporary_(fmt::format("{}.tmp.{}", path_, ::getpid())) {
  file_ =
      FileDescriptor(::open(temporary_.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644));
  if (!file_.valid())
    fail(Exit::cannot_create, "cannot create {}: {}", temporary_, std::strerror(errno));
}

DurableFile::~DurableFile() {
  if (!temporary_.empty()) ::unlink(temporary_.c_str());
}

void DurableFile::append(std::string_view bytes) {
  write_all(file_.get(), bytes, temporary_);
}

void DurableFile::commit() {
  if (::fsync(file_.get()) != 0)
    fail(Exit::io, "fsync of {} failed: {}", temporary_, std::strerror(errno));
  if (::rename(temporary_.c_str(), path_.c_str()) != 0) {
    fail(Exit::cannot_create, "cannot rename {} to {}: {}", temporary_, path_,
         std::strerror(errno));
  }
  temporary_.clear();
  fsync_directory(parent_directory(path_));
}

void write_file_durably(const std::string& path, std::string_view bytes) {
  DurableFile file(path);
  file.append(bytes);
  file.commit();
}

void require_creatable(const std::string& path) {
  const DurableFile file(path);
}

void fsync_directory(const std::string& directory) {
  const FileDescriptor file(::open(directory.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!file.valid() || ::fsync(file.get()) != 0) {
    fail(Exit::io, "fsync of directory {} failed: {}", directory, std::strerror(errno));
  }
}

std::string parent_directory(const std::string& path) {
  const std::size_t slash = path.find_last_of('/');
  if (slash == std::string::npos) return ".";
  return slash == 0 ? "/" : path.substr(0, slash);
}

}  // namespace starattn
