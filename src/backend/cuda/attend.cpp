// SPDX-License-Identifier: Apache-2.0
#include "backend/cuda/attend.h"

#include <algorithm>
#include <optional>

#include "backend/cuda/as_kernel.h"
#include "backend/cuda/wide_segments.h"
#include "own_tokens.h"

namespace starattn::cuda {
namespace {

constexpr auto kMostParts = static_cast<std::size_t>(kernels::kMaxSegments);

}  // namespace

template <typename Use>
void Attention::for_each_input(Rows q, std::span<const KvSegment> segments,
                               const AttentionShape& shape, const Use& use) {
  for (std::size_t first = 0; first < segments.size(); first += kMostParts) {
    const auto some = segments.subspan(first, std::min(kMostParts, segments.size() - first));
    kernels::KvSegment converted[kMostParts];
    for (std::size_t i = 0; i < some.size(); ++i) {
      STARATTN_CHECK(!some[i].causal || first + i + 1 == segments.size());
      STARATTN_CHECK(some[i].is_f8 == segments[0].is_f8);
      converted[i] = {some[i].k, some[i].v, some[i].n_tokens, some[i].first_seen,
                      some[i].exponents};
    }
    use({.shape = as_kernel(shape),
         .q = q.data,
         .n_rows = q.n_rows,
         .q_row_stride = q.width,
         .segments = converted,
         .n_segments = static_cast<int>(some.size()),
         .causal = some.back().causal,
         .scale = scale_of(shape),
         .is_f8 = segments[0].is_f8});
  }
}

void Attention::attend_to(const kernels::AttentionInput& input, Product product,
                          const Partial& partial) {
  if (product == Product::chunk)
    return kernels::prefill_attention(input, {nullptr, nullptr, as_kernel(partial)}, stream());
  const Buffer workspace = device_.scratch(kernels::partial_attention_workspace(input));
  kernels::partial_attention(input, as_kernel(partial), workspace.data(), stream());
}

void Attention::attend(Rows q, std::span<const KvSegment> segments, const AttentionShape& shape,
                       Product product, Partial partial) {
  const WideSegments wide(device_, segments, shape);
  const Buffer memory = device_.allocate(PartialBuffer::n_bytes(q.n_rows, shape));
  const Partial parts[] = {
      partial, PartialBuffer::over(memory.data(), q.n_rows, shape.n_heads, shape.head_dim)};
  const Merge step{0, 1};
  for_each_input(q, wide.segments(), shape, [&](const kernels::AttentionInput& input) {
    attend_to(input, product, parts[1]);
    merge_all(parts, {&step, 1}, shape);
  });
}

void Attention::attend_alone(Rows q, std::span<const KvSegment> segments,
                             const AttentionShape& shape, Product product, Partial partial) {
  const WideSegments wide(device_, segments, shape);
  for_each_input(q, wide.segments(), shape,
                 [&](const kernels::AttentionInput& input) { attend_to(input, product, partial); });
}

void Attention::attend_blocks(Rows q, std::span<const KvSegment> blocks,
                              const AttentionShape& shape, std::span<const Merge> merges,
                              std::span<const Partial> parts) {
  STARATTN_CHECK(parts.size() == blocks.size());
  std::optional<WideSegments> wide;
  if (!kernels::takes_hopper_kernels()) blocks = wide.emplace(device_, blocks, shape).segments();
  const std::vector<kernels::Merge> steps = as_kernel(merges);
  std::vector<kernels::Partial> results;
  for (const Partial& part : parts) results.push_back(as_kernel(part));
  for (const Merge& step : merges) results[static_cast<std::size_t>(step.from)] = {};
  const kernels::PartsSend to = mail_.parts.take(parts.empty() ? nullptr : parts[0].o);
  for_each_input(q, blocks, shape, [&](kernels::AttentionInput input) {
    input.are_keys_at_rest = true;
    const Buffer workspace = device_.scratch(kernels::block_attention_workspace(input));
    kernels::block_attention(input, steps.data(), static_cast<int>(steps.size()), results.data(),
                             workspace.data(), stream(), to);
  });
}

void Attention::attend_all(Rows q, std::span<const KvSegment> segments, const AttentionShape& shape,
                           Rows out) {
  const WideSegments wide(device_, segments, shape);
  for_each_input(q, wide.segments(), shape, [&](const kernels::AttentionInput& input) {
    kernels::prefill_attention(input, {out.data, nullptr, {}}, stream());
  });
}

void Attention::attend_from(Rows q, const KvSegment& segment, std::span<const std::int64_t> first,
                            const AttentionShape& shape, Partial partial) {
  STARATTN_CHECK(std::ssize(first) == q.n_rows && partial.n_rows == q.n_rows);
  const WideSegments wide(device_, {&segment, 1}, shape);
  const KvSegment& tail = wide.segments()[0];
  kernels::attend_tail(q.data, {tail.k, tail.v, tail.n_tokens}, first.data(), q.n_rows,
                       as_kernel(shape), scale_of(shape), as_kernel(partial), stream());
}

void Attention::attend_blocks_and_own(Rows q, Rows k, Rows v, std::span<const KvSegment> blocks,
                                      const PartialTree& context, std::span<const OwnTokens> own,
                                      const AttentionShape& shape, Rows out) {
  STARATTN_CHECK(context.parts.size() == blocks.size());
  std::optional<WideSegments> wide;
  if (!kernels::takes_hopper_kernels()) blocks = wide.emplace(device_, blocks, shape).segments();
  const std::vector<kernels::Merge> steps = as_kernel(context.merges);
  for_each_input(q, blocks, shape, [&](kernels::AttentionInput input) {
    input.are_keys_at_rest = true;
    const Buffer workspace = device_.scratch(kernels::block_attention_workspace(input));
    const kernels::MergeTask task = kernels::block_splits(
        input, steps.data(), static_cast<int>(steps.size()), workspace.data(), stream());
    attend_own(q, k, v, own, shape, task, context.root, out);
  });
}

void Attention::attend_own(Rows q, Rows k, Rows v, std::span<const OwnTokens> own,
                           const AttentionShape& shape, const PartialTree& context, Rows out) {
  STARATTN_CHECK(takes(context.parts.size()) && takes(context.merges.size()));
  kernels::Partial parts[kMostParts];
  for (std::size_t i = 0; i < context.parts.size(); ++i) {
    STARATTN_CHECK(context.parts[i].n_rows == q.n_rows);
    parts[i] = as_kernel(context.parts[i]);
  }
  const std::vector<kernels::Merge> steps = as_kernel(context.merges);
  const kernels::MergeTask task = kernels::parts_to_merge(
      parts, static_cast<int>(context.parts.size()), steps.data(), static_cast<int>(steps.size()));
  attend_own(q, k, v, own, shape, task, context.root, out, mail_.parts.take_awaited(parts[0].o));
}

void Attention::attend_own(Rows q, Rows k, Rows v, std::span<const OwnTokens> own,
                           const AttentionShape& shape, const kernels::MergeTask& context,
                           std::size_t root, Rows out, const kernels::AwaitedParts& awaited) {
  STARATTN_CHECK(std::ssize(own) == q.n_rows);
  std::vector<kernels::OwnTokens> rows;
  for (const OwnTokens& row : own)
    rows.push_back({row.k, row.v, static_cast<int>(row.n_before), static_cast<int>(row.n_beside)});
  kernels::attend_own_tokens(q.data, k.data, v.data, rows.data(), q.n_rows, as_kernel(shape),
                             scale_of(shape), context, static_cast<int>(root), out.data, stream(),
                             mail_.out.take(out.data), awaited);
}

void Attention::clear(Partial partial, const AttentionShape& shape) {
  kernels::clear_partial(partial.o, partial.m, partial.l, partial.n_rows * shape.n_heads,
                         static_cast<int>(shape.head_dim), stream());
}

void Attention::merge_all(std::span<const Partial> parts, std::span<const Merge> merges,
                          const AttentionShape& shape) {
  if (merges.empty()) return;
  kernels::Partial converted[kMostParts];
  for (std::size_t i = 0; i < parts.size(); ++i) {
    STARATTN_CHECK(parts[i].n_rows == parts[0].n_rows);
    converted[i] = as_kernel(parts[i]);
  }
  const std::vector<kernels::Merge> steps = as_kernel(merges);
  kernels::merge_partials(converted, static_cast<int>(parts.size()), steps.data(),
                          static_cast<int>(steps.size()), parts[0].n_rows, as_kernel(shape),
                          stream());
}

void Attention::finish(Partial partial, const AttentionShape& shape, Rows out) {
  STARATTN_CHECK(out.width == shape.n_heads * shape.head_dim && out.n_rows == partial.n_rows);
  kernels::finish_partial(as_kernel(partial), partial.n_rows, as_kernel(shape), out.data, stream());
}

void Attention::finish_merged(Partial a, Partial b, const AttentionShape& shape, Rows out) {
  STARATTN_CHECK(out.width == shape.n_heads * shape.head_dim && out.n_rows == a.n_rows &&
                 a.n_rows == b.n_rows);
  kernels::finish_merged(as_kernel(a), as_kernel(b), a.n_rows, as_kernel(shape), out.data,
                         stream());
}

}  // namespace starattn::cuda
