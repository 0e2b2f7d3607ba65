// SPDX-License-Identifier: Apache-2.0
#include "mpi/communicator.h"

#include <gtest/gtest.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cstring>

namespace starattn {
namespace {

constexpr std::size_t kPiece = std::size_t{256} << 20;  // what one MPI message carries at most

std::string pattern(std::size_t n_bytes) {
  std::string text(n_bytes, '\0');
  for (std::size_t i = 0; i < n_bytes; ++i) text[i] = static_cast<char>(i * 2654435761U >> 24);
  return text;
}

// Every length, there by receive() and back by try_receive(), with nothing left over in between.
TEST(Communicator, MessagesOfAnyLengthArriveWhole) {
  const Communicator world = Communicator::world();
  constexpr int kTag = 7;
  for (const std::size_t n_bytes : {std::size_t{0}, std::size_t{1}, kPiece, kPiece + 1}) {
    const std::string text = pattern(n_bytes);
    if (world.rank() == 1) {
      EXPECT_TRUE(world.receive(0, kTag).bytes == text) << n_bytes << " bytes";
      world.send_message(text, 0, kTag);
    } else if (world.rank() == 0) {
      world.send_message(text, 1, kTag);
      Communicator::Message message;
      while (!world.try_receive(message, kTag)) {
      }
      EXPECT_EQ(message.from, 1);
      EXPECT_TRUE(message.bytes == text) << n_bytes << " bytes";
    }
  }
}

// Addresses of n_bytes, of which the first n_repeated lead to the same few pages over and over:
// more than MPI can count, in a test that takes little memory.
class WideMemory {
 public:
  WideMemory(std::size_t n_repeated, std::size_t n_bytes) : n_bytes_(n_bytes) {
    constexpr std::size_t kPages = std::size_t{64} << 20;
    void* all =
        ::mmap(nullptr, n_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    const int file = ::memfd_create("repeated", 0);
    EXPECT_TRUE(all != MAP_FAILED && file >= 0 && ::ftruncate(file, kPages) == 0);
    data_ = static_cast<std::byte*>(all);
    for (std::size_t at = 0; at < n_repeated; at += kPages) {
      EXPECT_NE(::mmap(data_ + at, kPages, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, file, 0),
                MAP_FAILED);
    }
    ::close(file);
  }
  ~WideMemory() { ::munmap(data_, n_bytes_); }
  std::span<std::byte> bytes() const { return {data_, n_bytes_}; }

 private:
  std::byte* data_ = nullptr;
  std::size_t n_bytes_;
};

TEST(Communicator, MoreThanMpiCountsIsGatheredInPieces) {
  const Communicator world = Communicator::world();
  if (world.size() != 2) GTEST_SKIP();
  constexpr std::size_t kMost = std::size_t{1} << 31;
  const std::vector<std::size_t> counts = {kMost, kPiece + 5};
  const std::string behind = pattern(counts[1]);
  const WideMemory first(kMost, kMost);
  if (world.rank() == 0) first.bytes()[kMost - 1] = std::byte{77};
  const std::span<const std::byte> mine =
      world.rank() == 0 ? first.bytes() : std::as_bytes(std::span(behind));
  const auto expect_all = [&](std::span<const std::byte> received) {
    EXPECT_EQ(received[kMost - 1], std::byte{77});
    EXPECT_EQ(std::memcmp(received.data() + kMost, behind.data(), behind.size()), 0);
  };
  {
    const WideMemory all(kMost, kMost + behind.size());
    world.gatherv(mine, counts, world.rank() == 0 ? all.bytes() : std::span<std::byte>(), 0);
    if (world.rank() == 0) expect_all(all.bytes());
  }
  const WideMemory all(kMost, kMost + behind.size());
  world.allgatherv(mine, counts, all.bytes());
  expect_all(all.bytes());
}

TEST(Communicator, AnyIsTrueForAllWhenItIsForOne) {
  const Communicator world = Communicator::world();
  EXPECT_FALSE(world.any(false));
  EXPECT_TRUE(world.any(world.rank() == world.size() - 1));
}

}  // namespace
}  // namespace starattn
