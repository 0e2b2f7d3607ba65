// SPDX-License-Identifier: Apache-2.0
// The host side of attention to FP8 keys by teams of warps: tensor maps, the choice of a tile.
#include <cuda_runtime.h>

#include <algorithm>

#include "attention_f8.cuh"

#include "attention_f8.h"
#include "f8_kv.h"
#include "tensor_map.h"

namespace starattn::kernels {
namespace {

std::int64_t packed_rows(const AttentionInput& in) {
  return in.n_rows * (in.shape.n_heads / in.shape.n_kv_heads);
}

// Units of work, where rows fill one tile. What depends on it is as measured on an H200
// (docs/performance.md).
bool has_two_a_multiprocessor(const AttentionInput& in, const KeyCut& cut) {
  std::int64_t n_units = 0;
  for (int i = 0; i < cut.n_blocks; ++i)
    n_units += std::int64_t{cut.blocks[i].n_splits} * in.shape.n_kv_heads;
  return n_units >= 2 * n_multiprocessors();
}

template <typename Tile>
void launch(const AttentionInput& in, const AttentionOutput& out, const KeyCut& cut,
            Stream stream) {
  F8Task task{};
  static_cast<AttentionTask&>(task) = make_task(in, out, cut, Tile::kRows, kKeysPerTile);
  task.heads_per_bundle = task.n_kv_heads;
  const F8Rows rows{nullptr, 0, task.n_kv_heads, Tile::kHeadDim};
  task.width = static_cast<int>(rows.width());
  task.row_bytes = static_cast<int>(rows.row_bytes());
  const auto numbers = [&](const void* data, int n_tokens) {
    return byte_map(data, task.width, n_tokens, task.row_bytes, Tile::kHeadDim, kKeysPerTile);
  };
  for (int i = 0; i < task.n_segments; ++i) {
    task.k_maps[i] = numbers(task.k[i], task.n_tokens[i]);
    task.v_maps[i] = numbers(task.v[i], task.n_tokens[i]);
  }
  check_cuda(cudaFuncSetAttribute(attention_f8_kernel<Tile>,
                                  cudaFuncAttributeMaxDynamicSharedMemorySize, Tile::kSharedBytes),
             "attention to FP8 keys: shared memory");
  static const int n_blocks = n_multiprocessors();
  const int grid = static_cast<int>(std::min<std::int64_t>(n_blocks, n_units(task)));
  launch_overlapping("attention to FP8 keys", attention_f8_kernel<Tile>,
                     {.n_blocks = static_cast<unsigned>(grid),
                      .n_threads = 32 * kTeamWarps * Tile::kTeams,
                      .shared_bytes = Tile::kSharedBytes},
                     stream, task);
}

template <int kHeadDim>
void launch_fitting(const AttentionInput& in, const AttentionOutput& out, const KeyCut& cut,
                    Stream stream) {
  const std::int64_t n_packed = packed_rows(in);
  if (n_packed <= 8 && has_two_a_multiprocessor(in, cut))
    return launch<F8Tile<kHeadDim, 1, 4, 3>>(in, out, cut, stream);
  if (n_packed <= 8) return launch<F8Tile<kHeadDim, 1, 2, 6>>(in, out, cut, stream);
  if (n_packed <= 16) return launch<F8Tile<kHeadDim, 2, 2, 6>>(in, out, cut, stream);
  launch<F8Tile<kHeadDim, 4, 2, 5>>(in, out, cut, stream);
}

}  // namespace

bool are_for_teams(const AttentionInput& in, const KeyCut& cut) {
  const auto lack_exponents = [](const KvSegment& keys) {
    return keys.n_tokens > 0 && !keys.exponents;
  };
  if (std::any_of(in.segments, in.segments + in.n_segments, lack_exponents)) return true;
  // Heads of 64 were not measured again when attention_sm90() became faster.
  const bool may_be_32 = in.shape.head_dim == 64 && has_two_a_multiprocessor(in, cut);
  return packed_rows(in) <= (may_be_32 ? 32 : 16);
}

void attention_f8(const AttentionInput& in, const AttentionOutput& out, const KeyCut& cut,
                  Stream stream) {
  if (in.shape.head_dim == 64)
    launch_fitting<64>(in, out, cut, stream);
  else
    launch_fitting<128>(in, out, cut, stream);
}

}  // namespace starattn::kernels
