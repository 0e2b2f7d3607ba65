// SPDX-License-Identifier: Apache-2.0
#include "base/mapped_file.h"

#include <signal.h>
#include <sys/mman.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstring>
#include <utility>

#include "base/error.h"

namespace starattn {
namespace {

// Where files are mapped. The signal handler reads this, so it is a plain table without locks.
struct Region {
  std::atomic<bool> is_taken{false};
  std::atomic<std::uintptr_t> begin{0};
  std::atomic<std::uintptr_t> end{0};         // 0: not in use
  std::atomic<std::uintptr_t> unreadable{0};  // the first address that could not be read
};
constexpr int kMaxRegions = 4096;
Region regions[kMaxRegions];
std::uintptr_t page_bytes = 4096;
struct sigaction others {};  // who had the signal before

// Zeros take the place of what cannot be read, from there to the end of the mapping.
bool cover_with_zeros(Region& region, std::uintptr_t address) {
  const std::uintptr_t page = address / page_bytes * page_bytes;
  if (::mmap(reinterpret_cast<void*>(page), region.end - page, PROT_READ,
             MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) == MAP_FAILED)
    return false;
  std::uintptr_t none = 0;
  region.unreadable.compare_exchange_strong(none, address);
  return true;
}

void on_bus_error(int, siginfo_t* info, void*) {
  const int error = errno;
  const auto address = reinterpret_cast<std::uintptr_t>(info->si_addr);
  bool is_ours = false;
  for (Region& region : regions) {
    if (address < region.begin || address >= region.end) continue;
    is_ours = cover_with_zeros(region, address);
    break;
  }
  if (!is_ours) ::sigaction(SIGBUS, &others, nullptr);  // it comes again, to them
  errno = error;
}

void catch_bus_errors() {
  static const bool once = [] {
    page_bytes = static_cast<std::uintptr_t>(::sysconf(_SC_PAGESIZE));
    struct sigaction action {};
    action.sa_sigaction = on_bus_error;
    action.sa_flags = SA_SIGINFO | SA_RESTART;
    sigemptyset(&action.sa_mask);
    return ::sigaction(SIGBUS, &action, &others) == 0;
  }();
  STARATTN_CHECK(once);
}

// -1 where there are too many: their read errors stay signals.
int take_region(const std::byte* data, std::size_t n_bytes) {
  for (int i = 0; i < kMaxRegions; ++i) {
    Region& region = regions[i];
    if (region.is_taken.exchange(true)) continue;
    region.unreadable = 0;
    region.begin = reinterpret_cast<std::uintptr_t>(data);
    region.end = reinterpret_cast<std::uintptr_t>(data) + n_bytes;
    return i;
  }
  return -1;
}

void give_back(int i) {
  if (i < 0) return;
  regions[i].end = 0;
  regions[i].is_taken = false;
}

bool is_same(const timespec& a, const timespec& b) {
  return a.tv_sec == b.tv_sec && a.tv_nsec == b.tv_nsec;
}

}  // namespace

MappedFile::MappedFile(const std::string& path) : path_(path), file_(open_to_read(path)) {
  mapped_ = state();
  size_ = static_cast<std::size_t>(mapped_.st_size);
  if (size_ == 0) return;
  catch_bus_errors();
  void* address = ::mmap(nullptr, size_, PROT_READ, MAP_SHARED, file_.get(), 0);
  if (address == MAP_FAILED) fail(Exit::io, "cannot map {}: {}", path, std::strerror(errno));
  data_ = static_cast<const std::byte*>(address);
  region_ = take_region(data_, size_);
}

MappedFile::~MappedFile() {
  give_back(region_);
  if (data_) ::munmap(const_cast<std::byte*>(data_), size_);
}

MappedFile::MappedFile(MappedFile&& other) noexcept
    : path_(std::move(other.path_)),
      file_(std::move(other.file_)),
      mapped_(other.mapped_),
      data_(std::exchange(other.data_, nullptr)),
      size_(std::exchange(other.size_, 0)),
      region_(std::exchange(other.region_, -1)) {}

MappedFile& MappedFile::operator=(MappedFile&& other) noexcept {
  std::swap(path_, other.path_);
  std::swap(file_, other.file_);
  std::swap(mapped_, other.mapped_);
  std::swap(data_, other.data_);
  std::swap(size_, other.size_);
  std::swap(region_, other.region_);
  return *this;
}

struct stat MappedFile::state() const {
  struct stat now {};
  if (::fstat(file_.get(), &now) != 0)
    fail(Exit::io, "cannot stat {}: {}", path_, std::strerror(errno));
  return now;
}

MappedFile::Identity MappedFile::identity() const {
  return {mapped_.st_ino, size_, mapped_.st_mtim.tv_sec, mapped_.st_mtim.tv_nsec};
}

void MappedFile::check_unchanged() const {
  const struct stat now = state();
  if (now.st_size != mapped_.st_size) {
    fail(Exit::io, "{} has changed while it was in use: it had {} bytes, now it has {}", path_,
         mapped_.st_size, now.st_size);
  }
  if (!is_same(now.st_mtim, mapped_.st_mtim))
    fail(Exit::io, "{} has changed while it was in use: it was written", path_);
  const std::uintptr_t unreadable = region_ < 0 ? 0 : regions[region_].unreadable.load();
  if (unreadable != 0) {
    fail(Exit::io, "reading {} failed at byte {}: the disk or the network behind it", path_,
         unreadable - reinterpret_cast<std::uintptr_t>(data_));
  }
}

bool MappedFile::has_new_attributes() const {
  return !is_same(state().st_ctim, mapped_.st_ctim);
}

void MappedFile::accept_attributes() {
  mapped_.st_ctim = state().st_ctim;
}

}  // namespace starattn
