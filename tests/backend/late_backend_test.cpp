// SPDX-License-Identifier: Apache-2.0
// The backend whose copies complete late shows what it is there to show.
#include "late_backend.h"

#include <gtest/gtest.h>

namespace starattn::testing {
namespace {

class LateBackendTest : public ::testing::Test {
 protected:
  LateBackendTest() { GTEST_FLAG_SET(death_test_style, "threadsafe"); }
  std::span<const std::byte> bytes(const Buffer& buffer) const {
    return {buffer.data(), buffer.n_bytes()};
  }
  static Buffer filled(Buffer buffer, int value) {
    std::memset(buffer.data(), value, buffer.n_bytes());
    return buffer;
  }

  LateBackend backend{make_cpu_backend(1)};
  Buffer device = filled(backend.allocate(100), 1);
  Buffer host = filled(backend.allocate_pinned(100), 2);
};

TEST_F(LateBackendTest, ACopyIsThereWhenOperationsAreOrderedBehindIt) {
  backend.copy_after_operations(CopyDirection::to_host, bytes(device), host.data());
  EXPECT_NE(host.data()[0], std::byte{1});
  EXPECT_NE(host.data()[0], std::byte{2}) << "the target's old bytes are no promise";
  backend.order_after_copies(CopyDirection::to_device);
  EXPECT_NE(host.data()[99], std::byte{1}) << "the other way is no matter of this one";
  backend.order_after_copies(CopyDirection::to_host);
  EXPECT_EQ(host.data()[99], std::byte{1});
}

TEST_F(LateBackendTest, CopiesAreNotDoneAtOnceButInTheEnd) {
  backend.copy_now(CopyDirection::to_device, bytes(host), device.data());
  backend.copy_now(CopyDirection::to_device, bytes(host), device.data());
  EXPECT_TRUE(backend.copies_done(CopyDirection::to_host));
  int n_polls = 1;
  while (!backend.copies_done(CopyDirection::to_device)) ++n_polls;
  EXPECT_GT(n_polls, 1);
  EXPECT_LT(n_polls, 20);
  EXPECT_EQ(backend.n_not_done(), n_polls - 1);
  EXPECT_EQ(device.data()[50], std::byte{2});
}

TEST_F(LateBackendTest, ASourceThatIsUsedAgainTooEarlyArrivesAsItIsThen) {
  backend.copy_now(CopyDirection::to_host, bytes(device), host.data());
  std::memset(device.data(), 9, device.n_bytes());
  backend.order_after_copies(CopyDirection::to_host);
  EXPECT_EQ(host.data()[0], std::byte{9});
}

TEST_F(LateBackendTest, AMarkIsReachedInTheEndAndWithItAllBefore) {
  const std::uint64_t first = backend.mark();
  const std::uint64_t second = backend.mark();
  int n_asked = 1;
  while (!backend.is_reached(second)) ++n_asked;
  EXPECT_GT(n_asked, 1);
  EXPECT_TRUE(backend.is_reached(first));
  EXPECT_FALSE(backend.is_reached(backend.mark()));
}

TEST_F(LateBackendTest, MemoryFreedTooEarlyEndsTheProcess) {
  EXPECT_DEATH(
      {
        backend.copy_now(CopyDirection::to_host, bytes(device), host.data());
        device = Buffer();
        device = backend.allocate(1);
        Buffer gone = std::move(host);
        gone = Buffer();
        std::exit(0);
      },
      "freed behind the copies");
}

TEST_F(LateBackendTest, RepeatedOperationsThatWaitEndTheProcess) {
  const std::unique_ptr<Repeated> repeated = backend.make_repeated();
  repeated->run([&] { backend.upload_later(bytes(host), device.data()); });
  EXPECT_EQ(backend.n_repeated(), 1);
  EXPECT_DEATH(repeated->run([&] { backend.synchronize(); }), "neither wait nor copy");
  EXPECT_DEATH(repeated->run([&] {
    backend.copy_after_operations(CopyDirection::to_host, bytes(device), host.data());
  }),
               "neither wait nor copy");
}

TEST_F(LateBackendTest, PinnedMemoryChangedTooEarlyEndsTheProcess) {
  EXPECT_DEATH(
      {
        backend.upload_later(bytes(host), device.data());
        host.data()[3] = std::byte{7};
        backend.synchronize();
      },
      "stays as it is");
  std::vector<std::byte> other(100);
  backend.upload_later(other, device.data());
  other[3] = std::byte{7};  // not pinned: free at once
  backend.synchronize();
}

}  // namespace
}  // namespace starattn::testing
