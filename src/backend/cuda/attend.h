// SPDX-License-Identifier: Apache-2.0
// Attention of rows over segments of keys and values, and what becomes of its partials. backend.h
// says what each operation does; where one needs more segments or merges than a kernel takes at
// once, takes() says so, and the backend does it in steps.
#pragma once

#include <span>

#include "attention_merge.h"
#include "backend/backend.h"
#include "backend/cuda/device.h"
#include "backend/cuda/mail.h"

namespace starattn::cuda {

class Attention {
 public:
  Attention(Device& device, Mail& mail) : device_(device), mail_(mail) {}

  static bool takes(std::size_t n_segments) {
    return n_segments <= static_cast<std::size_t>(kernels::kMaxSegments);
  }

  void attend(Rows q, std::span<const KvSegment> segments, const AttentionShape& shape,
              Product product, Partial partial);
  // At least one segment and no more than it takes from here on; attend_all is for many rows.
  void attend_alone(Rows q, std::span<const KvSegment> segments, const AttentionShape& shape,
                    Product product, Partial partial);
  void attend_blocks(Rows q, std::span<const KvSegment> blocks, const AttentionShape& shape,
                     std::span<const Merge> merges, std::span<const Partial> parts);
  void attend_all(Rows q, std::span<const KvSegment> segments, const AttentionShape& shape,
                  Rows out);
  // As Backend::attend_from, of at most kernels::kMostTailTokens tokens.
  void attend_from(Rows q, const KvSegment& segment, std::span<const std::int64_t> first,
                   const AttentionShape& shape, Partial partial);
  void attend_blocks_and_own(Rows q, Rows k, Rows v, std::span<const KvSegment> blocks,
                             const PartialTree& context, std::span<const OwnTokens> own,
                             const AttentionShape& shape, Rows out);
  void attend_own(Rows q, Rows k, Rows v, std::span<const OwnTokens> own,
                  const AttentionShape& shape, const PartialTree& context, Rows out);
  void clear(Partial partial, const AttentionShape& shape);
  void merge_all(std::span<const Partial> parts, std::span<const Merge> merges,
                 const AttentionShape& shape);
  void finish(Partial partial, const AttentionShape& shape, Rows out);
  void finish_merged(Partial a, Partial b, const AttentionShape& shape, Rows out);

 private:
  // Behind a context that is still to be merged.
  void attend_own(Rows q, Rows k, Rows v, std::span<const OwnTokens> own,
                  const AttentionShape& shape, const kernels::MergeTask& context, std::size_t root,
                  Rows out, const kernels::AwaitedParts& awaited = {});
  // At most kMaxSegments segments at a time, in order; only the last one of all may be causal.
  template <typename Use>
  void for_each_input(Rows q, std::span<const KvSegment> segments, const AttentionShape& shape,
                      const Use& use);
  void attend_to(const kernels::AttentionInput& input, Product product, const Partial& partial);
  kernels::Stream stream() const { return device_.stream(); }

  Device& device_;
  Mail& mail_;
};

}  // namespace starattn::cuda
