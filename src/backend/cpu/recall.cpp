// SPDX-License-Identifier: Apache-2.0
#include "backend/cpu/recall.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <vector>

#include "backend/cpu/attend.h"
#include "backend/cpu/f8.h"
#include "backend/cpu/four.h"
#include "base/error.h"

namespace starattn::cpu {
namespace {

constexpr std::int64_t kRowTile = 64;    // asking rows whose scores are in cache together
constexpr std::int64_t kScoreTile = 96;  // keys that they are asked for: whole tiles of registers
constexpr std::int64_t kKeysRaised = 4;  // of these together: they share what is loaded of z
static_assert(kScoreTile % kKeysRaised == 0);
constexpr float kNothing = -std::numeric_limits<float>::infinity();
constexpr float kHighest = 80;  // exp of it is still a float, summed over any number of heads

const float* floats(const std::byte* data) {
  return reinterpret_cast<const float*>(data);
}

// A row's log-sum-exp on its way over the keys.
struct RunningSum {
  float top = kNothing;
  float sum = 0;
};

// best[k] <- the highest of itself and scale * products[k, row] - z[row] over n rows, a multiple of
// 4, for kKeysRaised keys; what is not a number is not the highest.
void raise(float* best, const float* products, const float* z, std::int64_t n, float scale) {
  Four top[kKeysRaised];
  for (Four& one : top) one = kNothing - Four{};
  for (std::int64_t row = 0; row < n; row += 4) {
    const Four ordinary = load_four(z + row);
    for (std::int64_t k = 0; k < kKeysRaised; ++k) {
      const Four value = scale * load_four(products + k * kRowTile + row) - ordinary;
      top[k] = value > top[k] ? value : top[k];
    }
  }
  for (std::int64_t k = 0; k < kKeysRaised; ++k) {
    for (int lane = 0; lane < 4; ++lane) best[k] = std::max(best[k], top[k][lane]);
  }
}

}  // namespace

void likeness_to_mean(ThreadPool& pool, const KvSegment& block, const AttentionShape& shape,
                      float* likeness) {
  const std::int64_t d = shape.head_dim;
  const std::int64_t width = shape.n_kv_heads * d;
  std::vector<float> memory;
  const float* keys = keys_in_f32(block, shape, memory);
  std::vector<float> mean(static_cast<std::size_t>(width));
  pool.parallel_for(shape.n_kv_heads, [&](std::int64_t head, int) {
    float* sum = mean.data() + head * d;
    for (std::int64_t t = 0; t < block.n_tokens; ++t) {
      const float* key = keys + t * width + head * d;
      for (std::int64_t c = 0; c < d; ++c) sum[c] += key[c];
    }
    float square = 0;
    for (std::int64_t c = 0; c < d; ++c) square += sum[c] * sum[c];
    const float inverse = square > 0 ? 1.0F / std::sqrt(square) : 0.0F;
    for (std::int64_t c = 0; c < d; ++c) sum[c] *= inverse;
  });
  constexpr std::int64_t kTokensPerTask = 256;
  pool.parallel_for(
      (block.n_tokens + kTokensPerTask - 1) / kTokensPerTask, [&](std::int64_t task, int) {
        const std::int64_t end = std::min(block.n_tokens, (task + 1) * kTokensPerTask);
        for (std::int64_t t = task * kTokensPerTask; t < end; ++t) {
          float total = 0;
          for (std::int64_t head = 0; head < shape.n_kv_heads; ++head) {
            const float* key = keys + t * width + head * d;
            const float* unit = mean.data() + head * d;
            float dot = 0;
            float square = 0;
            for (std::int64_t c = 0; c < d; ++c) {
              dot += key[c] * unit[c];
              square += key[c] * key[c];
            }
            total += square > 0 ? dot / std::sqrt(square) : 0.0F;
          }
          likeness[t] = total / static_cast<float>(shape.n_kv_heads);
        }
      });
}

void log_sum_exp(ThreadPool& pool, const Kernels& kernels, Rows q, const KvSegment& first,
                 const KvSegment& second, const AttentionShape& shape, float* z) {
  const std::int64_t d = shape.head_dim;
  const std::int64_t group = shape.n_heads / shape.n_kv_heads;
  const std::int64_t stride = shape.n_kv_heads * d;
  const std::int64_t n_tiles = (q.n_rows + kRowTile - 1) / kRowTile;
  const float scale = 1.0F / std::sqrt(static_cast<float>(d));
  std::vector<float> memory[2];
  const float* keys_of[] = {keys_in_f32(first, shape, memory[0]),
                            keys_in_f32(second, shape, memory[1])};
  pool.parallel_for(shape.n_kv_heads * n_tiles, [&](std::int64_t task, int) {
    const std::int64_t kv_head = task % shape.n_kv_heads;
    const std::int64_t first_row = task / shape.n_kv_heads * kRowTile;
    const std::int64_t n_rows = std::min(kRowTile, q.n_rows - first_row);
    std::vector<float> keys(static_cast<std::size_t>(d * kKeyTile));
    std::vector<float> scores(static_cast<std::size_t>(kRowTile * kKeyTile));
    std::vector<RunningSum> sums(static_cast<std::size_t>(kRowTile * group));
    for (const int s : {0, 1}) {
      const std::int64_t n_tokens = (s == 0 ? first : second).n_tokens;
      for (std::int64_t key = 0; key < n_tokens; key += kKeyTile) {
        const std::int64_t n = std::min(kKeyTile, n_tokens - key);
        const std::int64_t n_padded = (n + 15) / 16 * 16;
        transpose(keys_of[s] + key * stride + kv_head * d, stride, n, d, keys.data(), kKeyTile);
        for (std::int64_t h = 0; h < group; ++h) {
          const float* rows = floats(q.data) + first_row * q.width + (kv_head * group + h) * d;
          kernels.multiply(rows, q.width, keys.data(), kKeyTile, scores.data(), kKeyTile, n_rows,
                           n_padded, d, false);
          for (std::int64_t r = 0; r < n_rows; ++r) {
            float* row = scores.data() + r * kKeyTile;
            RunningSum& running = sums[static_cast<std::size_t>(r * group + h)];
            const float top = std::max(running.top, scale * kernels.maximum(row, n));
            const float shrink = running.top == kNothing ? 0.0F : std::exp(running.top - top);
            running.sum = running.sum * shrink + kernels.exponentials(row, n_padded, n, scale, top);
            running.top = top;
          }
        }
      }
    }
    for (std::int64_t r = 0; r < n_rows; ++r) {
      for (std::int64_t h = 0; h < group; ++h) {
        const RunningSum& running = sums[static_cast<std::size_t>(r * group + h)];
        z[(first_row + r) * shape.n_heads + kv_head * group + h] =
            running.top == kNothing ? kNothing : running.top + std::log(running.sum);
      }
    }
  });
}

// The products have a row for each key and a column for each asking row: what has to be turned for
// that are the few rows of q, not all the keys.
void score_keys(ThreadPool& pool, const Kernels& kernels, Rows q, const float* z,
                const KvSegment& segment, const AttentionShape& shape, float* scores) {
  const std::int64_t d = shape.head_dim;
  const std::int64_t group = shape.n_heads / shape.n_kv_heads;
  const std::int64_t stride = shape.n_kv_heads * d;
  const std::int64_t n_tiles = (q.n_rows + kRowTile - 1) / kRowTile;
  const float scale = 1.0F / std::sqrt(static_cast<float>(d));
  std::vector<float> memory;
  const float* all_keys = keys_in_f32(segment, shape, memory);
  const auto rows_of = [&](std::int64_t tile) {
    return std::min(kRowTile, q.n_rows - tile * kRowTile);
  };

  const std::int64_t n_turned = shape.n_heads * n_tiles * kRowTile;
  std::vector<float> turned_q(static_cast<std::size_t>(n_turned * d));  // [heads, tiles, d, rows]
  std::vector<float> turned_z(static_cast<std::size_t>(n_turned), -kNothing);  // no row: no score
  pool.parallel_for(shape.n_heads * n_tiles, [&](std::int64_t task, int) {
    const std::int64_t head = task / n_tiles;
    const std::int64_t tile = task % n_tiles;
    const std::int64_t first_row = tile * kRowTile;
    transpose(floats(q.data) + first_row * q.width + head * d, q.width, rows_of(tile), d,
              turned_q.data() + task * d * kRowTile, kRowTile);
    float* to = turned_z.data() + task * kRowTile;
    for (std::int64_t r = 0; r < rows_of(tile); ++r)
      to[r] = z[(first_row + r) * shape.n_heads + head];
  });

  pool.parallel_for((segment.n_tokens + kScoreTile - 1) / kScoreTile, [&](std::int64_t task, int) {
    const std::int64_t first = task * kScoreTile;
    const std::int64_t n = std::min(kScoreTile, segment.n_tokens - first);
    std::vector<float> products(static_cast<std::size_t>(kScoreTile * kRowTile));
    float total[kScoreTile] = {};
    for (std::int64_t head = 0; head < shape.n_heads; ++head) {
      const float* keys = all_keys + first * stride + head / group * d;
      float best[kScoreTile];
      std::fill_n(best, kScoreTile, kNothing);
      for (std::int64_t tile = 0; tile < n_tiles; ++tile) {
        const std::int64_t at = (head * n_tiles + tile) * kRowTile;
        const std::int64_t n_padded = (rows_of(tile) + 15) / 16 * 16;
        kernels.multiply(keys, stride, turned_q.data() + at * d, kRowTile, products.data(),
                         kRowTile, n, n_padded, d, false);
        for (std::int64_t j = 0; j < n; j += kKeysRaised) {
          raise(best + j, products.data() + j * kRowTile, turned_z.data() + at, n_padded, scale);
        }
      }
      for (std::int64_t j = 0; j < n; ++j) total[j] += std::exp(std::min(best[j], kHighest));
    }
    for (std::int64_t j = 0; j < n; ++j)
      scores[first + j] = total[j] / static_cast<float>(shape.n_heads);
  });
}

void choose_best(const float* scores, std::int64_t n_scores, std::int64_t n_best,
                 std::int32_t* best, float* best_scores) {
  STARATTN_CHECK(n_best >= 0 && n_best <= n_scores);
  STARATTN_CHECK(n_scores <= std::numeric_limits<std::int32_t>::max());
  std::vector<std::int32_t> all(static_cast<std::size_t>(n_scores));
  std::iota(all.begin(), all.end(), 0);
  const auto value = [&](std::int32_t i) { return std::isnan(scores[i]) ? kNothing : scores[i]; };
  const auto is_better = [&](std::int32_t a, std::int32_t b) {
    return value(a) != value(b) ? value(a) > value(b) : a < b;
  };
  std::nth_element(all.begin(), all.begin() + n_best, all.end(), is_better);
  std::sort(all.begin(), all.begin() + n_best);
  for (std::int64_t i = 0; i < n_best; ++i) {
    best[i] = all[static_cast<std::size_t>(i)];
    best_scores[i] = scores[best[i]];
  }
}

}  // namespace starattn::cpu
