// SPDX-License-Identifier: Apache-2.0
#include "calibrate/chunk_operations.h"

#include <algorithm>
#include <iterator>

namespace starattn {
namespace {

constexpr std::int64_t kWidths[] = {256, 1024, 4096, kWidest};
constexpr std::int64_t kKeyChunks[] = {1, 2, 4, 8, 16};  // keys, in chunks of rows

float* f32(const Buffer& buffer) {
  return reinterpret_cast<float*>(buffer.data());
}

}  // namespace

void ChunkOperations::measure(Machine& m) const {
  measure_products(m);
  measure_attention(m);
  measure_rows(m);
  measure_recall(m);
}

void ChunkOperations::measure_products(Machine& m) const {
  const RowBuffer x = inputs_.rows(chunk(), kWidest);
  const RowBuffer y(backend(), chunk(), kWidest);
  for (const std::int64_t n_in : kWidths) {
    for (const std::int64_t n_out : kWidths) {
      const Rows in{x.rows(chunk()).data, chunk(), n_in};
      const Rows out{y.rows(chunk()).data, chunk(), n_out};
      const double seconds = timer_([&](std::int64_t i) {
        backend().linear(in, {inputs_.weight(n_out, n_in, i), WeightView{}, out}, Product::chunk);
      });
      m.products.push_back(
          {n_in, n_out, 2 * static_cast<double>(chunk() * n_in * n_out) / seconds});
    }
  }
}

// Heads in groups of four, a causal segment, as the last chunk of a block has it.
void ChunkOperations::measure_attention(Machine& m) const {
  for (const std::int64_t head_dim : kHeadDims) {
    const AttentionShape shape = shape_of_width(head_dim);
    const std::int64_t most = kKeyChunks[std::size(kKeyChunks) - 1] * chunk();
    const RowBuffer q = inputs_.rows(chunk(), kWidth);
    const RowBuffer kv = inputs_.rows(most, kWidth / 2);
    const RowBuffer out(backend(), chunk(), kWidth);
    const PartialBuffer scratch(backend(), chunk(), shape);
    for (const std::int64_t n_chunks : kKeyChunks) {
      const std::int64_t n_keys = n_chunks * chunk();
      const KvSegment segment = inputs_.segment(kv.rows(most).data, n_keys, shape, true);
      const double seconds = timer_([&](std::int64_t) {
        backend().attend_all(q.rows(chunk()), {&segment, 1}, shape, Product::chunk,
                             scratch.partial(), out.rows(chunk()));
      });
      const double pairs = static_cast<double>(chunk()) * (static_cast<double>(n_keys - chunk()) +
                                                           static_cast<double>(chunk() + 1) / 2);
      m.attention.push_back({head_dim, n_keys, 4 * kWidth * pairs / seconds});
    }
  }
}

// What is not a product in a layer of phase 1, in the proportions of one; star/seconds.cpp counts
// its bytes alike.
void ChunkOperations::measure_rows(Machine& m) const {
  const RowBuffer x = inputs_.rows(chunk(), kWidth);
  const RowBuffer wide = inputs_.rows(chunk(), 3 * kWidth);
  const RowBuffer up = inputs_.rows(chunk(), 3 * kWidth);
  const Buffer cos = inputs_.floats(chunk() * 64), sin = inputs_.floats(chunk() * 64);
  const double width = (4 + 2 + 9 + 3) * static_cast<double>(kWidth);
  const double seconds = timer_([&](std::int64_t) {
    const Rows rows = x.rows(chunk());
    backend().rms_norm(rows, inputs_.weight(1, kWidth), 1e-5, rows);
    backend().rms_norm(rows, inputs_.weight(1, kWidth), 1e-5, rows);
    backend().rope(rows, {128}, f32(cos), f32(sin));
    backend().swiglu(wide.rows(chunk()), up.rows(chunk()), up.rows(chunk()));
    backend().add(rows, rows);
  });
  m.row_bytes_per_s = static_cast<double>(chunk()) * width * inputs_.element() / seconds;
}

void ChunkOperations::measure_recall(Machine& m) const {
  const AttentionShape shape = shape_of_width(128);
  const std::int64_t n_keys = 8 * chunk();
  const std::int64_t n_asking = chunk() / 2;
  const RowBuffer q = inputs_.rows(n_asking, kWidth);
  const RowBuffer keys = inputs_.rows(n_keys, kWidth / 4);
  const Buffer z = inputs_.floats(n_asking * shape.n_heads);
  const Buffer scores = inputs_.floats(n_keys);
  const Buffer numbers = inputs_.floats(n_keys);
  const Buffer best = inputs_.floats(n_keys);
  const KvSegment segment{keys.rows(n_keys).data, nullptr, n_keys, false};
  auto* i32 = reinterpret_cast<std::int32_t*>(numbers.data());
  const double scoring = timer_([&](std::int64_t) {
    backend().score_keys(q.rows(n_asking), f32(z), segment, shape, f32(scores));
  });
  m.scoring_flops_per_s = 2 * static_cast<double>(kWidth * n_asking * n_keys) / scoring;
  const double choosing = timer_([&](std::int64_t) {
    backend().choose_best(f32(scores), n_keys, n_keys / 16, i32, f32(best));
  });
  m.best_of_keys_per_s = static_cast<double>(n_keys) / choosing;
  const double asking =
      timer_([&](std::int64_t) { backend().choose_asking_rows(segment, shape, n_keys / 16, i32); });
  m.likeness_bytes_per_s = static_cast<double>(n_keys * kWidth / 4) * inputs_.element() /
                           std::max(asking - choosing, 0.1 * asking);
}

}  // namespace starattn
