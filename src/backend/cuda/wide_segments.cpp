// SPDX-License-Identifier: Apache-2.0
#include "backend/cuda/wide_segments.h"

#include <utility>

#include "backend/cuda/as_kernel.h"
#include "f8_kv.h"

namespace starattn::cuda {

WideSegments::WideSegments(Device& device, std::span<const KvSegment> segments,
                           const AttentionShape& shape, bool keys_only)
    : segments_(segments.begin(), segments.end()) {
  const KvLayout layout{Dtype::f8, shape.n_kv_heads, shape.head_dim};
  for (KvSegment& segment : segments_) {
    if (!std::exchange(segment.is_f8, false)) continue;
    for (const std::byte** half : {&segment.k, keys_only ? nullptr : &segment.v}) {
      if (!half || segment.n_tokens == 0) continue;
      const Buffer& wide = memory_.emplace_back(device.allocate(
          static_cast<std::size_t>(segment.n_tokens * layout.width()) * size_of(Dtype::bf16)));
      kernels::widen_rows(f8_rows(*half, segment.n_tokens, layout), wide.data(), device.stream());
      *half = wide.data();
    }
  }
}

}  // namespace starattn::cuda
