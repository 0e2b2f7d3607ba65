// SPDX-License-Identifier: Apache-2.0
#include "star/context_tail.h"

#include <algorithm>
#include <cstring>

#include "trace/range.h"

namespace starattn {
namespace {

// Of the context's tokens: those that the row right behind it sees.
std::int64_t n_seen(std::int64_t n_context, std::int64_t window) {
  return std::min(n_context, window - 1);
}

// Some heads of each row, in rows of their own.
std::vector<std::byte> rows_of_heads(std::span<const std::byte> rows, const KvLayout& whole,
                                     const KvLayout& part, std::int64_t first_head) {
  const std::size_t n = rows.size() / whole.row_bytes();
  const std::size_t number = whole.is_f8() ? 1 : size_of(whole.dtype);
  const auto at = static_cast<std::size_t>(first_head * whole.head_dim) * number;
  const auto n_bytes = static_cast<std::size_t>(part.width()) * number;
  std::vector<std::byte> result(n * part.row_bytes());
  for (std::size_t i = 0; i < n; ++i) {
    const std::byte* from = rows.data() + i * whole.row_bytes();
    std::byte* to = result.data() + i * part.row_bytes();
    std::memcpy(to, from + at, n_bytes);
    if (!whole.is_f8()) continue;  // else the heads' exponents are behind the numbers
    std::memcpy(to + n_bytes, from + static_cast<std::size_t>(whole.width() + first_head),
                static_cast<std::size_t>(part.n_heads));
  }
  return result;
}

}  // namespace

ContextTail::ContextTail(const ModelConfig& config, Backend& backend, const Communicator& group,
                         const DocumentKv& kv, Share heads, std::int64_t max_rows)
    : config_(&config),
      backend_(&backend),
      group_(&group),
      kv_(&kv),
      whole_(backend.kv_layout({config.n_heads, config.n_kv_heads, config.head_dim})),
      mine_{whole_.dtype, heads.count, whole_.head_dim},
      heads_(heads),
      max_rows_(max_rows) {}

std::uint64_t ContextTail::n_bytes(const ModelConfig& config, std::int64_t n_context,
                                   Dtype kv_dtype) {
  const KvLayout layout{kv_dtype, config.n_kv_heads, config.head_dim};
  std::uint64_t sum = 0;
  for (const LayerConfig& layer : config.layers) {
    if (layer.has_window())
      sum += 2 * static_cast<std::uint64_t>(n_seen(n_context, layer.window)) * layout.row_bytes();
  }
  return sum;
}

void ContextTail::start() {
  if (has_started_ || config_->n_windows() == 0) return;
  has_started_ = true;
  const trace::Range range("bring the context's end");
  layers_.resize(static_cast<std::size_t>(config_->n_layers));
  collectively(*group_, [&] {
    if (heads_.count == 0) return;
    partial_ =
        PartialBuffer(*backend_, max_rows_, {config_->n_heads, heads_.count, whole_.head_dim});
    for (std::int64_t i = 0; i < config_->n_layers; ++i) {
      if (!config_->has_window(i)) continue;
      Layer& layer = layers_[static_cast<std::size_t>(i)];
      const std::int64_t n = n_seen(kv_->plan.n_context(), config_->layer(i).window);
      layer.k = backend_->allocate(static_cast<std::size_t>(n) * mine_.row_bytes());
      layer.v = backend_->allocate(static_cast<std::size_t>(n) * mine_.row_bytes());
    }
  });
  for (std::int64_t i = 0; i < config_->n_layers; ++i)
    if (config_->has_window(i)) bring(i);
}

void ContextTail::bring(std::int64_t i) {
  const BlockPlan& plan = kv_->plan;
  Layer& layer = layers_[static_cast<std::size_t>(i)];
  layer.n_tokens = n_seen(plan.n_context(), config_->layer(i).window);
  layer.first_doc = plan.n_context() - layer.n_tokens;
  std::vector<std::byte> rows;
  for (BlockId j = layer.first_doc / plan.block_size(); j < plan.n_blocks() && layer.n_tokens > 0;
       ++j) {
    const TokenRange block = plan.block(j);
    const std::int64_t first = std::max<std::int64_t>(0, layer.first_doc - block.first_doc);
    const std::int64_t n = block.n_tokens - first;
    rows.resize(static_cast<std::size_t>(n) * whole_.row_bytes());
    const std::int64_t at = block.first_doc + first - layer.first_doc;
    for (const bool is_k : {true, false}) {
      if (plan.owner(j) == group_->rank()) {
        const KvCache& cache = kv_->blocks.at(j);
        const RawRows from = is_k ? cache.k_rows(i, first, n) : cache.v_rows(i, first, n);
        if (cache.is_on_host()) {
          std::memcpy(rows.data(), from.data, rows.size());
        } else {
          backend_->download(from.data, rows);
        }
      }
      group_->bcast(rows, plan.owner(j));
      if (heads_.count == 0) continue;
      std::byte* to = (is_k ? layer.k : layer.v).data();
      backend_->upload(rows_of_heads(rows, whole_, mine_, heads_.first),
                       to + static_cast<std::size_t>(at) * mine_.row_bytes());
    }
  }
}

Partial ContextTail::attend(std::int64_t i, Rows q, const AttentionShape& shape,
                            std::span<const std::int64_t> positions) {
  const trace::Range range("partial attention");
  STARATTN_CHECK(has_started_ && shape.n_kv_heads == heads_.count);
  const Layer& layer = layers_[static_cast<std::size_t>(i)];
  std::vector<std::int64_t> first;
  for (const std::int64_t position : positions) {
    const std::int64_t first_doc = position - config_->layer(i).window + 1;
    first.push_back(std::clamp<std::int64_t>(first_doc - layer.first_doc, 0, layer.n_tokens));
  }
  const Partial partial =
      PartialBuffer::over(partial_.data(), q.n_rows, shape.n_heads, shape.head_dim);
  const KvSegment tail{layer.k.data(), layer.v.data(), layer.n_tokens, false, whole_.is_f8()};
  backend_->attend_from(q, tail, first, shape, partial);
  return partial;
}

}  // namespace starattn
