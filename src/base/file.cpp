// SPDX-License-Identifier: Apache-2.0
#include "base/file.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <climits>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <optional>
#include <utility>

#include "base/error.h"
#include "base/foreign_file.h"

namespace starattn {
namespace {

constexpr int kMostLinks = 40;  // as many as the kernel follows

// What a symbolic link names; nullopt where the path is none.
std::optional<std::string> followed(const std::string& path) {
  char target[PATH_MAX];
  const ssize_t n = ::readlink(path.c_str(), target, sizeof target);
  if (n < 0) return std::nullopt;
  const std::string_view to(target, static_cast<std::size_t>(n));
  return to.starts_with('/') ? std::string(to) : fmt::format("{}/{}", parent_directory(path), to);
}

// The folder of a path, links and dots resolved; empty where there is none.
std::string real_folder(const std::string& path) {
  const std::unique_ptr<char, decltype(&std::free)> folder(
      ::realpath(parent_directory(path).c_str(), nullptr), &std::free);
  return folder ? folder.get() : "";
}

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

std::string real_path(const std::string& path) {
  std::string at = path;
  for (int n_links = 0; n_links < kMostLinks; ++n_links) {
    std::optional<std::string> next = followed(at);
    if (!next) break;
    at = *std::move(next);
  }
  const std::string folder = real_folder(at);
  if (folder.empty()) return at;  // not there
  return fmt::format("{}/{}", folder == "/" ? "" : folder, at.substr(at.find_last_of('/') + 1));
}

void require_place_for_output(const std::string& path) {
  struct stat info {};
  std::string what;
  if (::stat(path.c_str(), &info) == 0 && !S_ISREG(info.st_mode)) {
    what = S_ISDIR(info.st_mode)    ? "a folder"
           : S_ISFIFO(info.st_mode) ? "a pipe"
           : S_ISSOCK(info.st_mode) ? "a socket"
                                    : "a device";
  }
  // /dev/stdout is a link to /proc/self/fd/1, and that one to whatever it was redirected to.
  std::optional<std::string> at = path;
  for (int n_links = 0; at && what.empty() && n_links < kMostLinks; ++n_links) {
    const std::string folder = real_folder(*at);
    if (folder == "/dev" || folder.starts_with("/proc/"))
      what = "a name of what a process has open";
    at = followed(*at);
  }
  if (what.empty()) return;
  fail(Exit::cannot_create,
       "{} is {}; expected a file to create, replace or continue. Name a file; where the option "
       "takes '-', that is standard output",
       path, what);
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

bool is_still_at(const FileDescriptor& file, const std::string& path) {
  struct stat ours {};
  struct stat there {};
  return ::fstat(file.get(), &ours) == 0 && ::stat(path.c_str(), &there) == 0 &&
         ours.st_dev == there.st_dev && ours.st_ino == there.st_ino;
}

DurableFile::DurableFile(const std::string& path) : path_(real_path(path)) {
  require_place_for_output(path);
  const std::string temporary = path_ + ".tmp.starattn";
  do {
    file_ = FileDescriptor(
        ::open(temporary.c_str(), O_WRONLY | O_CREAT | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK, 0644));
    if (!file_.valid())
      fail(Exit::cannot_create, "cannot create {}: {}", temporary, std::strerror(errno));
    // Where the file system has no locks, two writers at a time are the user's to avoid.
    if (::flock(file_.get(), LOCK_EX | LOCK_NB) != 0 && errno == EWOULDBLOCK)
      fail(Exit::cannot_create, "{} is being written by another process", path);
  } while (!is_still_at(file_, temporary));  // the other has just made it its file
  temporary_ = temporary;
  if (::ftruncate(file_.get(), 0) != 0)
    fail(Exit::cannot_create, "cannot empty {}: {}", temporary_, std::strerror(errno));
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
