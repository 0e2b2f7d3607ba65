// SPDX-License-Identifier: Apache-2.0
#include "calibrate/thin_operations.h"

#include <algorithm>
#include <vector>

#include "calibrate/line_through.h"
#include "star/context_attention.h"
#include "star/device_tokens.h"

namespace starattn {
namespace {

constexpr std::int64_t kThinInputs[] = {1024, 4096, kWidest};
constexpr std::int64_t kFewOutputs = 1024, kManyOutputs = kWidest;
constexpr std::int64_t kSmallVocabulary = 4096;
constexpr std::int64_t kLargeVocabulary = 131072;

}  // namespace

void ThinOperations::measure(Machine& m) const {
  const RowBuffer x = inputs_.rows(Answerer::kMaxRows, kWidest);
  const RowBuffer y(backend(), Answerer::kMaxRows, kManyOutputs);
  const RowBuffer kv = inputs_.rows(n_many_keys(chunk()), kWidth / 2);
  for (const std::int64_t n : kThinRows) {
    for (const std::int64_t n_in : kThinInputs) {
      const auto seconds = [&](std::int64_t n_out) {
        return timer_(
            [&](std::int64_t i) {
              backend().linear(
                  {x.rows(n).data, n, n_in},
                  {inputs_.weight(n_out, n_in, i), WeightView{}, {y.rows(n).data, n, n_out}},
                  Product::batch_invariant);
            },
            kFewBundles);
      };
      const auto bytes = [&](std::int64_t n_out) { return 2 * static_cast<double>(n_out * n_in); };
      m.thin_products.push_back({n, n_in,
                                 line_through(bytes(kFewOutputs), seconds(kFewOutputs),
                                              bytes(kManyOutputs), seconds(kManyOutputs))});
    }
    for (const std::int64_t head_dim : kHeadDims)
      m.thin_attention.push_back({n, head_dim, attention(n, head_dim, x, kv)});
    m.thin_merges.push_back({n, 0, merges(n, x, kv)});
    m.next_tokens.push_back({n, 0, draws(n)});
  }
}

ByteTime ThinOperations::attention(std::int64_t n, std::int64_t head_dim, const RowBuffer& q,
                                   const RowBuffer& kv) const {
  const AttentionShape shape = shape_of_width(head_dim);
  const PartialBuffer partial(backend(), n, shape);
  const auto seconds = [&](std::int64_t n_keys) {
    return timer_(
        [&](std::int64_t i) {
          const std::int64_t n_places = 8 * chunk() / n_keys;
          const std::byte* keys = kv.rows(i % n_places * n_keys, n_keys).data;
          const KvSegment block = inputs_.segment(keys, n_keys, shape);
          const Partial part = partial.partial();
          backend().attend_blocks({q.rows(n).data, n, kWidth}, {&block, 1}, shape, {}, {&part, 1});
        },
        kFewBundles);
  };
  const auto few = static_cast<double>(inputs_.kv_bytes(chunk(), shape));
  return line_through(few, seconds(chunk()), 8 * few, seconds(8 * chunk()));
}

ByteTime ThinOperations::merges(std::int64_t n, const RowBuffer& q, const RowBuffer& kv) const {
  constexpr int kBlocks = ContextAttention::kBlocksAtOnce;
  const auto seconds = [&](const AttentionShape& shape, int n_blocks) {
    const std::int64_t n_keys = 8 * chunk() / n_blocks;
    std::vector<KvSegment> blocks;
    std::vector<PartialBuffer> memory;
    std::vector<Partial> parts;
    std::vector<Merge> merges;
    for (int i = 0; i < n_blocks; ++i) {
      blocks.push_back(
          inputs_.segment(kv.rows(0, 1).data + inputs_.kv_bytes(i * n_keys, shape), n_keys, shape));
      memory.emplace_back(backend(), n, shape);
      parts.push_back(memory.back().partial());
    }
    for (int step = 1; step < n_blocks; step *= 2)
      for (int i = 0; i + step < n_blocks; i += 2 * step) merges.push_back({i, i + step});
    return timer_(
        [&](std::int64_t) {
          backend().attend_blocks({q.rows(n).data, n, shape.n_heads * shape.head_dim}, blocks,
                                  shape, merges, parts);
        },
        kFewBundles);
  };
  const auto of_one = [&](const AttentionShape& shape) {
    return std::max(1e-9, (seconds(shape, kBlocks) - seconds(shape, 1)) / (kBlocks - 1));
  };
  const AttentionShape small{8, 2, 128}, large = shape_of_width(128);
  return line_through(static_cast<double>(PartialBuffer::n_bytes(n, small)), of_one(small),
                      static_cast<double>(PartialBuffer::n_bytes(n, large)), of_one(large));
}

ByteTime ThinOperations::draws(std::int64_t n) const {
  const std::vector<Draw> no_draws(static_cast<std::size_t>(n));
  DeviceTokens tokens(backend(), n);
  const Buffer logits = inputs_.floats(n * kLargeVocabulary);
  const auto seconds = [&](std::int64_t vocabulary) {
    return timer_(
        [&](std::int64_t) {
          backend().draw_tokens(reinterpret_cast<float*>(logits.data()), vocabulary, no_draws,
                                tokens.next(no_draws.size()));
          tokens.fetch();
          tokens.collect();
        },
        kFewBundles);
  };
  const auto bytes = [&](std::int64_t vocabulary) {
    return static_cast<double>(n * vocabulary) * sizeof(float);
  };
  return line_through(bytes(kSmallVocabulary), seconds(kSmallVocabulary), bytes(kLargeVocabulary),
                      seconds(kLargeVocabulary));
}

}  // namespace starattn
