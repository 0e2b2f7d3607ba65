// SPDX-License-Identifier: Apache-2.0
// Online-softmax attention of packed lanes (see kernels.h) for one instruction set.
//
// Vectors run over lanes, keys and values are broadcast from where they lie: nothing is packed but
// q, the softmax needs no sum across lanes, and a lane never meets its neighbours. One lane of a
// vector in use costs as much as all: with few rows memory is the limit, not arithmetic.

// Register tile: kGroupVectors vectors of lanes times kBlock keys (or dimensions).
#if defined(__AVX512F__)
constexpr int kGroupVectors = 3;
constexpr int kBlock = 8;
#elif defined(__AVX2__)
constexpr int kGroupVectors = 3;
constexpr int kBlock = 4;
#else
constexpr int kGroupVectors = 2;
constexpr int kBlock = 4;
#endif
constexpr std::int64_t kKeyTile = 128;  // keys whose scores are in cache together
constexpr float kNothing = -__builtin_inff();

// s[key][lane] = sum_c k[key][c] q[c][lane] for kKeys keys.
template <int kVectors, int kKeys>
inline void score_block(const SplitTask& task, const float* q, const float* k, float* s) {
  constexpr std::int64_t kWidth = kVectors * kLanes;
  Vec sum[kKeys][kVectors];
#pragma GCC unroll 16
  for (int i = 0; i < kKeys; ++i) {
#pragma GCC unroll 4
    for (int j = 0; j < kVectors; ++j) sum[i][j] = Vec{};
  }
  for (std::int64_t c = 0; c < task.head_dim; ++c) {
    Vec lanes[kVectors];
#pragma GCC unroll 4
    for (int j = 0; j < kVectors; ++j) lanes[j] = load(q + c * kWidth + j * kLanes);
#pragma GCC unroll 16
    for (int i = 0; i < kKeys; ++i) {
      const Vec key = splat(k[i * task.kv_stride + c]);
#pragma GCC unroll 4
      for (int j = 0; j < kVectors; ++j) sum[i][j] = fma(key, lanes[j], sum[i][j]);
    }
  }
#pragma GCC unroll 16
  for (int i = 0; i < kKeys; ++i) {
#pragma GCC unroll 4
    for (int j = 0; j < kVectors; ++j) store(s + i * kWidth + j * kLanes, sum[i][j]);
  }
}

// o[c][lane] = o[c][lane] * shrink[lane] + sum_key v[key][c] p[key][lane] for kDims dimensions.
template <int kVectors, int kDims>
inline void value_block(const SplitTask& task, const float* p, const float* v, std::int64_t n_keys,
                        const Vec* shrink, float* o) {
  constexpr std::int64_t kWidth = kVectors * kLanes;
  Vec sum[kDims][kVectors];
#pragma GCC unroll 16
  for (int i = 0; i < kDims; ++i) {
#pragma GCC unroll 4
    for (int j = 0; j < kVectors; ++j) sum[i][j] = load(o + i * kWidth + j * kLanes) * shrink[j];
  }
  for (std::int64_t key = 0; key < n_keys; ++key) {
    Vec lanes[kVectors];
#pragma GCC unroll 4
    for (int j = 0; j < kVectors; ++j) lanes[j] = load(p + key * kWidth + j * kLanes);
#pragma GCC unroll 16
    for (int i = 0; i < kDims; ++i) {
      const Vec value = splat(v[key * task.kv_stride + i]);
#pragma GCC unroll 4
      for (int j = 0; j < kVectors; ++j) sum[i][j] = fma(value, lanes[j], sum[i][j]);
    }
  }
#pragma GCC unroll 16
  for (int i = 0; i < kDims; ++i) {
#pragma GCC unroll 4
    for (int j = 0; j < kVectors; ++j) store(o + i * kWidth + j * kLanes, sum[i][j]);
  }
}

// Keys of a register tile: fewer vectors leave registers for more of them.
template <int kVectors>
constexpr int keys_of_block() {
  return kVectors == 1 ? 2 * kBlock : kBlock;
}

template <int kVectors>
inline void scores_of_tile(const SplitTask& task, const float* q, const float* k,
                           std::int64_t n_keys) {
  constexpr int kKeys = keys_of_block<kVectors>();
  constexpr std::int64_t kWidth = kVectors * kLanes;
  std::int64_t i = 0;
  for (; i + kKeys <= n_keys; i += kKeys) {
    score_block<kVectors, kKeys>(task, q, k + i * task.kv_stride, task.scores + i * kWidth);
  }
  for (; i < n_keys; ++i) {
    score_block<kVectors, 1>(task, q, k + i * task.kv_stride, task.scores + i * kWidth);
  }
}

template <int kVectors>
inline void values_of_tile(const SplitTask& task, const float* v, std::int64_t n_keys,
                           const Vec* shrink, float* o) {
  constexpr int kDims = keys_of_block<kVectors>();
  constexpr std::int64_t kWidth = kVectors * kLanes;
  std::int64_t c = 0;
  for (; c + kDims <= task.head_dim; c += kDims) {
    value_block<kVectors, kDims>(task, task.scores, v + c, n_keys, shrink, o + c * kWidth);
  }
  for (; c < task.head_dim; ++c) {
    value_block<kVectors, 1>(task, task.scores, v + c, n_keys, shrink, o + c * kWidth);
  }
}

// Scores of one vector of lanes -> probabilities; (m, l) follow. Returns what o shrinks by.
// n_visible: keys of this tile that each lane sees, or null.
template <int kVectors>
inline Vec softmax_of_tile(float* s, std::int64_t n_keys, const std::int32_t* n_visible, float* m,
                           float* l) {
  constexpr std::int64_t kWidth = kVectors * kLanes;
  if (n_visible) {
    Int visible;
    __builtin_memcpy(&visible, n_visible, sizeof(visible));
    for (std::int64_t i = 0; i < n_keys; ++i) {
      const Int key = Int{} + static_cast<std::int32_t>(i);
      store(s + i * kWidth, key < visible ? load(s + i * kWidth) : splat(kNothing));
    }
  }
  const Vec before = load(m);
  Vec top = before;
  for (std::int64_t i = 0; i < n_keys; ++i) top = larger(top, load(s + i * kWidth));
  const Vec base = top == splat(kNothing) ? Vec{} : top;  // -inf - -inf would be NaN
  Vec sum = Vec{};
  for (std::int64_t i = 0; i < n_keys; ++i) {
    const Vec p = exponential(load(s + i * kWidth) - base);
    store(s + i * kWidth, p);
    sum += p;
  }
  const Vec shrink = exponential(before - base);
  store(l, fma(load(l), shrink, sum));
  store(m, top);
  return shrink;
}

// One group of lanes over all keys of the split.
template <int kVectors>
void attend_group(const SplitTask& task, std::int64_t first_lane) {
  constexpr std::int64_t kWidth = kVectors * kLanes;
  const float* q = task.q + first_lane * task.head_dim;
  float* o = task.o + first_lane * task.head_dim;
  float* m = task.m + first_lane;
  float* l = task.l + first_lane;
  for (std::int64_t i = 0; i < task.head_dim * kWidth; ++i) o[i] = 0;
  for (std::int64_t i = 0; i < kWidth; ++i) {
    m[i] = kNothing;
    l[i] = 0;
  }
  const std::int32_t* visible = task.n_visible ? task.n_visible + first_lane : nullptr;
  const std::int64_t n_keys = visible ? visible[kWidth - 1] : task.n_keys;
  for (std::int64_t first = 0; first < n_keys; first += kKeyTile) {
    const std::int64_t n = n_keys - first < kKeyTile ? n_keys - first : kKeyTile;
    const float* k = task.k + first * task.kv_stride;
    const float* v = task.v + first * task.kv_stride;
    scores_of_tile<kVectors>(task, q, k, n);
    const bool masked = visible && visible[0] < first + n;
    Vec shrink[kVectors];
    for (int j = 0; j < kVectors; ++j) {
      std::int32_t here[kLanes];
      for (std::int64_t i = 0; masked && i < kLanes; ++i) {
        here[i] = visible[j * kLanes + i] - static_cast<std::int32_t>(first);
      }
      shrink[j] = softmax_of_tile<kVectors>(task.scores + j * kLanes, n, masked ? here : nullptr,
                                            m + j * kLanes, l + j * kLanes);
    }
    values_of_tile<kVectors>(task, v, n, shrink, o);
  }
  // -0 becomes 0: whether masked keys added their zeros is not to be seen.
  for (std::int64_t i = 0; i < task.head_dim * kWidth; i += kLanes) store(o + i, load(o + i) + Vec{});
}

void attend_split(const SplitTask& task) {
  for (std::int64_t first = 0; first < task.n_vectors; first += kGroupVectors) {
    const std::int64_t n = task.n_vectors - first;
    if (n == 1) {
      attend_group<1>(task, first * kLanes);
    } else if (n == 2 || kGroupVectors == 2) {
      attend_group<2>(task, first * kLanes);
    } else {
      attend_group<kGroupVectors>(task, first * kLanes);
    }
  }
}
