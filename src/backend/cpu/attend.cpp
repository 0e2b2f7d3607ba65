// SPDX-License-Identifier: Apache-2.0
#include "backend/cpu/attend.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <vector>

#include "backend/cpu/f8.h"
#include "backend/cpu/four.h"
#include "base/error.h"

namespace starattn::cpu {
namespace {

constexpr std::int64_t kSplitKeys = 2048;   // keys of one split: a multiple of the tile
constexpr std::int64_t kChunkPacked = 256;  // rows times heads of a group that go together, phase 1
constexpr std::int64_t kThinPacked = 64;    // the same, phase 2
constexpr float kNothing = -std::numeric_limits<float>::infinity();

// Some rows, all heads of one GQA group: packed row r is row r / group of the tile, head r % group.
struct RowTile {
  std::int64_t kv_head = 0;
  std::int64_t first_row = 0;
  std::int64_t n_rows = 0;
};

struct Call {
  const Kernels& kernels;
  const float* q;
  std::int64_t n_rows;
  AttentionShape shape;
  Product product;
  std::int64_t group() const { return shape.n_heads / shape.n_kv_heads; }
};

// One thread's memory: attention of up to `capacity` packed rows over one split.
struct Workspace {
  Workspace(std::int64_t capacity, std::int64_t d)
      : q(size(capacity, d)),
        scores(size(capacity, kKeyTile)),
        o(size(capacity, d)),
        m(size(capacity, 1)),
        l(size(capacity, 1)),
        keys(size(d, kKeyTile)),
        wide(size(2 * kKeyTile, d)) {}
  static std::size_t size(std::int64_t a, std::int64_t b) {
    return static_cast<std::size_t>(a * b);
  }

  std::vector<float> q;       // [packed, d]
  std::vector<float> scores;  // [packed, kKeyTile], then probabilities
  std::vector<float> o;       // [packed, d]
  std::vector<float> m, l;    // [packed]
  std::vector<float> keys;    // [d, kKeyTile], transposed
  std::vector<float> wide;    // [k, v][kKeyTile, d], of FP8
};

void pack_queries(const Call& call, const RowTile& tile, Workspace& work) {
  const std::int64_t d = call.shape.head_dim;
  const std::int64_t width = call.group() * d;
  for (std::int64_t row = 0; row < tile.n_rows; ++row) {
    const float* from =
        call.q + (tile.first_row + row) * call.shape.n_heads * d + tile.kv_head * width;
    std::memcpy(work.q.data() + row * width, from, static_cast<std::size_t>(width) * sizeof(float));
  }
}

// Tokens of the segment that a row of the call sees.
std::int64_t n_visible(const Call& call, const KvSegment& segment, std::int64_t row) {
  return segment.causal ? segment.n_tokens - call.n_rows + 1 + row : segment.n_tokens;
}

// The first token of the segment that it sees, before which there may be none at all.
std::int64_t first_visible(const KvSegment& segment, std::int64_t row) {
  return segment.has_edge() ? segment.first_seen + row : 0;
}

// Attention of the packed queries over keys [first, first + n) of a segment, added to work.o, m, l.
void attend_key_tile(const Call& call, const RowTile& tile, const KvSegment& segment,
                     std::int64_t first, std::int64_t n, Workspace& work) {
  const std::int64_t d = call.shape.head_dim;
  std::int64_t stride = call.shape.n_kv_heads * d;
  const std::int64_t packed = tile.n_rows * call.group();
  const float* k = nullptr;
  const float* v = nullptr;
  if (segment.is_f8) {
    const KvLayout layout{Dtype::f8, call.shape.n_kv_heads, d};
    const std::size_t at = static_cast<std::size_t>(first) * layout.row_bytes();
    float* wide_v = work.wide.data() + kKeyTile * d;
    widen_head(segment.k + at, layout, tile.kv_head, n, work.wide.data());
    widen_head(segment.v + at, layout, tile.kv_head, n, wide_v);
    k = work.wide.data();
    v = wide_v;
    stride = d;
  } else {
    k = reinterpret_cast<const float*>(segment.k) + first * stride + tile.kv_head * d;
    v = reinterpret_cast<const float*>(segment.v) + first * stride + tile.kv_head * d;
  }
  const std::int64_t n_padded = (n + 15) / 16 * 16;
  const float scale = 1.0F / std::sqrt(static_cast<float>(d));

  if (call.product == Product::chunk) {
    transpose(k, stride, n, d, work.keys.data(), kKeyTile);
    call.kernels.multiply(work.q.data(), d, work.keys.data(), kKeyTile, work.scores.data(),
                          kKeyTile, packed, n_padded, d, false);
  } else {
    call.kernels.dot_rows(work.q.data(), d, packed, reinterpret_cast<const std::byte*>(k), stride,
                          Dtype::f32, n, d, work.scores.data(), kKeyTile);
  }
  for (std::int64_t r = 0; r < packed; ++r) {
    float* scores = work.scores.data() + r * kKeyTile;
    const auto at = static_cast<std::size_t>(r);
    const std::int64_t row = tile.first_row + r / call.group();
    const std::int64_t visible =
        std::clamp<std::int64_t>(n_visible(call, segment, row) - first, 0, n);
    const std::int64_t hidden = std::max<std::int64_t>(first_visible(segment, row) - first, 0);
    if (hidden >= visible) {
      std::fill_n(scores, n, 0.0F);
      continue;
    }
    std::fill_n(scores, hidden, kNothing);
    const float top = std::max(work.m[at], scale * call.kernels.maximum(scores, visible));
    const float shrink = work.m[at] == kNothing ? 0.0F : std::exp(work.m[at] - top);
    work.l[at] =
        work.l[at] * shrink + call.kernels.exponentials(scores, n_padded, visible, scale, top);
    work.m[at] = top;
    if (shrink != 1.0F) {
      float* o = work.o.data() + r * d;
      for (std::int64_t c = 0; c < d; ++c) o[c] *= shrink;
    }
  }
  call.kernels.multiply(work.scores.data(), kKeyTile, v, stride, work.o.data(), d, packed, d, n,
                        true);
}

// Attention of the packed queries over one split: a fresh (o, m, l) in the workspace.
void attend_split(const Call& call, const RowTile& tile, const KvSegment& segment,
                  std::int64_t first, Workspace& work) {
  const std::int64_t packed = tile.n_rows * call.group();
  std::fill_n(work.o.begin(), packed * call.shape.head_dim, 0.0F);
  std::fill_n(work.m.begin(), packed, kNothing);
  std::fill_n(work.l.begin(), packed, 0.0F);
  const std::int64_t last_visible = n_visible(call, segment, tile.first_row + tile.n_rows - 1);
  const std::int64_t end = std::min(first + kSplitKeys, std::min(segment.n_tokens, last_visible));
  const std::int64_t n_hidden = first_visible(segment, tile.first_row) - first;  // of all rows
  const std::int64_t begin = first + std::max<std::int64_t>(n_hidden, 0) / kKeyTile * kKeyTile;
  for (std::int64_t key = begin; key < end; key += kKeyTile) {
    attend_key_tile(call, tile, segment, key, std::min(kKeyTile, end - key), work);
  }
}

void merge_tile(const Call& call, const RowTile& tile, const float* o, const float* m,
                const float* l, const Partial& partial) {
  const std::int64_t d = call.shape.head_dim;
  for (std::int64_t r = 0; r < tile.n_rows * call.group(); ++r) {
    const std::int64_t head = tile.kv_head * call.group() + r % call.group();
    const std::int64_t at = (tile.first_row + r / call.group()) * call.shape.n_heads + head;
    merge_row(partial.o + at * d, partial.m[at], partial.l[at], o + r * d, m[r], l[r], d);
  }
}

std::vector<RowTile> row_tiles(const Call& call) {
  const std::int64_t packed = call.product == Product::chunk ? kChunkPacked : kThinPacked;
  const std::int64_t rows = std::max<std::int64_t>(1, packed / call.group());
  std::vector<RowTile> tiles;
  // Late rows see most in causal attention: they start first.
  for (std::int64_t first = (call.n_rows - 1) / rows * rows; first >= 0; first -= rows) {
    for (std::int64_t head = 0; head < call.shape.n_kv_heads; ++head) {
      tiles.push_back({head, first, std::min(rows, call.n_rows - first)});
    }
  }
  return tiles;
}

// Splits of one segment side by side, each into memory of its own, merged in order afterwards.
void attend_split_parallel(ThreadPool& pool, std::vector<Workspace>& work, const Call& call,
                           const std::vector<RowTile>& tiles, const KvSegment& segment,
                           const Partial& partial) {
  const std::int64_t d = call.shape.head_dim;
  const std::int64_t n_splits = (segment.n_tokens + kSplitKeys - 1) / kSplitKeys;
  const std::int64_t slot = kThinPacked * (d + 2);
  const auto n_tiles = static_cast<std::int64_t>(tiles.size());
  std::vector<float> slots(static_cast<std::size_t>(n_tiles * n_splits * slot));
  const auto slot_of = [&](std::int64_t tile, std::int64_t split) {
    return slots.data() + (tile * n_splits + split) * slot;
  };
  pool.parallel_for(n_tiles * n_splits, [&](std::int64_t task, int thread) {
    const RowTile& tile = tiles[static_cast<std::size_t>(task / n_splits)];
    Workspace& mine = work[static_cast<std::size_t>(thread)];
    const std::int64_t packed = tile.n_rows * call.group();
    pack_queries(call, tile, mine);
    attend_split(call, tile, segment, task % n_splits * kSplitKeys, mine);
    float* to = slot_of(task / n_splits, task % n_splits);
    std::copy_n(mine.o.data(), packed * d, to);
    std::copy_n(mine.m.data(), packed, to + kThinPacked * d);
    std::copy_n(mine.l.data(), packed, to + kThinPacked * (d + 1));
  });
  pool.parallel_for(n_tiles, [&](std::int64_t t, int) {
    for (std::int64_t split = 0; split < n_splits; ++split) {
      const float* from = slot_of(t, split);
      merge_tile(call, tiles[static_cast<std::size_t>(t)], from, from + kThinPacked * d,
                 from + kThinPacked * (d + 1), partial);
    }
  });
}

void transpose_4x4(const float* from, std::int64_t stride, float* to, std::int64_t to_stride) {
  const Four a = load_four(from), b = load_four(from + stride);
  const Four c = load_four(from + 2 * stride), d = load_four(from + 3 * stride);
  const Four ab = __builtin_shufflevector(a, b, 0, 4, 1, 5);  // a0 b0 a1 b1
  const Four cd = __builtin_shufflevector(c, d, 0, 4, 1, 5);
  const Four more_ab = __builtin_shufflevector(a, b, 2, 6, 3, 7);
  const Four more_cd = __builtin_shufflevector(c, d, 2, 6, 3, 7);
  store_four(to, __builtin_shufflevector(ab, cd, 0, 1, 4, 5));
  store_four(to + to_stride, __builtin_shufflevector(ab, cd, 2, 3, 6, 7));
  store_four(to + 2 * to_stride, __builtin_shufflevector(more_ab, more_cd, 0, 1, 4, 5));
  store_four(to + 3 * to_stride, __builtin_shufflevector(more_ab, more_cd, 2, 3, 6, 7));
}

}  // namespace

void transpose(const float* rows, std::int64_t stride, std::int64_t n, std::int64_t d, float* to,
               std::int64_t to_stride) {
  constexpr std::int64_t kColumns = 16;  // of `to` at a time: a line of the cache
  const std::int64_t n_padded = (n + kColumns - 1) / kColumns * kColumns;
  std::int64_t first = 0;
  for (; first + kColumns <= n; first += kColumns) {
    for (std::int64_t c = 0; c < d; c += 4) {
      for (std::int64_t r = first; r < first + kColumns; r += 4)
        transpose_4x4(rows + r * stride + c, stride, to + c * to_stride + r, to_stride);
    }
  }
  for (std::int64_t c = 0; first < n_padded && c < d; ++c) {
    for (std::int64_t r = first; r < n_padded; ++r)
      to[c * to_stride + r] = r < n ? rows[r * stride + c] : 0.0F;
  }
}

void merge_row(float* o, float& m, float& l, const float* from_o, float from_m, float from_l,
               std::int64_t head_dim) {
  if (from_m == kNothing && from_l == 0) return;  // scores that are no numbers are not nothing
  const float top = std::max(m, from_m);
  const float mine = m == kNothing ? 0.0F : std::exp(m - top);
  const float theirs = std::exp(from_m - top);
  for (std::int64_t c = 0; c < head_dim; ++c) o[c] = o[c] * mine + from_o[c] * theirs;
  l = l * mine + from_l * theirs;
  m = top;
}

void attend(ThreadPool& pool, const Kernels& kernels, Rows q, std::span<const KvSegment> segments,
            const AttentionShape& shape, Product product, Partial partial) {
  if (q.n_rows == 0) return;
  STARATTN_CHECK(shape.n_heads % shape.n_kv_heads == 0 && partial.n_rows == q.n_rows);
  STARATTN_CHECK(shape.head_dim % kHeadDimUnit == 0);
  for (const KvSegment& segment : segments) {
    STARATTN_CHECK(!segment.causal || segment.n_tokens >= q.n_rows);
  }
  const Call call{kernels, reinterpret_cast<const float*>(q.data), q.n_rows, shape, product};
  const std::int64_t packed =
      std::max(product == Product::chunk ? kChunkPacked : kThinPacked, call.group());
  const std::vector<RowTile> tiles = row_tiles(call);
  std::vector<Workspace> work;
  for (int i = 0; i < pool.n_threads(); ++i) work.emplace_back(packed, shape.head_dim);

  const bool few = static_cast<std::int64_t>(tiles.size()) < 4 * std::int64_t{pool.n_threads()};
  if (product == Product::batch_invariant && few && call.group() <= kThinPacked &&
      pool.n_threads() > 1) {
    for (const KvSegment& segment : segments) {
      attend_split_parallel(pool, work, call, tiles, segment, partial);
    }
    return;
  }
  pool.parallel_for(static_cast<std::int64_t>(tiles.size()), [&](std::int64_t task, int thread) {
    const RowTile& tile = tiles[static_cast<std::size_t>(task)];
    Workspace& mine = work[static_cast<std::size_t>(thread)];
    pack_queries(call, tile, mine);
    for (const KvSegment& segment : segments) {
      for (std::int64_t first = 0; first < segment.n_tokens; first += kSplitKeys) {
        attend_split(call, tile, segment, first, mine);
        merge_tile(call, tile, mine.o.data(), mine.m.data(), mine.l.data(), partial);
      }
    }
  });
}

}  // namespace starattn::cpu
