// SPDX-License-Identifier: Apache-2.0
// The vectorised inner loops of the CPU backend: written once (kernels_*.inl over simd.h), compiled
// for several instruction sets, one of them chosen when the program runs.
//
// Every result element is one chain of operations in a fixed order, so its bits depend on its own
// inputs alone, never on what is computed beside it. They do differ between instruction sets.
#pragma once

#include <cstddef>
#include <cstdint>

#include "base/dtype.h"

namespace starattn::cpu {

// Attention packs (row, head) pairs that share a KV head: each pair is one lane of a vector. A tile
// of lanes is stored in groups of `group_vectors` vectors (the last may have fewer), and within a
// group dimension by dimension: [n_groups][head_dim][lanes of the group]. m and l are [n_lanes].
struct SplitTask {
  const float* q = nullptr;  // packed and scaled
  std::int64_t n_vectors = 0;
  std::int64_t head_dim = 0;
  const float* k = nullptr;  // [n_keys, head_dim], kv_stride floats from key to key
  const float* v = nullptr;
  std::int64_t kv_stride = 0;
  std::int64_t n_keys = 0;
  const std::int32_t* n_visible = nullptr;  // [n_lanes] keys that a lane sees, ascending; null: all
  float* scores = nullptr;                  // workspace [score_floats]
  float* o = nullptr;                       // packed
  float* m = nullptr;
  float* l = nullptr;
};

// Items of q and of a Partial: item = row * n_heads + head, q and o [n_items, head_dim].
struct Lanes {
  const std::int64_t* items = nullptr;  // the item of each lane
  std::int64_t n = 0;                   // lanes in use
  std::int64_t n_vectors = 0;
  std::int64_t head_dim = 0;
};

struct Kernels {
  const char* name;            // "AVX-512"
  std::int64_t lanes;          // floats of a vector
  std::int64_t group_vectors;  // see SplitTask
  std::int64_t score_floats;   // size of the workspace of attend_split

  // q_packed <- q * scale, lanes not in use zero.
  void (*pack_queries)(const Lanes& lanes, const float* q, float scale, float* q_packed);
  // (o, m, l) <- attention of the packed lanes over the keys, from empty.
  void (*attend_split)(const SplitTask& task);
  // The items' partials <- themselves merged with the packed (o, m, l).
  void (*merge_lanes)(const Lanes& lanes, const float* o_packed, const float* m_packed,
                      const float* l_packed, float* o, float* m, float* l);
  // into (+) from, item by item.
  void (*merge_items)(std::int64_t n_items, std::int64_t head_dim, const float* from_o,
                      const float* from_m, const float* from_l, float* o, float* m, float* l);

  // y[i, j] = bias[j] + sum_k x[i, k] w[j, k] for m rows of x [m, n_in] and n rows of w [n, n_in];
  // bias may be null, y has row stride y_stride. widened: workspace [thin_floats(n_in)].
  void (*multiply_thin)(const float* x, std::int64_t m, const std::byte* w, Dtype dtype,
                        std::int64_t n, std::int64_t n_in, const float* bias, float* widened,
                        float* y, std::int64_t y_stride);

  void (*widen)(const std::byte* from, Dtype dtype, std::int64_t n, float* to);
  // One row: y = x / sqrt(mean(x^2) + eps) * weight. y may be x.
  void (*rms_norm)(const float* x, const float* weight, std::int64_t n, float eps, float* y);
  // One row of heads: pairs (i, i + head_dim / 2) turned by cos, sin [head_dim / 2], in place.
  void (*rope)(float* x, std::int64_t n_heads, std::int64_t head_dim, const float* cos,
               const float* sin);
  void (*swiglu)(const float* gate, const float* up, std::int64_t n, float* y);
  void (*add)(const float* y, std::int64_t n, float* x);                   // x += y
  void (*divide)(const float* x, float by, std::int64_t n, float* y);      // y = x / by
  void (*exponential)(const float* x, std::int64_t n, float* y);           // for the tests
};

// Rows of w that multiply_thin widens at once.
constexpr std::int64_t kThinOutputs = 4;

extern const Kernels kPortableKernels;
extern const Kernels kAvx2Kernels;
extern const Kernels kAvx512Kernels;

// The widest that this processor has; the environment's STARATTN_CPU=portable|avx2|avx512 asks for
// another. Throws Error(usage) for an unknown name, Error(unfit) for one that the processor lacks.
const Kernels& choose_kernels();

}  // namespace starattn::cpu
