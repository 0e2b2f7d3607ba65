// SPDX-License-Identifier: Apache-2.0
// Rows of Q reach every rank and partials reach the ranks whose rows they are, bit for bit, through
// a node's window and as messages.
#include "exchange/query_exchange.h"

#include <gtest/gtest.h>

#include <cmath>
#include <numeric>

#include "../star/tiny_model.h"

namespace starattn {
namespace {

const AttentionShape kShape{5, 1, 128};  // a row's partial ends off the kernels' vectors
constexpr std::int64_t kWidth = 640;
constexpr std::int64_t kMaxRows = 40;

// What row `row` of the step's has, as bf16 can say it.
float q_value(int step, std::int64_t row, std::int64_t i) {
  return static_cast<float>((step * 7 + row * 3 + i) % 251);
}
// What number i of o, m or l of a row is, in part `part` of rank `from`.
float part_value(int step, Rank from, std::int64_t part, std::int64_t row, int which,
                 std::int64_t i) {
  return static_cast<float>(step) + 0.25F * static_cast<float>(from) +
         1e-3F * static_cast<float>(part * 31 + row * 7 + i) + 1000.0F * static_cast<float>(which);
}

class QueryExchangeTest : public ::testing::TestWithParam<bool> {
 protected:
  std::vector<float> get(const float* data, std::int64_t n) {
    std::vector<float> values(static_cast<std::size_t>(n));
    backend->download(reinterpret_cast<const std::byte*>(data),
                      std::as_writable_bytes(std::span(values)));
    return values;
  }
  void put(float* data, const std::vector<float>& values) {
    backend->upload(std::as_bytes(std::span(values)), reinterpret_cast<std::byte*>(data));
  }
  // o, m or l of rows [first_row, first_row + n_rows).
  std::vector<float> numbers(int step, Rank from, std::int64_t part, std::int64_t first_row,
                             std::int64_t n_rows, int which) {
    const std::int64_t width = kShape.n_heads * (which == 0 ? kShape.head_dim : 1);
    std::vector<float> values;
    for (std::int64_t row = first_row; row < first_row + n_rows; ++row)
      for (std::int64_t i = 0; i < width; ++i)
        values.push_back(part_value(step, from, part, row, which, i));
    return values;
  }

  // One layer of a step to which each rank brings n_rows[rank].
  void layer(QueryExchange& exchange, int step, const std::vector<std::int64_t>& n_rows,
             const std::vector<std::int64_t>& n_parts) {
    const auto me = static_cast<std::size_t>(world.rank());
    const std::int64_t first_row =
        std::accumulate(n_rows.begin(), n_rows.begin() + world.rank(), std::int64_t{0});
    const std::int64_t n_all = std::accumulate(n_rows.begin(), n_rows.end(), std::int64_t{0});
    const RowBuffer mine(*backend, kMaxRows, kWidth);
    std::vector<std::uint16_t> narrow;
    std::vector<float> wide;
    for (std::int64_t row = first_row; row < first_row + n_rows[me]; ++row)
      for (std::int64_t i = 0; i < kWidth; ++i) {
        wide.push_back(q_value(step, row, i));
        narrow.push_back(f32_to_bf16(wide.back()));
      }
    const bool is_wide = backend->activation_dtype() == Dtype::f32;
    backend->upload(is_wide ? std::as_bytes(std::span(wide)) : std::as_bytes(std::span(narrow)),
                    mine.rows(n_rows[me]).data);

    const Rows all = exchange.share(mine.rows(n_rows[me]));
    if (n_parts[me] > 0) {
      ASSERT_EQ(all.n_rows, n_all);
      std::vector<float> seen(static_cast<std::size_t>(n_all * kWidth));
      backend->download_rows(all, seen);
      for (std::int64_t row = 0; row < n_all; ++row)
        for (std::int64_t i = 0; i < kWidth; ++i)
          ASSERT_EQ(seen[static_cast<std::size_t>(row * kWidth + i)], q_value(step, row, i));
    }

    std::vector<PartialBuffer> buffers;
    std::vector<Partial> parts;
    for (std::int64_t part = 0; part < n_parts[me]; ++part) {
      buffers.emplace_back(*backend, n_all, kShape);
      parts.push_back(buffers.back().partial());
      put(parts.back().o, numbers(step, world.rank(), part, 0, n_all, 0));
      put(parts.back().m, numbers(step, world.rank(), part, 0, n_all, 1));
      put(parts.back().l, numbers(step, world.rank(), part, 0, n_all, 2));
    }
    const std::vector<Partial> received = exchange.collect(parts);
    if (n_rows[me] == 0) {
      EXPECT_TRUE(received.empty());
      return;
    }
    std::size_t at = 0;
    for (Rank from = 0; from < world.size(); ++from) {
      for (std::int64_t part = 0; part < n_parts[static_cast<std::size_t>(from)]; ++part, ++at) {
        ASSERT_LT(at, received.size());
        const Partial& got = received[at];
        ASSERT_EQ(got.n_rows, n_rows[me]);
        const std::int64_t n_values = n_rows[me] * kShape.n_heads;
        EXPECT_EQ(get(got.o, n_values * kShape.head_dim),
                  numbers(step, from, part, first_row, n_rows[me], 0));
        EXPECT_EQ(get(got.m, n_values), numbers(step, from, part, first_row, n_rows[me], 1));
        EXPECT_EQ(get(got.l, n_values), numbers(step, from, part, first_row, n_rows[me], 2));
      }
    }
    EXPECT_EQ(at, received.size());
    std::vector<Merge> merges;
    for (int i = 1; i < static_cast<int>(received.size()); ++i) merges.push_back({0, i});
    backend->merge_all(received, merges, kShape);
    EXPECT_TRUE(std::isfinite(get(received[0].l, 1).front()));
  }

  Communicator world = Communicator::world();
  std::unique_ptr<Backend> backend = testing::test_backend(1);
};

TEST_P(QueryExchangeTest, BringsEveryBitToItsRank) {
  const Communicator node = world.split(GetParam() ? 0 : world.rank());
  const auto n = static_cast<std::size_t>(world.size());
  const std::vector<std::int64_t> one_each(n, 1);
  std::vector<std::int64_t> n_parts(n, 1);
  n_parts.front() = 2;
  if (n > 2) n_parts[1] = 0;  // a rank without blocks
  QueryExchange exchange(world, node, *backend, kShape, kMaxRows);
  std::vector<std::int64_t> first_only(n, 0), last_only(n, 0), spread(n);
  first_only.front() = 3;
  last_only.back() = kMaxRows;
  for (std::size_t i = 0; i < n; ++i) spread[i] = static_cast<std::int64_t>(i) + 1;
  int step = 0;
  for (const auto& document : {n_parts, one_each}) {
    exchange.start_document(document);
    for (const auto& n_rows : {first_only, last_only, spread, first_only}) {
      const std::vector<int> said = exchange.meet(world.rank());
      EXPECT_EQ(said.back(), world.size() - 1);
      exchange.start_step(n_rows);
      EXPECT_EQ(exchange.n_rows(), std::accumulate(n_rows.begin(), n_rows.end(), std::int64_t{0}));
      for (int i = 0; i < 3; ++i) layer(exchange, ++step, n_rows, document);
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Ways, QueryExchangeTest, ::testing::Values(true, false),
                         [](const auto& param) { return param.param ? "window" : "messages"; });

}  // namespace
}  // namespace starattn
