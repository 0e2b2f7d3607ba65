// SPDX-License-Identifier: Apache-2.0
// Phase 1, context encoding (Star Attention, arXiv 2411.17116, section 2.1): every context token's
// K and V, each held once, by the owner of its block. Block 0 is encoded causally; block i attends
// to the anchor, to the `reach` blocks before it, and causally to itself, at the tokens' own
// positions; with recall also to the earlier tokens that its rows choose (docs/recall.md). In a
// layer with a window a row attends to the last tokens before it, whichever blocks they are of, and
// to nothing else.
//
// The anchor is computed once: attention is causal and the anchor comes first, so its K and V are
// the first entries of block 0's own. AnchorMode::recompute is the published way, the anchor
// encoded again in front of every block.
#pragma once

#include <array>
#include <functional>
#include <map>
#include <optional>
#include <span>

#include "exchange/group_channel.h"
#include "model/decoder.h"
#include "mpi/communicator.h"
#include "star/kv.h"
#include "star/kv_check.h"
#include "star/kv_double_buffer.h"
#include "star/plan.h"

namespace starattn {

struct EncodeOptions {
  AnchorMode anchor_mode = AnchorMode::broadcast;
  KvMemory kv_memory = KvMemory::device;  // where the blocks go
  std::function<void()> poll = [] {};     // called every chunk of rows
  std::function<void(BlockId, const KvCache&)> block_done = [](BlockId, const KvCache&) {};
  // Asked with reach = 0 before each of this rank's blocks but its first, on which others may wait
  // for their anchor: true ends it, and what remains is not computed. Each rank decides for itself.
  std::function<bool()> stop = [] { return false; };
};

class AnchorBroadcast;
class RecallExchange;

class Encoder {
 public:
  // All ranks of `group` encode together, one document after another. Arguments must outlive the
  // encoder.
  Encoder(Decoder& decoder, const Communicator& group);

  // context: the whole document's tokens, on every rank. loaded: own blocks that a checkpoint
  // already held; they are kept as they are. Collective over the group. Throws
  // AgreedError(bad_data) naming the first layer where values overflow; such a block is not done.
  DocumentKv encode(const BlockPlan& plan, std::span<const Token> context,
                    EncodeOptions options = {}, std::map<BlockId, KvCache> loaded = {});

 private:
  struct Chunk;      // rows that go through a layer together: a fixed piece of one block
  struct WaveBlock;  // a block that advances with those of other ranks
  struct WaveExchanges;
  struct FinishedKeys;

  // This rank's blocks that are still to be computed, ascending.
  std::vector<BlockId> own_blocks(const BlockPlan& plan, const std::vector<bool>& computing) const;
  // Where an own block's K and V go. Its memory is made at the first call, which the host makes for
  // a block while the device is at work on the one before: to pin memory takes seconds.
  KvCache& cache_of(DocumentKv& kv, BlockId i) const;

  // reach = 0: block by block, so that a finished block can be saved.
  void encode_star(DocumentKv& kv, std::span<const Token> context,
                   const std::vector<bool>& computing);
  // reach > 0: a rank's blocks advance together, layer by layer.
  void encode_reach(DocumentKv& kv, std::span<const Token> context,
                    const std::vector<bool>& computing);

  // With recall or windows: in waves of a block a rank, layer by layer. A wave can be saved.
  void encode_waves(DocumentKv& kv, std::span<const Token> context,
                    const std::vector<bool>& computing);
  // block: this rank's of the wave, or null; the rank answers others in any case.
  void encode_wave(const DocumentKv& kv, WaveBlock* block, WaveExchanges& exchanges,
                   const std::function<KvSegment(std::int64_t layer)>& anchor,
                   const std::function<void(std::int64_t layer)>& layer_done);
  void project(WaveBlock& block, std::int64_t layer, bool keys_and_values_only);
  void recall_layer(const DocumentKv& kv, const WaveBlock* block, std::int64_t layer,
                    const KvSegment& before, const FinishedKeys& finished,
                    RecallExchange& exchange);
  void ask(const WaveBlock& block, std::int64_t layer, const KvSegment& before,
           RecallExchange& exchange);
  // Rows from `first` on, until at least `end` have attended; returns how many have.
  std::int64_t attend_before_and_own(const WaveBlock& block, std::int64_t layer,
                                     const KvSegment& before, std::int64_t first, std::int64_t end);
  void finish_layer(const WaveBlock& block, std::int64_t layer, const KvSegment& before,
                    const KvSegment& recalled);

  // What n rows of a block from first_blk on attend to in a layer: what stands `before` the block,
  // and the block as far as it is made. The next call makes another of it.
  std::span<const KvSegment> seen(std::int64_t layer, const KvSegment& before,
                                  const KvDoubleBuffer& block_kv, std::int64_t first_blk,
                                  std::int64_t n);

  // out = attention of a chunk's q over the segments, and its sinks.
  void attend_whole(std::int64_t layer, Rows q, std::span<const KvSegment> segments, Rows out);

  // Where several ranks need the anchor and it is not recomputed.
  std::optional<AnchorBroadcast> start_broadcast(const BlockPlan& plan,
                                                 const std::vector<bool>& computing);
  // Of the first `end` layers, those without a window.
  std::int64_t n_full_layers(std::int64_t end) const;
  void send_anchor(AnchorBroadcast& broadcast, std::int64_t layer, const KvCache& block_0);

  // block_done, unless values of the block overflow.
  void end_block(BlockId i, const KvCache& cache, const KvCheck& check);
  // Every rank throws for the first layer where one had an overflow.
  void refuse_overflow(const BlockPlan& plan) const;

  // Keys and values of rows x, tokens from first_blk on, into block_kv, and what they ask into q
  // unless that is null. The check sees them.
  void project_rows(std::int64_t layer, Rows x, const Angles& angles, const Rows* q,
                    std::int64_t first_blk, const KvDoubleBuffer& block_kv, KvCheck& check);
  // Encodes `tokens` at first_doc.. causally after anchor(layer), into the layers that `out` has.
  KvCheck encode_rows(std::span<const Token> tokens, std::int64_t first_doc,
                      const std::function<KvSegment(std::int64_t layer)>& anchor, KvCache& out,
                      const std::function<void(std::int64_t layer)>& layer_done);
  GroupChannel& channel();  // collective at its first call
  Partial partial_of_chunk(std::int64_t n_rows);

  Decoder* decoder_;
  Backend* backend_;
  const Communicator* group_;
  EncodeOptions options_;                                 // of the document in work
  std::optional<std::pair<BlockId, Overflow>> overflow_;  // this rank's first
  std::int64_t chunk_rows_;
  RowBuffer q_, attended_;                  // [chunk_rows, ...]
  RowBuffer k_, v_;                         // the same where they are not made in their place
  std::optional<GroupChannel> channel_;     // from the first document that needs it on
  std::optional<Communicator> wave_group_;  // its messages meet no others
  std::optional<GroupChannel> wave_channel_;
  std::array<KvSegment, 2> seen_;
  std::optional<PartialBuffer> partial_;  // [chunk_rows, n_heads, head_dim], once it is needed
};

}  // namespace starattn
