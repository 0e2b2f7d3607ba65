// SPDX-License-Identifier: Apache-2.0
#include "backend/cuda/asking.h"

#include <vector>

#include "backend/cuda/as_kernel.h"
#include "backend/cuda/wide_segments.h"
#include "recall.h"

namespace starattn::cuda {
namespace {

kernels::AskingRows asking_rows(Rows q, const AttentionShape& shape) {
  STARATTN_CHECK(q.width == shape.n_heads * shape.head_dim);
  return {as_kernel(shape), q.data, q.n_rows, scale_of(shape)};
}

}  // namespace

void choose_asking_rows(Device& device, const KvSegment& block, const AttentionShape& shape,
                        std::int64_t n_rows, std::int32_t* rows) {
  STARATTN_CHECK(n_rows >= 1 && n_rows <= block.n_tokens);
  const Buffer unlikeness =
      device.allocate(static_cast<std::size_t>(block.n_tokens) * sizeof(float));
  const Buffer workspace =
      device.allocate(kernels::unlikeness_workspace(block.n_tokens, as_kernel(shape)));
  const Buffer theirs = device.allocate(static_cast<std::size_t>(n_rows) * sizeof(float));
  const WideSegments wide(device, {&block, 1}, shape, /*keys_only=*/true);
  kernels::unlikeness_to_mean(wide.segments()[0].k, block.n_tokens, as_kernel(shape),
                              floats(unlikeness), workspace.data(), device.stream());
  kernels::choose_best(floats(unlikeness), block.n_tokens, n_rows, rows, floats(theirs),
                       device.stream());
}

void gather_rows(Device& device, std::span<const RawRows> from, const std::int32_t* rows,
                 RawRows to) {
  std::vector<kernels::RowSource> sources;
  for (const RawRows& part : from) {
    STARATTN_CHECK(part.row_bytes == to.row_bytes);
    sources.push_back({part.data, part.n_rows});
  }
  kernels::gather_rows(sources.data(), static_cast<int>(sources.size()), rows, to.n_rows,
                       to.row_bytes, to.data, device.stream());
}

void log_sum_exp(Device& device, Rows q, const KvSegment& first, const KvSegment& second,
                 const AttentionShape& shape, float* z) {
  const KvSegment both[] = {first, second};
  const WideSegments wide(device, both, shape, /*keys_only=*/true);
  const std::span<const KvSegment> keys = wide.segments();
  kernels::log_sum_exp(asking_rows(q, shape), {keys[0].k, nullptr, first.n_tokens},
                       {keys[1].k, nullptr, second.n_tokens}, z, device.stream());
}

void score_keys(Device& device, Rows q, const float* z, const KvSegment& keys,
                const AttentionShape& shape, float* scores) {
  const kernels::AskingRows asking = asking_rows(q, shape);
  const Buffer workspace = device.allocate(kernels::score_workspace(asking));
  const WideSegments wide(device, {&keys, 1}, shape, /*keys_only=*/true);
  kernels::score_keys(asking, z, {wide.segments()[0].k, nullptr, keys.n_tokens}, scores,
                      workspace.data(), device.stream());
}

}  // namespace starattn::cuda
