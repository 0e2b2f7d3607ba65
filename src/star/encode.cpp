// SPDX-License-Identifier: Apache-2.0
#include "star/encode.h"

#include <algorithm>
#include <optional>
#include <utility>

#include "exchange/anchor_broadcast.h"
#include "star/kv_prefetch.h"
#include "trace/range.h"

namespace starattn {
namespace {

// Which ranks take part in the anchor's broadcast: block 0's owner and all who encode a block with
// an anchor in front.
std::vector<bool> anchor_ranks(const BlockPlan& plan, const std::vector<bool>& computing) {
  std::vector<bool> ranks(static_cast<std::size_t>(plan.n_ranks()), false);
  for (BlockId i = 1; i < plan.n_blocks(); ++i) {
    if (computing[static_cast<std::size_t>(i)] && plan.anchor_of(i).n_tokens > 0) {
      ranks[static_cast<std::size_t>(plan.owner(i))] = true;
    }
  }
  ranks[static_cast<std::size_t>(plan.owner(0))] = true;
  return ranks;
}

}  // namespace

Encoder::Encoder(Decoder& decoder, const Communicator& group)
    : decoder_(&decoder),
      backend_(&decoder.backend()),
      group_(&group),
      chunk_rows_(backend_->chunk_rows()),
      q_(*backend_, chunk_rows_, decoder.config().q_width()),
      attended_(*backend_, chunk_rows_, decoder.config().q_width()),
      k_(*backend_, backend_->kv_dtype() == Dtype::f8 ? chunk_rows_ : 0,
         decoder.config().kv_width()),
      v_(*backend_, backend_->kv_dtype() == Dtype::f8 ? chunk_rows_ : 0,
         decoder.config().kv_width()) {
  STARATTN_CHECK(decoder.max_rows() >= chunk_rows_);
}

Partial Encoder::partial_of_chunk(std::int64_t n_rows) {
  if (!partial_) partial_.emplace(*backend_, chunk_rows_, decoder_->attention_shape());
  return partial_->view(n_rows);
}

GroupChannel& Encoder::channel() {
  if (!channel_) channel_.emplace(*group_, group_->split_by_node(), *backend_);
  return *channel_;
}

DocumentKv Encoder::encode(const BlockPlan& plan, std::span<const Token> context,
                           EncodeOptions options, std::map<BlockId, KvCache> loaded) {
  const trace::Range range("phase 1");
  options_ = std::move(options);
  overflow_.reset();
  STARATTN_CHECK(plan.n_ranks() == group_->size());
  STARATTN_CHECK(plan.n_context() == static_cast<std::int64_t>(context.size()));
  DocumentKv kv{plan, std::move(loaded)};

  // Everybody learns which blocks are still to be computed.
  std::vector<bool> computing(static_cast<std::size_t>(plan.n_blocks()), true);
  for (BlockId i = 0; i < plan.n_blocks(); ++i) {
    const bool mine = plan.owner(i) == group_->rank();
    const bool missing =
        group_->bcast_value<char>(mine && !kv.blocks.contains(i), plan.owner(i)) != 0;
    computing[static_cast<std::size_t>(i)] = missing;
  }
  const bool has_halos = decoder_->config().widest_window() > 0 && plan.n_blocks() > 1;
  if (plan.n_recalled(plan.n_blocks() - 1) > 0 || (has_halos && plan.reach() == 0)) {
    STARATTN_CHECK(options_.anchor_mode == AnchorMode::broadcast);
    encode_waves(kv, context, computing);
  } else if (plan.reach() == 0) {
    encode_star(kv, context, computing);
  } else {
    encode_reach(kv, context, computing);
  }
  options_ = {};
  refuse_overflow(plan);
  return kv;
}

std::vector<BlockId> Encoder::own_blocks(const BlockPlan& plan,
                                         const std::vector<bool>& computing) const {
  std::vector<BlockId> own = plan.blocks_of(group_->rank());
  std::erase_if(own, [&](BlockId i) { return !computing[static_cast<std::size_t>(i)]; });
  return own;
}

KvCache& Encoder::cache_of(DocumentKv& kv, BlockId i) const {
  const auto found = kv.blocks.find(i);
  if (found != kv.blocks.end()) return found->second;
  KvCache cache(*backend_, decoder_->config().n_layers, kv.plan.block(i).n_tokens,
                backend_->kv_layout(decoder_->attention_shape()), options_.kv_memory);
  return kv.blocks.emplace(i, std::move(cache)).first->second;
}

std::optional<AnchorBroadcast> Encoder::start_broadcast(const BlockPlan& plan,
                                                        const std::vector<bool>& computing) {
  const std::vector<bool> members = anchor_ranks(plan, computing);
  const std::int64_t n_layers = n_full_layers(decoder_->config().n_layers - 1);
  std::optional<AnchorBroadcast> broadcast;
  if (options_.anchor_mode == AnchorMode::recompute || plan.anchor_size() == 0 || n_layers == 0 ||
      std::ranges::count(members, true) < 2)
    return broadcast;
  broadcast.emplace(channel(), group_->rank(), channel().nodes(), members, plan.owner(0), *backend_,
                    n_layers, plan.anchor_size(), backend_->kv_layout(decoder_->attention_shape()));
  return broadcast;
}

std::int64_t Encoder::n_full_layers(std::int64_t end) const {
  std::int64_t n = 0;
  for (std::int64_t i = 0; i < end; ++i) n += decoder_->config().has_window(i) ? 0 : 1;
  return n;
}

// But for the last layer: no context row attends in it, since phase 1 ends with its keys and
// values. Nor does a row see the anchor through a window.
void Encoder::send_anchor(AnchorBroadcast& broadcast, std::int64_t layer, const KvCache& block_0) {
  if (layer + 1 < decoder_->config().n_layers && !decoder_->config().has_window(layer))
    broadcast.send({block_0.k(layer), block_0.is_on_host()},
                   {block_0.v(layer), block_0.is_on_host()});
}

void Encoder::end_block(BlockId i, const KvCache& cache, const KvCheck& check) {
  const std::optional<Overflow> found = check.result(cache);
  if (!found) return options_.block_done(i, cache);
  if (!overflow_ || found->layer < overflow_->second.layer) overflow_.emplace(i, *found);
}

void Encoder::refuse_overflow(const BlockPlan& plan) const {
  struct Place {
    std::int64_t layer, token_doc, is_result;
    auto operator<=>(const Place&) const = default;
  };
  Place mine{INT64_MAX, 0, 0};
  if (overflow_) {
    const auto& [block, found] = *overflow_;
    mine = {found.layer, plan.block(block).first_doc + found.token, found.is_result};
  }
  const std::vector<Place> all = group_->allgather(mine);
  const Place first = *std::ranges::min_element(all);
  if (first.layer == INT64_MAX) return;
  const Overflow found{first.layer, first.is_result != 0, first.token_doc};
  throw AgreedError(Exit::bad_data,
                    fmt::format("{}, at token {} of the context",
                                describe(found, decoder_->config().n_layers), found.token));
}

void Encoder::encode_star(DocumentKv& kv, std::span<const Token> context,
                          const std::vector<bool>& computing) {
  const BlockPlan& plan = kv.plan;
  const AnchorMode anchor_mode = options_.anchor_mode;
  const std::int64_t n_layers = decoder_->config().n_layers;
  const Rank root = plan.owner(0);
  std::optional<AnchorBroadcast> broadcast = start_broadcast(plan, computing);
  options_.poll = [&, outer = options_.poll] {
    if (broadcast) broadcast->poll();
    outer();
  };

  const bool is_root = group_->rank() == root;
  if (broadcast && is_root && !computing[0]) {
    for (std::int64_t layer = 0; layer < n_layers; ++layer)
      send_anchor(*broadcast, layer, kv.blocks.at(0));
  }
  std::optional<KvPrefetch> own_anchor;  // on block 0's owner, once that is finished
  const std::vector<BlockId> own = own_blocks(plan, computing);
  for (std::size_t n = 0; n < own.size(); ++n) {
    if (n > 0 && options_.stop()) break;
    const BlockId i = own[n];
    KvCache& cache = cache_of(kv, i);
    const trace::At at({.block = i});
    const TokenRange block = plan.block(i);
    const std::int64_t n_anchor = plan.anchor_of(i).n_tokens;
    KvCache again;  // the anchor, encoded again for this block alone
    if (n_anchor > 0 && anchor_mode == AnchorMode::recompute) {
      const trace::Range range("encode anchor again");
      again = KvCache(*backend_, n_layers - 1, n_anchor,
                      backend_->kv_layout(decoder_->attention_shape()));
      encode_rows(context.first(static_cast<std::size_t>(n_anchor)), 0, {}, again, {});
    }
    const auto anchor = [&, n_anchor](std::int64_t layer) -> KvSegment {
      if (n_anchor == 0) return {};
      if (anchor_mode == AnchorMode::recompute) return again.segment(layer, n_anchor);
      if (!is_root) return broadcast->wait(layer);
      if (!own_anchor)
        own_anchor.emplace(*backend_, std::vector{KvPrefetch::Source{&kv.blocks.at(0), n_anchor}},
                           n_layers - 1);
      return own_anchor->layer(layer).front();
    };
    const auto layer_done = [&](std::int64_t layer) {
      if (layer + 1 == n_layers && n + 1 < own.size()) cache_of(kv, own[n + 1]);
      if (!broadcast) return;
      backend_->synchronize(options_.poll);  // the other ranks' layers move meanwhile
      if (i == 0) send_anchor(*broadcast, layer, cache);
    };
    const KvCheck check = encode_rows(context.subspan(static_cast<std::size_t>(block.first_doc),
                                                      static_cast<std::size_t>(block.n_tokens)),
                                      block.first_doc, anchor, cache, layer_done);
    backend_->synchronize(options_.poll);
    if (broadcast && i == 0) broadcast->finish();  // others would wait while the block is saved
    end_block(i, cache, check);
  }
  if (broadcast) broadcast->finish();
}

void Encoder::project_rows(std::int64_t layer, Rows x, const Angles& angles, const Rows* q,
                           std::int64_t first_blk, const KvDoubleBuffer& block_kv, KvCheck& check) {
  const RawRows kept_k = block_kv.k_rows(layer, first_blk, x.n_rows);
  const RawRows kept_v = block_kv.v_rows(layer, first_blk, x.n_rows);
  const bool is_f8 = backend_->kv_dtype() == Dtype::f8;
  const std::int64_t width = decoder_->config().kv_width();
  const Rows k = is_f8 ? k_.rows(x.n_rows) : Rows{kept_k.data, x.n_rows, width};
  const Rows v = is_f8 ? v_.rows(x.n_rows) : Rows{kept_v.data, x.n_rows, width};
  if (q) {
    decoder_->project_qkv(layer, x, angles, *q, k, v, Product::chunk);
  } else {
    decoder_->project_kv(layer, x, angles, k, v, Product::chunk);
  }
  check.look(layer, first_blk, k, v);
  if (!is_f8) return;
  backend_->narrow(k, decoder_->config().head_dim, kept_k);
  backend_->narrow(v, decoder_->config().head_dim, kept_v);
}

std::span<const KvSegment> Encoder::seen(std::int64_t layer, const KvSegment& before,
                                         const KvDoubleBuffer& block_kv, std::int64_t first_blk,
                                         std::int64_t n) {
  seen_ = {before, block_kv.segment(layer, first_blk + n, /*causal=*/true)};
  if (decoder_->config().has_window(layer)) {
    const std::int64_t n_tokens = decoder_->config().layer(layer).window;
    const std::size_t row_bytes = backend_->kv_layout(decoder_->attention_shape()).row_bytes();
    seen_[0] = through_window(before, n_tokens, before.n_tokens + first_blk, n, row_bytes);
    seen_[1] = through_window(seen_[1], n_tokens, first_blk, n, row_bytes);
  }
  return std::span(seen_).subspan(seen_[0].n_tokens == 0 ? 1 : 0);
}

void Encoder::attend_whole(std::int64_t layer, Rows q, std::span<const KvSegment> segments,
                           Rows out) {
  const AttentionShape shape = decoder_->attention_shape();
  const Partial partial = partial_of_chunk(q.n_rows);
  if (!decoder_->has_sinks())
    return backend_->attend_all(q, segments, shape, Product::chunk, partial, out);
  backend_->attend_alone(q, segments, shape, Product::chunk, partial);
  decoder_->merge_sinks(layer, partial);
  backend_->finish(partial, shape, out);
}

KvCheck Encoder::encode_rows(std::span<const Token> tokens, std::int64_t first_doc,
                             const std::function<KvSegment(std::int64_t layer)>& anchor,
                             KvCache& out,
                             const std::function<void(std::int64_t layer)>& layer_done) {
  const auto n_rows = static_cast<std::int64_t>(tokens.size());
  const std::int64_t last_layer = decoder_->config().n_layers - 1;
  const RopeTable rope = decoder_->rope_table(first_doc, n_rows);
  const RowBuffer x(*backend_, n_rows, decoder_->config().hidden_size);
  decoder_->embed(tokens, x.rows(n_rows));
  KvDoubleBuffer block_kv(*backend_, out);
  KvCheck check(*backend_, out.n_layers());

  for (std::int64_t layer = 0; layer < out.n_layers(); ++layer) {
    const trace::Range range("layer", trace::Lane::host, {.layer = layer});
    // Phase 1 ends with the last layer's keys and values: no row attends there.
    const bool keys_and_values_only = layer == last_layer;
    const KvSegment before = anchor && !keys_and_values_only ? anchor(layer) : KvSegment{};
    for (std::int64_t first_blk = 0; first_blk < n_rows; first_blk += chunk_rows_) {
      const std::int64_t n = std::min(chunk_rows_, n_rows - first_blk);
      const Rows rows = x.rows(first_blk, n);
      const Rows q = q_.rows(n);
      project_rows(layer, rows, rope.angles(decoder_->config().layer(layer), first_blk),
                   keys_and_values_only ? nullptr : &q, first_blk, block_kv, check);
      if (!keys_and_values_only) {
        {
          const trace::Range attention("attention");
          attend_whole(layer, q, seen(layer, before, block_kv, first_blk, n), attended_.rows(n));
        }
        decoder_->add_attention_output(layer, attended_.rows(n), rows, Product::chunk);
        decoder_->add_feed_forward(layer, rows, Product::chunk);
      }
      options_.poll();
    }
    block_kv.store(layer);
    if (layer_done) layer_done(layer);
  }
  block_kv.finish();
  return check;
}

}  // namespace starattn
