// SPDX-License-Identifier: Apache-2.0
// Phase 1 with reach > 0, up to exact ring attention (reach = all). In each layer a rank first
// makes the keys and values of all its blocks, sends them to whoever needs them, and then takes
// every block of the document in order, its own and others', adding its share to all rows that see
// it.
#include <algorithm>

#include "exchange/segment_exchange.h"
#include "star/encode.h"
#include "trace/range.h"

namespace starattn {
namespace {

// Tokens of each block that each rank needs for the blocks it computes: the whole block where it is
// in reach, else the anchor, else none.
SegmentExchange::Needs needs_of(const BlockPlan& plan, const std::vector<bool>& computing) {
  SegmentExchange::Needs needs;
  const auto n_blocks = static_cast<std::size_t>(plan.n_blocks());
  needs.n_tokens.assign(static_cast<std::size_t>(plan.n_ranks()),
                        std::vector<std::int64_t>(n_blocks, 0));
  for (BlockId i = 0; i < plan.n_blocks(); ++i) {
    needs.owners.push_back(plan.owner(i));
    if (!computing[static_cast<std::size_t>(i)]) continue;
    std::vector<std::int64_t>& of_owner = needs.n_tokens[static_cast<std::size_t>(plan.owner(i))];
    of_owner[0] = std::max(of_owner[0], plan.anchor_of(i).n_tokens);
    for (BlockId j = plan.first_reached(i); j < i; ++j)
      of_owner[static_cast<std::size_t>(j)] = plan.block(j).n_tokens;
  }
  return needs;
}

}  // namespace

// A chunk keeps its unfinished attention while the segments come by.
struct Encoder::Chunk {
  BlockId block = 0;
  std::int64_t first_blk = 0;  // first row, within the block
  std::int64_t first_row = 0;  // first row, within this rank's rows
  std::int64_t n_rows = 0;
  PartialBuffer partial;
};

void Encoder::encode_reach(DocumentKv& kv, std::span<const Token> context,
                           const std::vector<bool>& computing) {
  const BlockPlan& plan = kv.plan;
  const ModelConfig& config = decoder_->config();
  const AttentionShape shape = decoder_->attention_shape();
  const auto is_computed = [&](BlockId i) { return computing[static_cast<std::size_t>(i)]; };

  if (std::ranges::none_of(computing, std::identity{})) return;
  SegmentExchange exchange(channel(), group_->rank(), *backend_, needs_of(plan, computing),
                           backend_->kv_layout(shape), config.n_layers - 1);
  const auto poll = [&] {
    exchange.poll();
    options_.poll();
  };

  for (const BlockId i : own_blocks(plan, computing)) cache_of(kv, i);
  std::vector<Chunk> chunks;
  std::int64_t n_rows = 0;
  for (const auto& [i, cache] : kv.blocks) {
    for (std::int64_t first = 0; is_computed(i) && first < cache.n_tokens(); first += chunk_rows_) {
      const std::int64_t n = std::min(chunk_rows_, cache.n_tokens() - first);
      chunks.push_back({i, first, n_rows, n, PartialBuffer(*backend_, n, shape)});
      n_rows += n;
    }
  }
  const RowBuffer x(*backend_, n_rows, config.hidden_size);
  const RowBuffer q(*backend_, n_rows, config.q_width());
  std::vector<RopeTable> rope;
  for (const Chunk& chunk : chunks) {
    const std::int64_t first_doc = plan.block(chunk.block).first_doc + chunk.first_blk;
    rope.push_back(decoder_->rope_table(first_doc, chunk.n_rows));
    decoder_->embed(context.subspan(static_cast<std::size_t>(first_doc),
                                    static_cast<std::size_t>(chunk.n_rows)),
                    x.rows(chunk.first_row, chunk.n_rows));
  }

  std::map<BlockId, KvDoubleBuffer> block_kv;
  std::map<BlockId, KvCheck> checks;
  for (const auto& [i, cache] : kv.blocks) {
    block_kv.try_emplace(i, *backend_, cache);
    if (is_computed(i)) checks.try_emplace(i, *backend_, config.n_layers);
  }

  const auto project_block = [&](BlockId i, const KvDoubleBuffer& kv_of_block, std::int64_t layer,
                                 bool keys_and_values_only) {
    for (std::size_t c = 0; c < chunks.size(); ++c) {
      const Chunk& chunk = chunks[c];
      if (chunk.block != i) continue;
      const Rows of_chunk = q.rows(chunk.first_row, chunk.n_rows);
      project_rows(layer, x.rows(chunk.first_row, chunk.n_rows),
                   rope[c].angles(config.layer(layer)), keys_and_values_only ? nullptr : &of_chunk,
                   chunk.first_blk, kv_of_block, checks.at(i));
      poll();
    }
  };
  // Adds block j, or its first tokens as the anchor, to every chunk that sees it. The reach covers
  // what a window shows (BlockPlan::make).
  const auto attend_to = [&](BlockId j, const KvSegment& segment, std::int64_t layer) {
    const trace::Range range("attention");
    const LayerConfig& config_of_layer = config.layer(layer);
    for (const Chunk& chunk : chunks) {
      const trace::At at({.block = chunk.block});
      KvSegment seen = segment;
      if (chunk.block < j) continue;
      if (chunk.block == j) {
        seen.n_tokens = chunk.first_blk + chunk.n_rows;
        seen.causal = true;
      } else if (plan.first_reached(chunk.block) > j) {
        const bool is_anchor = j == 0 && !config_of_layer.has_window();
        seen.n_tokens = is_anchor ? plan.anchor_of(chunk.block).n_tokens : 0;
      }
      if (config_of_layer.has_window()) {
        const std::int64_t place =
            plan.block(chunk.block).first_doc + chunk.first_blk - plan.block(j).first_doc;
        seen = through_window(seen, config_of_layer.window, place, chunk.n_rows,
                              backend_->kv_layout(shape).row_bytes());
      }
      if (seen.n_tokens == 0) continue;
      backend_->attend(q.rows(chunk.first_row, chunk.n_rows), {&seen, 1}, shape, Product::chunk,
                       chunk.partial.partial());
      poll();
    }
  };

  for (std::int64_t layer = 0; layer < config.n_layers; ++layer) {
    const trace::Range range("layer", trace::Lane::host, {.layer = layer});
    const bool keys_and_values_only = layer + 1 == config.n_layers;
    if (!keys_and_values_only) exchange.start_layer();
    for (auto& [i, cache] : kv.blocks) {
      const trace::At at({.block = i});
      KvDoubleBuffer& own = block_kv.at(i);
      if (is_computed(i)) {
        project_block(i, own, layer, keys_and_values_only);
        own.store(layer);
      } else if (!keys_and_values_only) {
        own.fetch(layer);
      }
      if (!keys_and_values_only)
        exchange.send(i, {cache.k(layer), cache.is_on_host()},
                      {cache.v(layer), cache.is_on_host()});
    }
    if (keys_and_values_only) break;

    for (const Chunk& chunk : chunks) backend_->clear(chunk.partial.partial(), shape);
    for (BlockId j = 0; j < plan.n_blocks(); ++j) {
      const auto own = kv.blocks.find(j);
      if (own != kv.blocks.end()) {
        attend_to(j, block_kv.at(j).segment(layer, own->second.n_tokens()), layer);
      } else if (exchange.n_needed(group_->rank(), j) > 0) {
        attend_to(j, exchange.receive(j), layer);
      }
    }
    for (const Chunk& chunk : chunks) {
      const trace::At at({.block = chunk.block});
      const Rows attended = attended_.rows(chunk.n_rows);
      const Rows rows = x.rows(chunk.first_row, chunk.n_rows);
      decoder_->merge_sinks(layer, chunk.partial.partial());
      backend_->finish(chunk.partial.partial(), shape, attended);
      decoder_->add_attention_output(layer, attended, rows, Product::chunk);
      decoder_->add_feed_forward(layer, rows, Product::chunk);
      poll();
    }
  }
  exchange.finish();
  for (const auto& [i, cache] : kv.blocks) {
    block_kv.at(i).finish();
    if (is_computed(i)) end_block(i, cache, checks.at(i));
  }
}

}  // namespace starattn
