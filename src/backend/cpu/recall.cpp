// SPDX-License-Identifier: Apache-2.0
#include "backend/cpu/recall.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <vector>

#include "backend/cpu/attend.h"
#include "backend/cpu/f8.h"
#include "base/error.h"

namespace starattn::cpu {
namespace {

constexpr std::int64_t kRowTile = 64;  // asking rows whose scores are in cache together
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
        transpose_keys(keys_of[s] + key * stride + kv_head * d, stride, n, d, keys.data());
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

void score_keys(ThreadPool& pool, const Kernels& kernels, Rows q, const float* z,
                const KvSegment& segment, const AttentionShape& shape, float* scores) {
  const std::int64_t d = shape.head_dim;
  const std::int64_t group = shape.n_heads / shape.n_kv_heads;
  const std::int64_t stride = shape.n_kv_heads * d;
  const float scale = 1.0F / std::sqrt(static_cast<float>(d));
  std::vector<float> memory;
  const float* all_keys = keys_in_f32(segment, shape, memory);
  pool.parallel_for((segment.n_tokens + kKeyTile - 1) / kKeyTile, [&](std::int64_t task, int) {
    const std::int64_t first = task * kKeyTile;
    const std::int64_t n = std::min(kKeyTile, segment.n_tokens - first);
    std::vector<float> keys(static_cast<std::size_t>(d * kKeyTile));
    std::vector<float> products(static_cast<std::size_t>(kRowTile * kKeyTile));
    float total[kKeyTile] = {};
    for (std::int64_t head = 0; head < shape.n_heads; ++head) {
      if (head % group == 0)
        transpose_keys(all_keys + first * stride + head / group * d, stride, n, d, keys.data());
      float best[kKeyTile];
      std::fill_n(best, kKeyTile, kNothing);
      for (std::int64_t first_row = 0; first_row < q.n_rows; first_row += kRowTile) {
        const std::int64_t n_rows = std::min(kRowTile, q.n_rows - first_row);
        kernels.multiply(floats(q.data) + first_row * q.width + head * d, q.width, keys.data(),
                         kKeyTile, products.data(), kKeyTile, n_rows, kKeyTile, d, false);
        for (std::int64_t r = 0; r < n_rows; ++r) {
          const float* row = products.data() + r * kKeyTile;
          const float own = z[(first_row + r) * shape.n_heads + head];
          for (std::int64_t j = 0; j < kKeyTile; ++j) {
            const float value = scale * row[j] - own;
            best[j] = value > best[j] ? value : best[j];
          }
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
