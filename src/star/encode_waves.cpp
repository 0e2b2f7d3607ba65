// SPDX-License-Identifier: Apache-2.0
// Phase 1 with recall (docs/recall.md) or with layers that have windows. Blocks advance in waves,
// one a rank; within a wave all go through a layer together, because a block asks the keys of every
// earlier block in the same layer, and sees the last of them through a window. Earlier waves are
// finished and may be saved.
//
// A block's own attention hides the exchange of recall: rows ask before it, and what they recalled
// is merged last. The order of segments is the same on any number of ranks, one included.
#include <algorithm>
#include <optional>
#include <vector>

#include "exchange/anchor_broadcast.h"
#include "star/encode.h"
#include "star/halo_exchange.h"
#include "star/kv_prefetch.h"
#include "star/recall_choice.h"
#include "star/recall_exchange.h"
#include "trace/range.h"

namespace starattn {
namespace {

// Rows that attend together: small enough to answer others between two of them.
constexpr std::int64_t kMostAttendingRows = 4096;

}  // namespace

// What goes between the blocks of a wave, if there is any.
struct Encoder::WaveExchanges {
  std::optional<RecallExchange> recall;
  std::optional<HaloExchange> halo;
};

// Keys of this rank's finished blocks in one layer.
struct Encoder::FinishedKeys {
  std::span<const BlockId> blocks;
  std::span<const KvSegment> keys;
};

// This rank's block of a wave on its way through the layers.
struct Encoder::WaveBlock {
  WaveBlock(Encoder& encoder, const BlockPlan& plan, BlockId block, KvCache& cache,
            std::span<const Token> context)
      : id(block),
        n_rows(plan.block(block).n_tokens),
        n_asking(plan.n_asking_rows(block)),
        kv(*encoder.backend_, cache),
        check(*encoder.backend_, cache.n_layers()),
        rope(encoder.decoder_->rope_table(plan.block(block).first_doc, n_rows)),
        x(*encoder.backend_, n_rows, encoder.decoder_->config().hidden_size),
        q(*encoder.backend_, n_rows, encoder.decoder_->config().q_width()) {
    const TokenRange range = plan.block(block);
    encoder.decoder_->embed(context.subspan(static_cast<std::size_t>(range.first_doc),
                                            static_cast<std::size_t>(range.n_tokens)),
                            x.rows(n_rows));
    if (n_asking == 0) return;
    Backend& backend = *encoder.backend_;
    partial = PartialBuffer(backend, n_rows, encoder.decoder_->attention_shape());
    asking_rows = backend.allocate(static_cast<std::size_t>(n_asking) * sizeof(std::int32_t));
    asking_q = RowBuffer(backend, n_asking, encoder.decoder_->config().q_width());
    std::vector<std::int32_t> rows;
    for (std::int64_t row = 0; row < n_rows; row += kSampleStride)
      rows.push_back(static_cast<std::int32_t>(row));
    n_sampled = std::ssize(rows);
    sample = backend.allocate(rows.size() * sizeof(std::int32_t));
    backend.upload_later(std::as_bytes(std::span(rows)), sample.data());
    sampled_keys =
        backend.allocate(static_cast<std::size_t>(n_sampled) *
                         backend.kv_layout(encoder.decoder_->attention_shape()).row_bytes());
    z = backend.allocate(static_cast<std::size_t>(n_asking * encoder.decoder_->config().n_heads) *
                         sizeof(float));
  }

  BlockId id;
  std::int64_t n_rows;
  std::int64_t n_asking;  // 0: it recalls nothing
  KvDoubleBuffer kv;
  KvCheck check;
  RopeTable rope;
  RowBuffer x, q;
  PartialBuffer partial;  // over anchor and block, while the recalled keys are on their way
  Buffer asking_rows;     // int32 [n_asking]
  RowBuffer asking_q;
  std::int64_t n_sampled = 0;  // own keys
  Buffer sample;               // int32 [n_sampled]: their rows
  Buffer sampled_keys;
  Buffer z;  // fp32 [n_asking, n_heads]
};

void Encoder::encode_waves(DocumentKv& kv, std::span<const Token> context,
                           const std::vector<bool>& computing) {
  const BlockPlan& plan = kv.plan;
  const ModelConfig& config = decoder_->config();
  const std::int64_t n_layers = config.n_layers;
  STARATTN_CHECK(plan.placement() == Placement::round_robin || plan.n_ranks() == 1);
  const auto is_computed = [&](BlockId i) { return computing[static_cast<std::size_t>(i)]; };
  std::optional<AnchorBroadcast> broadcast = start_broadcast(plan, computing);
  if (group_->size() > 1 && !wave_channel_) {
    wave_group_.emplace(group_->split(0));
    wave_channel_.emplace(*wave_group_, wave_group_->split_by_node(), *backend_);
  }
  Channel* channel = wave_channel_ ? &*wave_channel_ : nullptr;
  WaveExchanges exchanges;
  const auto poll_broadcast = [&] {
    if (broadcast) broadcast->poll();
  };
  if (plan.recall() > 0) {
    exchanges.recall.emplace(*group_, channel, *backend_, plan, decoder_->attention_shape(),
                             poll_broadcast);
  }
  if (config.widest_window() > 0) {
    exchanges.halo.emplace(*group_, channel, *backend_, plan, decoder_->attention_shape(),
                           config.widest_window(), poll_broadcast);
    options_.poll = [&, outer = options_.poll] {
      exchanges.halo->poll();
      outer();
    };
  }
  const bool is_root = group_->rank() == plan.owner(0);
  if (broadcast && is_root && !computing[0]) {
    for (std::int64_t layer = 0; layer < n_layers; ++layer)
      send_anchor(*broadcast, layer, kv.blocks.at(0));
  }
  std::optional<KvPrefetch> own_anchor;  // on block 0's owner, once that is finished
  const std::vector<BlockId> own_to_compute = own_blocks(plan, computing);
  bool is_first = true;
  for (BlockId first = 0; first < plan.n_blocks(); first += plan.n_ranks()) {
    const BlockId end = std::min<BlockId>(plan.n_blocks(), first + plan.n_ranks());
    std::vector<BlockId> wave;
    for (BlockId i = first; i < end; ++i)
      if (is_computed(i)) wave.push_back(i);
    if (wave.empty()) continue;
    if (!std::exchange(is_first, false) && group_->any(options_.stop())) break;

    const BlockId own = first + group_->rank();
    std::optional<WaveBlock> block;
    if (own < end && is_computed(own)) block.emplace(*this, plan, own, cache_of(kv, own), context);
    const auto anchor = [&](std::int64_t layer) -> KvSegment {
      const std::int64_t n_anchor = plan.anchor_of(own).n_tokens;
      if (n_anchor == 0) return {};
      if (!is_root) return broadcast->wait(n_full_layers(layer));
      if (!own_anchor)
        own_anchor.emplace(*backend_, std::vector{KvPrefetch::Source{&kv.blocks.at(0), n_anchor}},
                           n_layers - 1);
      return own_anchor->layer(layer).front();
    };
    const auto layer_done = [&](std::int64_t layer) {
      // The other ranks wait for the anchor.
      if (broadcast && own == 0) send_anchor(*broadcast, layer, kv.blocks.at(0));
      const auto next = std::ranges::upper_bound(own_to_compute, own);
      if (layer + 1 == n_layers && next != own_to_compute.end()) cache_of(kv, *next);
    };
    if (exchanges.recall) exchanges.recall->start_wave(wave);
    if (exchanges.halo) exchanges.halo->start_wave(wave);
    encode_wave(kv, block ? &*block : nullptr, exchanges, anchor, layer_done);
    if (broadcast) broadcast->finish();
    backend_->synchronize(options_.poll);
    if (block) end_block(own, kv.blocks.at(own), block->check);
  }
}

void Encoder::encode_wave(const DocumentKv& kv, WaveBlock* block, WaveExchanges& exchanges,
                          const std::function<KvSegment(std::int64_t layer)>& anchor,
                          const std::function<void(std::int64_t layer)>& layer_done) {
  const ModelConfig& config = decoder_->config();
  // The keys of this rank's finished blocks, layer by layer; their values stay where they are.
  std::vector<BlockId> finished;
  std::vector<KvPrefetch::Source> sources;
  for (const auto& [i, cache] : kv.blocks) {
    if (!exchanges.recall || (block && i >= block->id)) break;
    finished.push_back(i);
    sources.push_back({&cache, cache.n_tokens()});
  }
  KvPrefetch earlier(*backend_, std::move(sources), config.n_layers - 1, KvPrefetch::What::keys);

  for (std::int64_t layer = 0; layer < config.n_layers; ++layer) {
    const trace::Range range("layer", trace::Lane::host,
                             {.block = block ? block->id : -1, .layer = layer});
    const bool keys_and_values_only = layer + 1 == config.n_layers;
    if (block) {
      project(*block, layer, keys_and_values_only);
      block->kv.store(layer);
      layer_done(layer);
    }
    if (keys_and_values_only) break;

    if (config.has_window(layer)) {
      exchanges.halo->start_layer(kv, layer, config.layer(layer).window);
      if (block) finish_layer(*block, layer, exchanges.halo->halo(), {});
      continue;
    }
    // The anchor first: behind the keys' fetch for the next layer it would wait for all of them.
    const KvSegment before = block ? anchor(layer) : KvSegment{};
    if (exchanges.recall) {
      recall_layer(kv, block, layer, before, {finished, earlier.layer(layer)}, *exchanges.recall);
    } else if (block) {
      finish_layer(*block, layer, before, {});
    }
  }
  if (exchanges.recall) exchanges.recall->finish_wave();
  if (exchanges.halo) exchanges.halo->finish_wave();
  if (block) block->kv.finish();
}

void Encoder::recall_layer(const DocumentKv& kv, const WaveBlock* block, std::int64_t layer,
                           const KvSegment& before, const FinishedKeys& finished,
                           RecallExchange& exchange) {
  const std::size_t row_bytes = backend_->kv_layout(decoder_->attention_shape()).row_bytes();
  const auto keys = [&](BlockId i) -> RawRows {
    if (block && i == block->id) return block->kv.k_rows(layer, 0, block->n_rows);
    const auto at =
        static_cast<std::size_t>(std::ranges::find(finished.blocks, i) - finished.blocks.begin());
    const KvSegment& segment = finished.keys[at];
    return {const_cast<std::byte*>(segment.k), segment.n_tokens, row_bytes};
  };
  const auto values = [&](BlockId i) -> RawRows {
    if (block && i == block->id) return block->kv.v_rows(layer, 0, block->n_rows);
    const KvCache& cache = kv.blocks.at(i);
    return cache.v_rows(layer, 0, cache.n_tokens());
  };

  const std::int64_t n_rows = block && block->n_asking > 0 ? block->n_rows : 0;
  if (n_rows > 0) ask(*block, layer, before, exchange);
  std::int64_t n_attended = 0;
  const auto attend_until = [&](std::int64_t end) {
    if (n_rows > 0) n_attended = attend_before_and_own(*block, layer, before, n_attended, end);
  };
  attend_until(n_rows / 3);
  exchange.answer(keys);
  attend_until(2 * n_rows / 3);
  exchange.choose();
  exchange.hand_over(keys, values);
  attend_until(n_rows);
  const KvSegment recalled = exchange.recalled();
  if (block) finish_layer(*block, layer, before, recalled);
}

void Encoder::project(WaveBlock& block, std::int64_t layer, bool keys_and_values_only) {
  for (std::int64_t first = 0; first < block.n_rows; first += chunk_rows_) {
    const std::int64_t n = std::min(chunk_rows_, block.n_rows - first);
    const Rows q = block.q.rows(first, n);
    project_rows(layer, block.x.rows(first, n),
                 block.rope.angles(decoder_->config().layer(layer), first),
                 keys_and_values_only ? nullptr : &q, first, block.kv, block.check);
    options_.poll();
  }
}

void Encoder::ask(const WaveBlock& block, std::int64_t layer, const KvSegment& before,
                  RecallExchange& exchange) {
  const trace::Range range("recall: ask");
  const KvSegment own = block.kv.segment(layer, block.n_rows);
  auto* rows = reinterpret_cast<std::int32_t*>(block.asking_rows.data());
  auto* z = reinterpret_cast<float*>(block.z.data());
  const Rows q = block.asking_q.rows(block.n_asking);
  const RawRows all_q = backend_->raw(block.q.rows(block.n_rows));
  backend_->choose_asking_rows(own, decoder_->attention_shape(), block.n_asking, rows);
  backend_->gather_rows({&all_q, 1}, rows, backend_->raw(q));
  // The background: enough keys of all kinds, and rarely the very one that a row looks for.
  const RawRows own_keys = block.kv.k_rows(layer, 0, block.n_rows);
  const RawRows sampled{block.sampled_keys.data(), block.n_sampled, own_keys.row_bytes};
  backend_->gather_rows({&own_keys, 1}, reinterpret_cast<const std::int32_t*>(block.sample.data()),
                        sampled);
  backend_->log_sum_exp(q, before, {sampled.data, nullptr, block.n_sampled, false, own.is_f8},
                        decoder_->attention_shape(), z);
  exchange.ask(block.id, q, z);
}

std::int64_t Encoder::attend_before_and_own(const WaveBlock& block, std::int64_t layer,
                                            const KvSegment& before, std::int64_t first,
                                            std::int64_t end) {
  const trace::Range range("attention");
  const std::int64_t most = std::min(chunk_rows_, kMostAttendingRows);
  const AttentionShape shape = decoder_->attention_shape();
  for (; first < end; first += most) {
    const std::int64_t n = std::min(most, block.n_rows - first);
    const Rows q = block.q.rows(first, n);
    const KvSegment segments[] = {before, block.kv.segment(layer, first + n, /*causal=*/true)};
    backend_->attend_alone(q, std::span(segments).subspan(before.n_tokens == 0 ? 1 : 0), shape,
                           Product::chunk, slice(block.partial.partial(), first, n, shape));
    options_.poll();
  }
  return first;
}

void Encoder::finish_layer(const WaveBlock& block, std::int64_t layer, const KvSegment& before,
                           const KvSegment& recalled) {
  const AttentionShape shape = decoder_->attention_shape();
  for (std::int64_t first = 0; first < block.n_rows; first += chunk_rows_) {
    const std::int64_t n = std::min(chunk_rows_, block.n_rows - first);
    const Rows q = block.q.rows(first, n);
    const Rows attended = attended_.rows(n);
    if (recalled.n_tokens > 0) {
      const trace::Range range("attention");
      backend_->attend_alone(q, {&recalled, 1}, shape, Product::chunk, partial_of_chunk(n));
      decoder_->merge_sinks(layer, partial_of_chunk(n));
      backend_->finish_merged(slice(block.partial.partial(), first, n, shape), partial_of_chunk(n),
                              shape, attended);
    } else {  // nothing was on its way
      const trace::Range range("attention");
      attend_whole(layer, q, seen(layer, before, block.kv, first, n), attended);
    }
    const Rows rows = block.x.rows(first, n);
    decoder_->add_attention_output(layer, attended, rows, Product::chunk);
    decoder_->add_feed_forward(layer, rows, Product::chunk);
    options_.poll();
  }
}

}  // namespace starattn
