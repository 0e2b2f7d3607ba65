// SPDX-License-Identifier: Apache-2.0
#include "run/weight_values.h"

#include "base/error.h"
#include "trace/range.h"

namespace starattn {
namespace {

// Rows first .. end of every tensor are this rank's share of it.
struct NodeShare {
  std::int64_t index = 0, n = 1;
  std::int64_t first(std::int64_t n_rows) const { return n_rows * index / n; }
  std::int64_t end(std::int64_t n_rows) const { return n_rows * (index + 1) / n; }
};

constexpr std::size_t kMostBadTokens = 1 << 16;

// Every rank's places, in rank order. Collective.
std::vector<std::int64_t> gather(const std::vector<std::int64_t>& mine, const Communicator& node) {
  std::vector<std::size_t> counts;
  std::size_t n = 0;
  for (const std::size_t count : node.allgather(mine.size())) {
    counts.push_back(count * sizeof(std::int64_t));
    n += count;
  }
  std::vector<std::int64_t> all(n);
  node.allgatherv(std::as_bytes(std::span(mine)), counts, std::as_writable_bytes(std::span(all)));
  return all;
}

}  // namespace

std::string describe_bad_value(const ModelWeights& weights, const WeightView& w, std::int64_t at) {
  const WeightName& name = weights.name_of(w);
  const std::string place = w.n_rows == 1 ? fmt::format("[{}]", at)
                                          : fmt::format("[{}, {}]", at / w.n_cols, at % w.n_cols);
  return fmt::format("{}tensor '{}' is not finite (NaN or infinite) at {}",
                     name.file ? name.file->path() + ": " : "", name.name, place);
}

BadTokens find_bad_weights(const ModelWeights& weights, Backend& backend, const Communicator& world,
                           bool is_shared) {
  const trace::Range range("check weights");
  const Communicator node = world.split_by_node();
  const bool is_together = backend.is_host_memory() || is_shared;
  const NodeShare share = is_together ? NodeShare{node.rank(), node.size()} : NodeShare{};
  const bool is_tied = weights.lm_head.data == weights.embedding.data;
  std::vector<std::int64_t> mine;  // places in the embedding, one a row
  collectively(world, [&] {
    for (const WeightView& w : weights.all()) {
      const bool is_embedding = w.data == weights.embedding.data;
      const std::int64_t end = share.end(w.n_rows);
      for (std::int64_t row = share.first(w.n_rows); row < end;) {
        const std::int64_t at = backend.first_not_finite(w, row, end - row);
        if (at < 0) break;
        if (!is_embedding || is_tied || mine.size() == kMostBadTokens) {
          fail(Exit::bad_data,
               "{}: with it the model answers nothing. Take its files from their source again",
               describe_bad_value(weights, w, at));
        }
        mine.push_back(at);
        row = at / w.n_cols + 1;
      }
    }
  });
  BadTokens bad;
  for (const std::int64_t at : is_together ? gather(mine, node) : mine)
    bad.emplace(static_cast<Token>(at / weights.embedding.n_cols), at);
  return bad;
}

}  // namespace starattn
