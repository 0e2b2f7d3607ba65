// SPDX-License-Identifier: Apache-2.0
// A disk that goes wrong at one chosen call: preload this library into a program, and the calls
// that change files below one folder are numbered, recorded, and one of them fails, is cut short,
// or is the last thing that the process ever does. tests/faults/disk.py reads the record and works
// out what a disk would hold after the power has gone.
//
//   FAULTY_DISK_FOLDER  only files below this folder (an absolute path) count
//   FAULTY_DISK_STATE   a file of zeros that all ranks map: the numbers, and whether the fault has
//                       hit
//
//   FAULTY_DISK_RECORD  the calls, appended (absent: none are recorded)
//
//   FAULTY_DISK_PLAN    kind:number[:errno], number from 1
//
//   before, behind, half: SIGKILL before, behind, or in the middle of the call.
//
//   error: the call fails with errno, and nothing is done.
//
//   full, dying: all calls from here on fail: those that need space, or all.
//
//   short, interrupt: a write takes half; a write fails with EINTR. Number 0: every second one.
//
//   flip: the first write of a block from here on stores one wrong bit.
//
//   readerror: reading call `number` fails with errno (reads have numbers of their own).
//
// fsync and its like do nothing: what is synced is known from the record, and the page cache
// survives a kill anyway.
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#include <atomic>
#include <cstdint>

namespace {

struct State {
  std::atomic<std::uint64_t> n_calls;
  std::atomic<std::uint64_t> n_reads;
  std::atomic<std::uint32_t> hit;     // the planned call came
  std::atomic<std::uint32_t> locked;  // one call at a time, so that the record has their order
};

enum class Op : std::uint32_t {
  create = 1,
  write,
  truncate,
  sync,
  close,
  rename,
  unlink,
  mkdir,
  rmdir
};

struct Head {
  std::uint32_t op, rank;
  std::uint64_t number, inode, offset;
  std::uint32_t path_bytes, other_bytes, data_bytes, failed;
};

struct OpenFile {
  std::uint64_t inode = 0;
  bool is_ours = false;
  bool writes = false;
  char path[PATH_MAX] = "";
};

constexpr int kMostFiles = 4096;
OpenFile files[kMostFiles];

template <typename Function>
Function* real(const char* name) {
  return reinterpret_cast<Function*>(dlsym(RTLD_NEXT, name));
}
#define REAL(name) (real<decltype(::name)>(#name))

struct Plan {
  char kind[16] = "";
  std::uint64_t number = UINT64_MAX;
  int error = EIO;
};

struct Disk {
  const char* folder = getenv("FAULTY_DISK_FOLDER");
  State* state = nullptr;
  int record = -1;
  Plan plan;
  std::uint32_t rank = 0;

  Disk() {
    const char* path = getenv("FAULTY_DISK_STATE");
    if (!folder || !path) {
      folder = nullptr;
      return;
    }
    const int file = REAL(open)(path, O_RDWR | O_CLOEXEC);
    void* memory = file < 0
                       ? MAP_FAILED
                       : mmap(nullptr, sizeof(State), PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    if (memory == MAP_FAILED) {
      dprintf(2, "faulty disk: cannot map %s\n", path);
      _exit(99);
    }
    state = static_cast<State*>(memory);
    if (const char* to = getenv("FAULTY_DISK_RECORD"))
      record = REAL(open)(to, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
    if (const char* text = getenv("FAULTY_DISK_PLAN")) {
      unsigned long long number = 0;
      if (sscanf(text, "%15[a-z]:%llu:%d", plan.kind, &number, &plan.error) < 2) _exit(99);
      plan.number = number;
    }
    if (const char* number = getenv("OMPI_COMM_WORLD_RANK"))
      rank = static_cast<std::uint32_t>(atoi(number));
  }
};

Disk& disk() {
  static Disk instance;
  return instance;
}

// The path made absolute, if it is below the folder.
bool ours(const char* path, char (&absolute)[PATH_MAX]) {
  if (!disk().folder || !path) return false;
  if (path[0] == '/') {
    snprintf(absolute, sizeof absolute, "%s", path);
  } else {
    char here[PATH_MAX];
    if (!getcwd(here, sizeof here)) return false;
    if (strlen(here) + strlen(path) + 2 > sizeof absolute) return false;
    strcpy(absolute, here);
    strcat(absolute, "/");
    strcat(absolute, path[0] == '.' && path[1] == '/' ? path + 2 : path);
  }
  const std::size_t n = strlen(disk().folder);
  return strncmp(absolute, disk().folder, n) == 0 && (absolute[n] == '/' || absolute[n] == '\0');
}

OpenFile* ours(int fd) {
  return disk().folder && fd >= 0 && fd < kMostFiles && files[fd].is_ours ? &files[fd] : nullptr;
}

std::uint64_t inode_of(int fd) {
  struct stat info {};
  return fstat(fd, &info) == 0 ? info.st_ino : 0;
}

// One numbered call: decides at its begin what becomes of it, and is recorded once it is over.
class Call {
 public:
  Call(Op op, const char* path, std::uint64_t inode = 0) : op_(op), path_(path), inode_(inode) {
    while (disk().state->locked.exchange(1) != 0) usleep(20);
    number_ = ++disk().state->n_calls;
    const bool lasts = is("full") || is("dying");
    const bool is_of_block = op == Op::write && strstr(path, ".h5.tmp.");
    is_planned_ = disk().plan.number == 0 ? number_ % 2 == 0 && op == Op::write
                  : lasts                 ? number_ >= disk().plan.number
                  : is("flip")
                      ? number_ >= disk().plan.number && is_of_block && disk().state->hit == 0
                      : number_ == disk().plan.number;
    if (is_planned_) disk().state->hit = 1;
    if (is_planned_ && (is("before") || (is("half") && op != Op::write))) die();
  }
  ~Call() { disk().state->locked = 0; }
  Call(const Call&) = delete;
  Call& operator=(const Call&) = delete;

  // Whether it fails, with errno set, without having done anything.
  bool fails() {
    const bool needs_space = op_ == Op::write || op_ == Op::create || op_ == Op::mkdir;
    const bool interrupted = is("interrupt") && op_ == Op::write;
    if (!is_planned_ || !(is("error") || is("dying") || (is("full") && needs_space) || interrupted))
      return false;
    record(0, nullptr, 0, "", /*failed=*/1);
    errno = interrupted ? EINTR : is("full") ? ENOSPC : disk().plan.error;
    return true;
  }

  // Of a write: how many bytes are taken, and whether one of them is stored wrongly.
  std::size_t taken(std::size_t n_bytes) const {
    return is_planned_ && (is("half") || is("short")) && n_bytes > 1 ? n_bytes / 2 : n_bytes;
  }
  bool flips() const { return is_planned_ && is("flip"); }

  void is_about(std::uint64_t inode) { inode_ = inode; }
  // It has been done.
  void done(std::uint64_t offset = 0, const void* data = nullptr, std::size_t n_bytes = 0,
            const char* other = "") {
    record(offset, data, n_bytes, other, /*failed=*/0);
    if (is_planned_ && (is("behind") || is("half"))) die();
  }

 private:
  static bool is(const char* kind) { return strcmp(disk().plan.kind, kind) == 0; }
  [[noreturn]] static void die() {
    kill(getpid(), SIGKILL);
    for (;;) pause();
  }

  void record(std::uint64_t offset, const void* data, std::size_t n_bytes, const char* other,
              std::uint32_t failed) const {
    if (disk().record < 0) return;
    const Head head{static_cast<std::uint32_t>(op_),
                    disk().rank,
                    number_,
                    inode_,
                    offset,
                    static_cast<std::uint32_t>(strlen(path_)),
                    static_cast<std::uint32_t>(strlen(other)),
                    static_cast<std::uint32_t>(data ? n_bytes : 0),
                    failed};
    const iovec parts[] = {{const_cast<Head*>(&head), sizeof head},
                           {const_cast<char*>(path_), head.path_bytes},
                           {const_cast<char*>(other), head.other_bytes},
                           {const_cast<void*>(data), head.data_bytes}};
    if (writev(disk().record, parts, 4) < 0) _exit(99);
  }

  Op op_;
  const char* path_;
  std::uint64_t inode_;
  std::uint64_t number_ = 0;
  bool is_planned_ = false;
};

bool read_fails(int fd) {
  if (!ours(fd)) return false;
  const std::uint64_t number = ++disk().state->n_reads;
  if (strcmp(disk().plan.kind, "readerror") != 0 || number != disk().plan.number) return false;
  disk().state->hit = 1;
  errno = disk().plan.error;
  return true;
}

template <typename Open>
int open_file(const char* path, int flags, const Open& open) {
  char absolute[PATH_MAX];
  if (!ours(path, absolute)) return open();
  struct stat before {};
  const bool is_there = lstat(absolute, &before) == 0;
  const bool cuts =
      is_there && (flags & O_TRUNC) && (flags & O_ACCMODE) != O_RDONLY && before.st_size > 0;
  int fd = -1;
  if (cuts || (!is_there && (flags & O_CREAT))) {
    Call call(cuts ? Op::truncate : Op::create, absolute);
    if (call.fails()) return -1;
    if ((fd = open()) < 0) return fd;
    call.is_about(inode_of(fd));
    call.done();
  } else {
    fd = open();
  }
  if (fd >= 0 && fd < kMostFiles) {
    files[fd].is_ours = true;
    files[fd].writes = (flags & O_ACCMODE) != O_RDONLY;
    files[fd].inode = inode_of(fd);
    strcpy(files[fd].path, absolute);
  }
  return fd;
}

template <typename Write>
ssize_t write_file(OpenFile& file, const void* data, std::size_t n_bytes, std::uint64_t offset,
                   const Write& write) {
  Call call(Op::write, file.path, file.inode);
  if (call.fails()) return -1;
  const std::size_t n = call.taken(n_bytes);
  ssize_t written = 0;
  if (call.flips() && n > 0) {
    char* wrong = static_cast<char*>(malloc(n));
    memcpy(wrong, data, n);
    wrong[n / 2] ^= 1;
    written = write(wrong, n);
    free(wrong);
  } else {
    written = write(data, n);
  }
  if (written >= 0) call.done(offset, data, static_cast<std::size_t>(written));
  return written;
}

int sync_file(OpenFile& file) {
  Call call(Op::sync, file.path, file.inode);
  if (call.fails()) return -1;
  call.done();
  return 0;
}

template <typename Change>
int change(Op op, const char* path, const char* other, const Change& change) {
  char absolute[PATH_MAX];
  char absolute_other[PATH_MAX] = "";
  const bool is_ours = ours(path, absolute);
  const bool is_other_ours = *other && ours(other, absolute_other);
  if (!is_ours && !is_other_ours) return change();
  struct stat info {};
  if (op != Op::mkdir && lstat(absolute, &info) != 0) return change();
  if (op == Op::mkdir && lstat(absolute, &info) == 0) return change();
  Call call(op, absolute, info.st_ino);
  if (call.fails()) return -1;
  const int result = change();
  if (result == 0) call.done(0, nullptr, 0, absolute_other);
  return result;
}

template <typename Cut>
int cut_file(int fd, std::uint64_t n_bytes, const Cut& cut) {
  OpenFile* file = ours(fd);
  if (!file) return cut();
  Call call(Op::truncate, file->path, file->inode);
  if (call.fails()) return -1;
  const int result = cut();
  if (result == 0) call.done(n_bytes);
  return result;
}

}  // namespace

#define OPEN(name)                                                                \
  int name(const char* path, int flags, ...) {                                    \
    va_list rest;                                                                 \
    va_start(rest, flags);                                                        \
    const mode_t mode = flags & O_CREAT ? va_arg(rest, mode_t) : 0;               \
    va_end(rest);                                                                 \
    return open_file(path, flags, [&] { return REAL(name)(path, flags, mode); }); \
  }
#define WRITE_AT(name, Offset)                                                        \
  ssize_t name(int fd, const void* data, size_t n_bytes, Offset offset) {             \
    OpenFile* file = ours(fd);                                                        \
    if (!file) return REAL(name)(fd, data, n_bytes, offset);                          \
    return write_file(                                                                \
        *file, data, n_bytes, static_cast<std::uint64_t>(offset),                     \
        [&](const void* from, size_t n) { return REAL(name)(fd, from, n, offset); }); \
  }
#define READ_AT(name, Offset)                                           \
  ssize_t name(int fd, void* data, size_t n_bytes, Offset offset) {     \
    return read_fails(fd) ? -1 : REAL(name)(fd, data, n_bytes, offset); \
  }

extern "C" {

OPEN(open)
OPEN(open64)
WRITE_AT(pwrite, off_t)
WRITE_AT(pwrite64, off64_t)
READ_AT(pread, off_t)
READ_AT(pread64, off64_t)

int openat(int folder, const char* path, int flags, ...) {
  va_list rest;
  va_start(rest, flags);
  const mode_t mode = flags & O_CREAT ? va_arg(rest, mode_t) : 0;
  va_end(rest);
  const auto open = [&] { return REAL(openat)(folder, path, flags, mode); };
  return folder == AT_FDCWD || path[0] == '/' ? open_file(path, flags, open) : open();
}
int creat(const char* path, mode_t mode) {
  return open(path, O_WRONLY | O_CREAT | O_TRUNC, mode);
}

ssize_t write(int fd, const void* data, size_t n_bytes) {
  OpenFile* file = ours(fd);
  if (!file) return REAL(write)(fd, data, n_bytes);
  const off_t at = fcntl(fd, F_GETFL) & O_APPEND ? lseek(fd, 0, SEEK_END) : lseek(fd, 0, SEEK_CUR);
  return write_file(*file, data, n_bytes, static_cast<std::uint64_t>(at),
                    [&](const void* from, size_t n) { return REAL(write)(fd, from, n); });
}
ssize_t read(int fd, void* data, size_t n_bytes) {
  return read_fails(fd) ? -1 : REAL(read)(fd, data, n_bytes);
}

int fsync(int fd) {
  OpenFile* file = ours(fd);
  return file ? sync_file(*file) : REAL(fsync)(fd);
}
int fdatasync(int fd) {
  OpenFile* file = ours(fd);
  return file ? sync_file(*file) : REAL(fdatasync)(fd);
}
int ftruncate(int fd, off_t n_bytes) {
  return cut_file(fd, static_cast<std::uint64_t>(n_bytes),
                  [&] { return REAL(ftruncate)(fd, n_bytes); });
}
int ftruncate64(int fd, off64_t n_bytes) {
  return cut_file(fd, static_cast<std::uint64_t>(n_bytes),
                  [&] { return REAL(ftruncate64)(fd, n_bytes); });
}
int close(int fd) {
  OpenFile* file = ours(fd);
  if (!file) return REAL(close)(fd);
  file->is_ours = false;
  if (!file->writes) return REAL(close)(fd);
  Call call(Op::close, file->path, file->inode);
  const bool fails = call.fails();  // the descriptor is gone all the same
  const int error = errno;
  const int result = REAL(close)(fd);
  if (fails) {
    errno = error;
    return -1;
  }
  call.done();
  return result;
}

int rename(const char* from, const char* to) {
  return change(Op::rename, from, to, [&] { return REAL(rename)(from, to); });
}
int unlink(const char* path) {
  return change(Op::unlink, path, "", [&] { return REAL(unlink)(path); });
}
int remove(const char* path) {
  struct stat info {};
  const Op op = lstat(path, &info) == 0 && S_ISDIR(info.st_mode) ? Op::rmdir : Op::unlink;
  return change(op, path, "", [&] { return REAL(remove)(path); });
}
int mkdir(const char* path, mode_t mode) {
  return change(Op::mkdir, path, "", [&] { return REAL(mkdir)(path, mode); });
}
int rmdir(const char* path) {
  return change(Op::rmdir, path, "", [&] { return REAL(rmdir)(path); });
}

}  // extern "C"
