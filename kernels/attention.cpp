// SPDX-License-Identifier: Apache-2.0
// Checks shapes on the host, then hands over to the kernels that fit the device.
#include "attention.h"

#include <cuda_runtime.h>

#include <algorithm>
#include <cstdlib>
#include <string_view>

#include "attention_f8.h"
#include "attention_merge.h"
#include "attention_sm80.h"
#include "attention_sm90.h"
#include "cuda_check.h"

namespace starattn::kernels {
namespace {

std::string text(const AttentionShape& shape) {
  return std::to_string(shape.n_heads) + " heads, " + std::to_string(shape.n_kv_heads) +
         " kv heads, head_dim " + std::to_string(shape.head_dim);
}

void require(bool condition, const std::string& message) {
  if (!condition) throw BadShape("attention: " + message);
}

bool aligned(const void* pointer) {
  return reinterpret_cast<std::uintptr_t>(pointer) % 16 == 0;
}

void check_input(const AttentionInput& in) {
  check_shape(in.shape);
  constexpr std::int64_t kMost = 1 << 30;  // tokens; indices are 32 bits
  require(in.n_rows >= 0 && in.n_rows <= kMost,
          "query rows must be 0 to 2^30; got " + std::to_string(in.n_rows));
  const std::int64_t width = static_cast<std::int64_t>(in.shape.n_heads) * in.shape.head_dim;
  require(in.q_row_stride >= width && in.q_row_stride % 8 == 0,
          "query rows of " + std::to_string(width) + " elements cannot lie " +
              std::to_string(in.q_row_stride) + " apart (at least the width, a multiple of 8)");
  require(in.n_rows == 0 || (in.q && aligned(in.q)), "q must be 16-byte aligned device memory");
  require(in.n_segments >= 0 && in.n_segments <= kMaxSegments,
          "at most " + std::to_string(kMaxSegments) + " segments; got " +
              std::to_string(in.n_segments));
  std::int64_t n_keys = 0;
  for (int i = 0; i < in.n_segments; ++i) {
    const KvSegment& segment = in.segments[i];
    require(segment.n_tokens >= 0 && segment.n_tokens <= kMost,
            "segment " + std::to_string(i) + " has " + std::to_string(segment.n_tokens) +
                " tokens; 0 to 2^30 are possible");
    require(segment.n_tokens == 0 ||
                (segment.k && segment.v && aligned(segment.k) && aligned(segment.v)),
            "k and v of segment " + std::to_string(i) + " must be 16-byte aligned device memory");
    n_keys += segment.n_tokens;
  }
  require(n_keys <= kMost, "more than 2^30 keys: " + std::to_string(n_keys));
}

// With kernels of its own: they are compiled for 90a alone.
bool on_hopper() {
#ifdef STARATTN_HOPPER_KERNELS
  return device_attribute(cudaDevAttrComputeCapabilityMajor, "attention: device") == 9;
#else
  return false;
#endif
}

// Enough splits to fill a large GPU whatever it is: the bounds must not depend on it.
KeySplits splits_of(const KvSegment* segments, int n_segments, const AttentionShape& shape) {
  std::int64_t n_tiles = 0;
  for (int i = 0; i < n_segments; ++i)
    n_tiles += (segments[i].n_tokens + kKeysPerTile - 1) / kKeysPerTile;
  const std::int64_t most = std::max(1, 128 / shape.n_kv_heads);
  const std::int64_t per_split = std::max<std::int64_t>(2, (n_tiles + most - 1) / most);
  KeySplits splits;
  splits.n_splits =
      static_cast<int>(std::max<std::int64_t>(1, (n_tiles + per_split - 1) / per_split));
  splits.tiles_per_split = static_cast<int>(per_split);
  return splits;
}

KeyCut cut_into(const KeySplits* blocks, int n_blocks, const AttentionInput& in) {
  KeyCut cut{blocks, n_blocks};
  cut.in_pairs = takes_hopper_kernels() && !in.is_f8 && take_splits_in_pairs(in, cut);
  return cut;
}

// Partials that come of one block's splits.
int n_partials(const KeySplits& splits, const KeyCut& cut) {
  return cut.in_pairs ? (splits.n_splits + 1) / 2 : splits.n_splits;
}

void attend(const AttentionInput& in, const AttentionOutput& out, const KeyCut& cut,
            Stream stream) {
  require(are_whole(cut.blocks[0]) || !has_edges(in), "phase 2 takes no windows: cut the keys");
  if (in.is_f8 && are_for_teams(in, cut))
    attention_f8(in, out, cut, stream);
  else if (takes_hopper_kernels())
    attention_sm90(in, out, cut, stream);
  else
    attention_sm80(in, out, cut, stream);
}

// The partials of all splits, one after another in `workspace`: o, then m, then l.
Partial workspace_partial(void* workspace, std::int64_t n_values, int head_dim) {
  auto* o = static_cast<float*>(workspace);
  return {o, o + n_values * head_dim, o + n_values * (head_dim + 1)};
}

// From the value row `first` on.
Partial part_from(const Partial& partial, std::int64_t first, int head_dim) {
  return {partial.o + first * head_dim, partial.m + first, partial.l + first};
}

bool is_whole(const Partial& partial) {
  return partial.o && partial.m && partial.l;
}
bool is_absent(const Partial& partial) {
  return !partial.o && !partial.m && !partial.l;
}

// The merges of n_items items, whose memory is left to the caller.
MergeTask merge_task(int n_items, const Merge* merges, int n_merges) {
  require(n_items >= 0 && n_items <= kMaxSegments && n_merges >= 0 && n_merges <= kMaxSegments,
          "at most " + std::to_string(kMaxSegments) + " partials and merges; got " +
              std::to_string(n_items) + " and " + std::to_string(n_merges));
  MergeTask task;
  task.n_items = n_items;
  task.n_merges = n_merges;
  for (int i = 0; i < n_merges; ++i) {
    const Merge& merge = merges[i];
    require(merge.into >= 0 && merge.into < n_items && merge.from >= 0 && merge.from < n_items &&
                merge.into != merge.from,
            "partial " + std::to_string(merge.from) + " of " + std::to_string(n_items) +
                " cannot be merged into " + std::to_string(merge.into));
    task.merges[i] = merge;
  }
  return task;
}

void merge_rows(const MergeTask& task, std::int64_t n_rows, const AttentionShape& shape,
                Stream stream, const PartsSend& to = {}) {
  constexpr std::int64_t kMost = (std::int64_t{1} << 31) - 1;  // blocks of a grid, one each
  const std::int64_t most_rows = kMost / shape.n_heads;
  require(n_rows >= 0 && n_rows <= most_rows, "rows to merge must be 0 to " +
                                                  std::to_string(most_rows) + "; got " +
                                                  std::to_string(n_rows));
  merge_items(task, n_rows * shape.n_heads, shape.head_dim, stream, to);
}

std::size_t splits_bytes(const AttentionInput& in, std::int64_t n_splits) {
  return static_cast<std::size_t>(n_splits * in.n_rows * in.shape.n_heads *
                                  (in.shape.head_dim + 2)) *
         sizeof(float);
}

}  // namespace

void check_shape(const AttentionShape& shape) {
  require(shape.head_dim == 64 || shape.head_dim == 128,
          "head_dim must be 64 or 128; got " + text(shape));
  require(shape.n_kv_heads > 0 && shape.n_heads > 0 && shape.n_heads % shape.n_kv_heads == 0,
          "heads must be a multiple of kv heads; got " + text(shape));
  require(shape.n_heads / shape.n_kv_heads <= 64,
          "at most 64 heads may share a kv head; got " + text(shape));
}

bool takes_hopper_kernels() {
  const char* wish_text = std::getenv("STARATTN_KERNELS");
  const std::string_view wish = wish_text ? wish_text : "";
  if (!wish.empty() && wish != "sm80" && wish != "sm90")
    throw std::invalid_argument("STARATTN_KERNELS: expected sm80 or sm90, got '" +
                                std::string(wish) + "'");
  const bool hopper = on_hopper();
  if (wish == "sm90" && !hopper)
    throw std::invalid_argument(
        "STARATTN_KERNELS=sm90: the GPU is not of the Hopper generation, or the build is not for "
        "90a; unset it or use sm80");
  return hopper && wish != "sm80";
}

void prefill_attention(const AttentionInput& in, const AttentionOutput& out, Stream stream) {
  check_input(in);
  require(!in.is_f8, "FP8 keys are for blocks of keys");
  const Partial& partial = out.partial;
  require(is_whole(partial) || is_absent(partial), "a partial needs o, m and l");
  const KeySplits whole;
  if (in.n_rows > 0) attend(in, out, {&whole, 1}, stream);
}

std::size_t partial_attention_workspace(const AttentionInput& in) {
  check_input(in);
  return splits_bytes(in, splits_of(in.segments, in.n_segments, in.shape).n_splits);
}

void partial_attention(const AttentionInput& in, const Partial& result, void* workspace,
                       Stream stream) {
  check_input(in);
  require(!in.is_f8, "FP8 keys are for blocks of keys");
  require(is_whole(result), "a partial needs o, m and l");
  if (in.n_rows == 0) return;
  const KeySplits splits = splits_of(in.segments, in.n_segments, in.shape);
  require(workspace, "partial attention needs its workspace");
  const std::int64_t n_values = in.n_rows * in.shape.n_heads;
  const KeyCut cut = cut_into(&splits, 1, in);
  const int n_parts = n_partials(splits, cut);
  const Partial parts = workspace_partial(workspace, n_values * n_parts, in.shape.head_dim);
  attend(in, {nullptr, nullptr, parts}, cut, stream);
  MergeTask task;
  task.in_pairs = cut.in_pairs;
  task.items[task.n_items++] = {parts, n_parts, result};
  merge_rows(task, in.n_rows, in.shape, stream);
}

std::size_t block_attention_workspace(const AttentionInput& in) {
  check_input(in);
  std::int64_t n_splits = 0;
  for (int i = 0; i < in.n_segments; ++i)
    n_splits += splits_of(in.segments + i, 1, in.shape).n_splits;
  return splits_bytes(in, n_splits);
}

MergeTask block_splits(const AttentionInput& in, const Merge* merges, int n_merges, void* workspace,
                       Stream stream) {
  check_input(in);
  require(!in.causal, "blocks beside each other cannot be causal");
  require(!in.is_f8 || takes_hopper_kernels(), "FP8 keys need Hopper's kernels");
  MergeTask task = merge_task(in.n_segments, merges, n_merges);
  if (in.n_rows == 0 || in.n_segments == 0) return task;
  require(workspace, "block attention needs its workspace");
  KeySplits splits[kMaxSegments];
  for (int i = 0; i < in.n_segments; ++i) splits[i] = splits_of(in.segments + i, 1, in.shape);
  const KeyCut cut = cut_into(splits, in.n_segments, in);
  std::int64_t n_parts = 0;
  for (int i = 0; i < in.n_segments; ++i) n_parts += n_partials(splits[i], cut);
  const std::int64_t n_values = in.n_rows * in.shape.n_heads;
  const Partial parts = workspace_partial(workspace, n_values * n_parts, in.shape.head_dim);
  task.in_pairs = cut.in_pairs;
  std::int64_t first = 0;
  for (int i = 0; i < in.n_segments; ++i) {
    const int n_own = n_partials(splits[i], cut);
    task.items[i] = {part_from(parts, first * n_values, in.shape.head_dim), n_own, {}};
    first += n_own;
  }
  attend(in, {nullptr, nullptr, parts}, cut, stream);
  return task;
}

void block_attention(const AttentionInput& in, const Merge* merges, int n_merges,
                     const Partial* results, void* workspace, Stream stream, const PartsSend& to) {
  for (int i = 0; i < in.n_segments; ++i)
    require(is_whole(results[i]) || is_absent(results[i]), "a partial needs o, m and l");
  MergeTask task = block_splits(in, merges, n_merges, workspace, stream);
  for (int i = 0; i < in.n_segments; ++i) task.items[i].result = results[i];
  if (to.n_ranks > 0) {
    require(to.n_ranks <= kMostPeers + 1 && to.first_head[0] == 0 &&
                to.first_head[to.n_ranks] == in.shape.n_heads &&
                std::is_sorted(to.first_head, to.first_head + to.n_ranks + 1),
            "partials for other devices: their heads must be those of a row, in order");
  }
  if (in.n_rows > 0 && in.n_segments > 0) merge_rows(task, in.n_rows, in.shape, stream, to);
}

MergeTask parts_to_merge(const Partial* parts, int n_parts, const Merge* merges, int n_merges) {
  MergeTask task = merge_task(n_parts, merges, n_merges);
  for (int i = 0; i < n_parts; ++i) {
    require(is_whole(parts[i]) && aligned(parts[i].o),
            "a partial needs o, 16-byte aligned, m and l");
    task.items[i] = {parts[i], 1, {}};
  }
  return task;
}

void merge_partials(const Partial* parts, int n_parts, const Merge* merges, int n_merges,
                    std::int64_t n_rows, const AttentionShape& shape, Stream stream) {
  check_shape(shape);
  MergeTask task = parts_to_merge(parts, n_parts, merges, n_merges);
  for (int i = 0; i < n_parts; ++i) task.items[i].result = parts[i];
  for (int i = 0; i < n_merges; ++i) task.items[merges[i].from].result = {};
  if (n_rows != 0 && n_parts > 0) merge_rows(task, n_rows, shape, stream);
}

void finish_partial(const Partial& partial, std::int64_t n_rows, const AttentionShape& shape,
                    void* out, Stream stream) {
  check_shape(shape);
  require(partial.o && partial.l && out, "finishing needs o, l and the output");
  if (n_rows > 0) finish_rows(partial, n_rows * shape.n_heads, shape.head_dim, out, stream);
}

void finish_merged(const Partial& a, const Partial& b, std::int64_t n_rows,
                   const AttentionShape& shape, void* out, Stream stream) {
  check_shape(shape);
  require(is_whole(a) && is_whole(b) && out, "finishing needs two partials and the output");
  if (n_rows > 0) finish_merged_rows(a, b, n_rows * shape.n_heads, shape.head_dim, out, stream);
}

}  // namespace starattn::kernels
