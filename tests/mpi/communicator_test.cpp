// SPDX-License-Identifier: Apache-2.0
#include "mpi/communicator.h"

#include <gtest/gtest.h>

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

TEST(Communicator, AnyIsTrueForAllWhenItIsForOne) {
  const Communicator world = Communicator::world();
  EXPECT_FALSE(world.any(false));
  EXPECT_TRUE(world.any(world.rank() == world.size() - 1));
}

}  // namespace
}  // namespace starattn
