// SPDX-License-Identifier: Apache-2.0
#include "checkpoint/file_io.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <filesystem>
#include <random>
#include <system_error>
#include <utility>

#include "base/error.h"

namespace starattn {
namespace {

std::uint64_t random_bits() {
  std::random_device device;
  return (std::uint64_t{device()} << 32) | device();
}

}  // namespace

std::uint64_t file_size(int fd, const std::string& path) {
  struct stat info {};
  if (::fstat(fd, &info) != 0) fail(Exit::io, "cannot stat {}: {}", path, std::strerror(errno));
  return static_cast<std::uint64_t>(info.st_size);
}

void read_at(int fd, std::uint64_t offset, std::span<std::byte> bytes, const std::string& path) {
  std::size_t done = 0;
  while (done < bytes.size()) {
    const ssize_t n =
        ::pread(fd, bytes.data() + done, bytes.size() - done, static_cast<off_t>(offset + done));
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) {
      fail(Exit::io, "reading {} failed at byte {}: {}", path, offset + done, std::strerror(errno));
    }
    if (n == 0) fail(Exit::io, "{} ended at byte {} while it was read", path, offset + done);
    done += static_cast<std::size_t>(n);
  }
}

FileDescriptor open_regular(const std::string& path) {
  // O_NONBLOCK: opening a FIFO that someone planted must not hang.
  FileDescriptor file(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK));
  if (!file.valid()) {
    const bool is_absent = errno == ENOENT || errno == ENOTDIR || errno == ELOOP;
    fail(is_absent ? Exit::no_input : Exit::io, "cannot open {}: {}", path, std::strerror(errno));
  }
  struct stat info {};
  if (::fstat(file.get(), &info) != 0 || !S_ISREG(info.st_mode)) {
    fail(Exit::no_input, "{} is not a regular file", path);
  }
  return file;
}

std::string read_regular(const std::string& path, std::size_t max_bytes) {
  const FileDescriptor file = open_regular(path);
  const std::uint64_t size = file_size(file.get(), path);
  if (size > max_bytes) {
    fail(Exit::bad_data, "{}: {} bytes, at most {} are read", path, size, max_bytes);
  }
  std::string text(size, '\0');
  read_at(file.get(), 0, std::as_writable_bytes(std::span(text)), path);
  return text;
}

bool exists(const std::string& path) {
  struct stat info {};
  return ::lstat(path.c_str(), &info) == 0;
}

void make_directories(const std::string& path) {
  std::error_code error;
  if (std::filesystem::is_directory(path, error)) return;
  const std::string parent = parent_directory(path);
  if (parent != path) make_directories(parent);
  const bool is_made = ::mkdir(path.c_str(), 0777) == 0;
  const int reason = errno;
  if (!is_made && !(reason == EEXIST && std::filesystem::is_directory(path, error))) {
    fail(Exit::cannot_create, "cannot create directory {}: {}", path, std::strerror(reason));
  }
  fsync_directory(parent);
}

TemporaryFile::TemporaryFile(const std::string& final_path) : final_path_(final_path) {
  path_ = fmt::format("{}.tmp.{:016x}", final_path, random_bits());
  file_ = FileDescriptor(::open(path_.c_str(), O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0666));
  if (!file_.valid()) {
    fail(Exit::cannot_create, "cannot create {}: {}", path_, std::strerror(errno));
  }
}

TemporaryFile::~TemporaryFile() {
  if (!path_.empty()) ::unlink(path_.c_str());
}

TemporaryFile::TemporaryFile(TemporaryFile&& other) noexcept
    : final_path_(std::move(other.final_path_)),
      path_(std::exchange(other.path_, {})),
      file_(std::move(other.file_)) {}

void TemporaryFile::sync() {
  if (::fsync(file_.get()) != 0) {
    fail(Exit::io, "fsync of {} failed: {}", path_, std::strerror(errno));
  }
}

void TemporaryFile::publish() {
  if (::rename(path_.c_str(), final_path_.c_str()) != 0) {
    fail(Exit::io, "cannot rename {} to {}: {}", path_, final_path_, std::strerror(errno));
  }
  path_.clear();
  fsync_directory(parent_directory(final_path_));
}

void read_back(const std::string& path, const std::function<bool()>& is_as_written) {
  std::string what = "other values than were written";
  try {
    if (is_as_written()) return;
  } catch (const Error& error) {
    if (error.exit() != Exit::bad_data) throw;
    what = error.what();
  }
  fail(Exit::io, "{}: reading back what was written gives {}: a fault of the disk or its driver",
       path, what);
}

}  // namespace starattn
