// SPDX-License-Identifier: Apache-2.0
// The host side of attention with mma.sync: the choice of a tile, the launch.
#include <algorithm>

#include "attention_sm80.cuh"

#include "attention_sm80.h"
#include "cuda_check.h"

namespace starattn::kernels {
namespace {

// Blocks of one kernel that the device holds at a time.
template <typename Tile>
int n_resident_blocks() {
  check_cuda(cudaFuncSetAttribute(attention_sm80_kernel<Tile>,
                                  cudaFuncAttributeMaxDynamicSharedMemorySize, Tile::kSharedBytes),
             "attention: shared memory");
  int per_multiprocessor = 0;
  check_cuda(
      cudaOccupancyMaxActiveBlocksPerMultiprocessor(
          &per_multiprocessor, attention_sm80_kernel<Tile>, Tile::kThreads, Tile::kSharedBytes),
      "attention: resident blocks");
  return std::max(1, per_multiprocessor) * n_multiprocessors();
}

template <typename Tile>
void launch(const AttentionInput& in, const AttentionOutput& out, const KeyCut& cut,
            Stream stream) {
  static_assert(kKeysPerTile % Tile::kKeys == 0);
  const AttentionTask task = make_task(in, out, cut, Tile::kRows, Tile::kKeys);
  static const int n_blocks = n_resident_blocks<Tile>();
  const int grid = static_cast<int>(std::min<std::int64_t>(n_blocks, n_units(task)));
  attention_sm80_kernel<Tile><<<grid, Tile::kThreads, Tile::kSharedBytes, stream>>>(task);
  check_launch("attention on sm_80");
}

// Few rows leave shared memory and registers for copies in flight. The keys of a tile are the same
// for both, since they shape the bits of splits.
template <int kHeadDim, int kKeys>
void launch_fitting(const AttentionInput& in, const AttentionOutput& out, const KeyCut& cut,
                    Stream stream) {
  const std::int64_t packed_rows = in.n_rows * (in.shape.n_heads / in.shape.n_kv_heads);
  if (has_edges(in))
    return launch<WithEdges<AmpereTile<kHeadDim, kKeys, 1, 2>>>(in, out, cut, stream);
  if (packed_rows <= 64) return launch<AmpereTile<kHeadDim, kKeys, 2, 1>>(in, out, cut, stream);
  launch<AmpereTile<kHeadDim, kKeys, 1, 2>>(in, out, cut, stream);
}

}  // namespace

void attention_sm80(const AttentionInput& in, const AttentionOutput& out, const KeyCut& cut,
                    Stream stream) {
  if (in.shape.head_dim == 64)
    launch_fitting<64, 128>(in, out, cut, stream);
  else
    launch_fitting<128, 64>(in, out, cut, stream);
}

}  // namespace starattn::kernels
