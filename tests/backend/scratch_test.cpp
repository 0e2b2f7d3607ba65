// SPDX-License-Identifier: Apache-2.0
#include "backend/scratch.h"

#include <gtest/gtest.h>

#include <cstdlib>
#include <optional>

namespace starattn {
namespace {

// Counts what was allocated and what was not freed yet.
struct CountedMemory {
  int n_allocated = 0, n_alive = 0;

  Scratch::Allocate allocate() {
    return [this](std::size_t n_bytes) {
      ++n_allocated;
      ++n_alive;
      const auto free = [](void* memory, void* counts) {
        --static_cast<CountedMemory*>(counts)->n_alive;
        std::free(memory);
      };
      return Buffer(std::malloc(n_bytes), n_bytes, free, this);
    };
  }
};

TEST(Scratch, HandsOutAgainWhatWasGivenBack) {
  CountedMemory memory;
  Scratch scratch(memory.allocate());
  const std::byte* first = scratch.take(100'000).data();
  for (int i = 0; i < 5; ++i) EXPECT_EQ(scratch.take(100'000).data(), first);
  EXPECT_EQ(scratch.take(99'000).data(), first) << "a little less";
  EXPECT_EQ(memory.n_allocated, 1);
  EXPECT_EQ(scratch.take(99'000).n_bytes(), 99'000U);
}

TEST(Scratch, NeverHandsOutTheSameMemoryTwice) {
  CountedMemory memory;
  Scratch scratch(memory.allocate());
  const Buffer a = scratch.take(5000), b = scratch.take(5000);
  EXPECT_NE(a.data(), b.data());
  EXPECT_EQ(memory.n_allocated, 2);
}

TEST(Scratch, TakesTheSmallestThatFitsAndGrowsTheLargest) {
  CountedMemory memory;
  Scratch scratch(memory.allocate());
  std::optional<Buffer> large = scratch.take(1 << 20), small = scratch.take(300'000);
  const std::byte *of_large = large->data(), *of_small = small->data();
  large.reset();
  small.reset();
  EXPECT_EQ(scratch.take(280'000).data(), of_small);
  EXPECT_EQ(scratch.take(400'000).data(), of_large);
  EXPECT_EQ(memory.n_allocated, 2);
  { const Buffer grown = scratch.take(2 << 20); }
  EXPECT_EQ(memory.n_allocated, 3);
  EXPECT_EQ(memory.n_alive, 2) << "in the place of the large one";
  EXPECT_EQ(scratch.n_kept_bytes(), (std::size_t{2} << 20) + 300'000);
}

TEST(Scratch, KeepsNoMoreThanItMay) {
  CountedMemory memory;
  Scratch scratch(memory.allocate());
  { const Buffer too_large = scratch.take(Scratch::kMostKept + 1); }
  EXPECT_EQ(memory.n_alive, 0);
  { const Buffer small = scratch.take(1); }
  EXPECT_EQ(memory.n_alive, 1);
  EXPECT_LE(scratch.n_kept_bytes(), Scratch::kMostKept);
  scratch.clear();
  EXPECT_EQ(memory.n_alive, 0);
}

}  // namespace
}  // namespace starattn
