// SPDX-License-Identifier: Apache-2.0
// What ranks that share out weights exchange, through the host: every number where it belongs, also
// where one exchange needs several turns of the window and where a rank has no share.
#include "exchange/shard_exchange.h"

#include <gtest/gtest.h>

#include <numeric>

#include "mpi/communicator.h"

namespace starattn {
namespace {

class ShardExchangeTest : public ::testing::Test {
 protected:
  // Shares of n, of which the last rank has none where there are three or more.
  std::vector<Share> uneven(std::int64_t n) const {
    const int n_with = world_.size() > 2 ? world_.size() - 1 : world_.size();
    std::vector<Share> shares;
    for (int rank = 0; rank < world_.size(); ++rank) {
      const std::int64_t first = std::min(n, n * rank * rank / (n_with * n_with));
      const std::int64_t end = std::min(n, n * (rank + 1) * (rank + 1) / (n_with * n_with));
      shares.push_back({first, end - first});
    }
    return shares;
  }
  Share mine(const std::vector<Share>& shares) const {
    return shares[static_cast<std::size_t>(world_.rank())];
  }
  std::unique_ptr<ShardExchange> exchange(std::int64_t max_rows) {
    return make_shard_exchange(world_, world_, *backend_, shape_, uneven(shape_.n_heads), max_rows,
                               nullptr);
  }

  Communicator world_ = Communicator::world();
  std::unique_ptr<Backend> backend_ = make_cpu_backend(1);
  AttentionShape shape_{6, 2, 16};
};

TEST_F(ShardExchangeTest, GathersMoreThanTheWindowHolds) {
  constexpr std::int64_t kRows = 3000;
  constexpr std::int64_t kWidth = 4096;  // 48 MiB of fp32
  const std::vector<Share> columns = uneven(kWidth);
  const Share own = mine(columns);
  std::vector<float> part;
  for (std::int64_t row = 0; row < kRows; ++row)
    for (std::int64_t i = own.first; i < own.end(); ++i)
      part.push_back(static_cast<float>((row * 31 + i * 7) % 65'521));
  std::vector<float> all(static_cast<std::size_t>(kRows * kWidth), -1.0F);
  const auto shards = exchange(kRows);
  for (int turn = 0; turn < 2; ++turn) {
    std::fill(all.begin(), all.end(), -1.0F);
    shards->gather(reinterpret_cast<const std::byte*>(part.data()), kRows, columns, sizeof(float),
                   reinterpret_cast<std::byte*>(all.data()));
    std::int64_t n_wrong = 0;
    for (std::int64_t row = 0; row < kRows; ++row)
      for (std::int64_t i = 0; i < kWidth; ++i)
        n_wrong += all[static_cast<std::size_t>(row * kWidth + i)] !=
                   static_cast<float>((row * 31 + i * 7) % 65'521);
    EXPECT_EQ(n_wrong, 0);
  }
}

// A number that says which rank's part it is of, which row, head and place.
float number(Rank rank, std::int64_t part, std::int64_t row, std::int64_t head, std::int64_t i) {
  return static_cast<float>((((rank * 200 + part) * 128 + row) * 6 + head) * 17 + i);
}

TEST_F(ShardExchangeTest, CollectsItsHeadsOfManyPartials) {
  constexpr std::int64_t kRows = 128;
  const std::int64_t d = shape_.head_dim;
  const auto shards = exchange(kRows);
  std::vector<std::int64_t> n_parts;  // from three ranks on more than the window holds
  for (int rank = 0; rank < world_.size(); ++rank)
    n_parts.push_back(rank == 0 ? 200 : (rank == 1 ? 0 : 140));
  shards->start_document(n_parts);
  shards->meet(0);
  shards->start_step(std::vector<std::int64_t>(n_parts.size(), kRows));
  std::vector<PartialBuffer> buffers;
  std::vector<Partial> parts;
  for (std::int64_t part = 0; part < n_parts[static_cast<std::size_t>(world_.rank())]; ++part) {
    buffers.emplace_back(*backend_, kRows, shape_);
    const Partial p = buffers.back().partial();
    for (std::int64_t row = 0; row < kRows; ++row) {
      for (std::int64_t head = 0; head < shape_.n_heads; ++head) {
        const std::int64_t at = row * shape_.n_heads + head;
        for (std::int64_t i = 0; i < d; ++i)
          p.o[at * d + i] = number(world_.rank(), part, row, head, i);
        p.m[at] = number(world_.rank(), part, row, head, d);
        p.l[at] = -p.m[at];
      }
    }
    parts.push_back(p);
  }
  const std::vector<Partial> all = shards->collect(parts);
  ASSERT_EQ(std::ssize(all), std::accumulate(n_parts.begin(), n_parts.end(), std::int64_t{0}));
  const Share heads = mine(uneven(shape_.n_heads));
  EXPECT_EQ(shards->collected_shape().n_heads, heads.count);
  std::int64_t n_wrong = 0;
  std::size_t at_part = 0;
  for (Rank rank = 0; rank < world_.size(); ++rank) {
    for (std::int64_t part = 0; part < n_parts[static_cast<std::size_t>(rank)]; ++part) {
      const Partial& p = all[at_part++];
      for (std::int64_t row = 0; row < kRows; ++row) {
        for (std::int64_t h = 0; h < heads.count; ++h) {
          const std::int64_t at = row * heads.count + h;
          const std::int64_t head = heads.first + h;
          for (std::int64_t i = 0; i < d; ++i)
            n_wrong += p.o[at * d + i] != number(rank, part, row, head, i);
          n_wrong += p.m[at] != number(rank, part, row, head, d);
          n_wrong += p.l[at] != -number(rank, part, row, head, d);
        }
      }
    }
  }
  EXPECT_EQ(n_wrong, 0);
}

}  // namespace
}  // namespace starattn
