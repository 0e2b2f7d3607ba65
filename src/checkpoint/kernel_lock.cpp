// SPDX-License-Identifier: Apache-2.0
#include "checkpoint/kernel_lock.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <thread>
#include <utility>

#include "base/clock.h"
#include "base/error.h"
#include "base/text.h"
#include "checkpoint/file_io.h"

namespace starattn {
namespace {

// flock, not fcntl: it belongs to the open file, so that threads and libraries of one process
// cannot drop it by closing another descriptor.
bool try_flock(int fd, int operation, const std::string& path) {
  while (::flock(fd, operation | LOCK_NB) != 0) {
    if (errno == EINTR) continue;
    if (errno == EWOULDBLOCK) return false;
    fail(Exit::io, "cannot lock {}: {} (the file system must support flock)", path,
         std::strerror(errno));
  }
  return true;
}

int operation_of(KernelLock::Mode mode) {
  return mode == KernelLock::Mode::shared ? LOCK_SH : LOCK_EX;
}

// Whoever deletes a document deletes its lock files last: a lock on a deleted file keeps nobody
// out.
bool is_still_there(int fd, const std::string& path) {
  struct stat ours {};
  struct stat there {};
  return ::fstat(fd, &ours) == 0 && ::stat(path.c_str(), &there) == 0 &&
         ours.st_dev == there.st_dev && ours.st_ino == there.st_ino;
}

// Links are not followed.
FileDescriptor open_lock_file(const std::string& path, int flags) {
  FileDescriptor file(::open(path.c_str(), flags | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK, 0666));
  const int error = errno;
  struct stat info {};
  if (::lstat(path.c_str(), &info) == 0 && !S_ISREG(info.st_mode)) {
    fail(
        Exit::cannot_create,
        "{} is not a regular file, so that no process can take this lock. Remove it, and run again",
        path);
  }
  errno = error;
  return file;
}

FileDescriptor create_lock_file(const std::string& path) {
  FileDescriptor file = open_lock_file(path, O_RDWR | O_CREAT);
  if (!file.valid()) {
    fail(Exit::cannot_create, "cannot open lock file {}: {}", path, std::strerror(errno));
  }
  return file;
}

std::string holder_in(const std::string& path) {
  try {
    std::string text = read_file(path, 256);
    text.resize(std::min(text.find('\n'), text.size()));
    return is_utf8(text) && !text.empty() ? text : "an unknown process";
  } catch (const Error&) {
    return "an unknown process";
  }
}

// For messages only, so failures do not matter.
void write_holder(int fd, std::string_view note = {}) {
  char host[256] = "";
  ::gethostname(host, sizeof host - 1);
  const std::string text = fmt::format("process {} on {}\n{}", ::getpid(), host, note);
  const bool written =
      ::ftruncate(fd, 0) == 0 && ::pwrite(fd, text.data(), text.size(), 0) == ssize_t(text.size());
  (void)written;
}

void nap(int attempt) {  // 1, 2, 4, 8, 16, 16, ... ms
  std::this_thread::sleep_for(std::chrono::milliseconds(1 << std::min(attempt, 4)));
}

[[noreturn]] void fail_busy(const std::string& path, double seconds) {
  fail(Exit::io,
       "{} is locked by {}; waited {:.0f} s. Wait for that process or end it, then run "
       "again",
       path, holder_in(path), seconds);
}

}  // namespace

KernelLock::KernelLock(const std::string& path, Mode mode, double seconds) : path_(path) {
  const Stopwatch watch;
  for (int attempt = 0;; ++attempt) {
    std::optional<KernelLock> lock = try_take(path, mode);
    if (lock) {
      file_ = std::move(lock->file_);
      return;
    }
    if (watch.seconds() >= seconds) fail_busy(path, seconds);
    nap(attempt);
  }
}

std::optional<KernelLock> KernelLock::try_take(const std::string& path, Mode mode) {
  for (;;) {
    FileDescriptor file = create_lock_file(path);
    if (!try_flock(file.get(), operation_of(mode), path)) return std::nullopt;
    if (!is_still_there(file.get(), path)) continue;
    if (mode == Mode::exclusive) write_holder(file.get());
    return KernelLock(path, std::move(file));
  }
}

std::optional<KernelLock> KernelLock::share_if_possible(const std::string& path, double seconds) {
  const Stopwatch watch;
  for (int attempt = 0;; ++attempt) {
    FileDescriptor file = open_lock_file(path, O_RDONLY);
    if (!file.valid()) return std::nullopt;
    const bool locked = try_flock(file.get(), LOCK_SH, path);
    if (locked && is_still_there(file.get(), path)) return KernelLock(path, std::move(file));
    if (!locked && watch.seconds() >= seconds) fail_busy(path, seconds);
    nap(attempt);
  }
}

bool KernelLock::is_free(const std::string& path) {
  const FileDescriptor file = open_lock_file(path, O_RDONLY);
  return !file.valid() || try_flock(file.get(), LOCK_EX, path);
}

void KernelLock::leave_note(std::string_view line) const {
  constexpr std::size_t kMostBytes = 1000;
  write_holder(file_.get(), one_line(first_characters(line, kMostBytes)) + "\n");
}

std::string KernelLock::note_in(const std::string& path) {
  constexpr std::size_t kMostBytes = 16 << 10;
  try {
    const std::string text = read_regular(path, kMostBytes);
    const std::size_t line = text.find('\n');  // the holder's
    if (line == std::string::npos) return "";
    const std::string note = text.substr(line + 1, text.find('\n', line + 1) - line - 1);
    return is_utf8(note) ? one_line(note) : "";
  } catch (const Error&) {
    return "";
  }
}

void KernelLock::downgrade() {
  while (::flock(file_.get(), LOCK_SH) != 0) {
    if (errno != EINTR) fail(Exit::io, "cannot lock {}: {}", path_, std::strerror(errno));
  }
}

}  // namespace starattn
