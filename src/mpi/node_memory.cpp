// SPDX-License-Identifier: Apache-2.0
#include "mpi/node_memory.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/mman.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <random>
#include <string>
#include <thread>
#include <vector>

namespace starattn {
namespace {

std::size_t half_of_free() {
  struct statvfs disk {};
  return ::statvfs("/dev/shm", &disk) == 0 ? disk.f_bavail * disk.f_frsize / 2 : 0;
}

// The name of a new file of that size in /dev/shm, every page of it taken; empty if there is no
// room.
std::string make_file(std::size_t n_bytes) {
  std::random_device random;  // another container's processes may have these process ids, too
  const std::string name = fmt::format("/starattn-{}-{:08x}{:08x}", ::getpid(), random(), random());
  const int file = ::shm_open(name.c_str(), O_RDWR | O_CREAT | O_EXCL, S_IRUSR | S_IWUSR);
  if (file < 0) return "";
  const bool is_made =
      half_of_free() >= n_bytes && ::posix_fallocate(file, 0, static_cast<off_t>(n_bytes)) == 0;
  ::close(file);
  if (is_made) return name;
  ::shm_unlink(name.c_str());
  return "";
}

std::span<std::byte> map_file(const std::string& name, std::size_t n_bytes) {
  const int file = ::shm_open(name.c_str(), O_RDWR, 0);
  if (file < 0) return {};
  void* memory = ::mmap(nullptr, n_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
  ::close(file);
  if (memory == MAP_FAILED) return {};
  return {static_cast<std::byte*>(memory), n_bytes};
}

}  // namespace

std::size_t NodeMemory::room(const Communicator& node) {
  return node.bcast_value(node.is_root() ? half_of_free() : 0, 0);
}

std::optional<NodeMemory> NodeMemory::create(const Communicator& node, std::size_t n_bytes) {
  const std::string name = node.bcast_text(node.is_root() ? make_file(n_bytes) : "", 0);
  if (name.empty()) return {};
  NodeMemory memory(map_file(name, n_bytes));
  const std::vector<char> mapped = node.allgather(static_cast<char>(!memory.bytes_.empty()));
  if (node.is_root()) ::shm_unlink(name.c_str());  // it lives as long as it is mapped
  if (std::ranges::count(mapped, 1) != node.size()) return {};
  return memory;
}

NodeMemory::~NodeMemory() {
  if (!bytes_.empty()) ::munmap(bytes_.data(), bytes_.size());
}

std::uint64_t SharedCounters::get(std::size_t i) const {
  return std::atomic_ref(counters_[i].value).load(std::memory_order_acquire);
}

void SharedCounters::set(std::size_t i, std::uint64_t value) {
  std::atomic_ref(counters_[i].value).store(value, std::memory_order_release);
}

void SharedCounters::await(std::size_t i, std::uint64_t value) const {
  constexpr int kLooksBeforeYielding = 2000;
  constexpr int kLooksBeforeSleeping = 20000;
  for (int look = 0; get(i) < value; ++look) {
    if (look > kLooksBeforeSleeping) {
      std::this_thread::sleep_for(std::chrono::microseconds(20));
    } else if (look > kLooksBeforeYielding) {
      std::this_thread::yield();
    }
  }
}

}  // namespace starattn
