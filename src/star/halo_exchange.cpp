// SPDX-License-Identifier: Apache-2.0
#include "star/halo_exchange.h"

#include <algorithm>
#include <numeric>
#include <utility>

#include "trace/range.h"

namespace starattn {
namespace {

constexpr const char* kWait = "wait for halo";
constexpr const char* kBytes = "halo exchange";

// Tokens just before block i that its first row sees, of which there may be fewer.
TokenRange halo_of(const BlockPlan& plan, BlockId i, std::int64_t window) {
  const std::int64_t end = plan.block(i).first_doc;
  const std::int64_t n = std::min(end, window - 1);
  return {end - n, n};
}

// Which rows of block j these tokens are.
Share rows_of_block(const BlockPlan& plan, BlockId j, TokenRange tokens) {
  const TokenRange block = plan.block(j);
  const std::int64_t first = std::max(tokens.first_doc, block.first_doc);
  const std::int64_t end =
      std::min(tokens.first_doc + tokens.n_tokens, block.first_doc + block.n_tokens);
  return {first - block.first_doc, std::max<std::int64_t>(0, end - first)};
}

}  // namespace

HaloExchange::HaloExchange(const Communicator& group, Channel* channel, Backend& backend,
                           const BlockPlan& plan, const AttentionShape& shape, std::int64_t widest,
                           std::function<void()> poll)
    : group_(&group),
      channel_(channel),
      backend_(&backend),
      plan_(&plan),
      poll_(std::move(poll)),
      is_f8_(backend.kv_dtype() == Dtype::f8),
      row_bytes_(backend.kv_layout(shape).row_bytes()) {
  STARATTN_CHECK(widest >= 1 && (channel || group.size() == 1));
  const std::int64_t n_most = std::min(widest - 1, plan.n_context());
  k_ = backend.allocate(static_cast<std::size_t>(n_most) * row_bytes_);
  v_ = backend.allocate(static_cast<std::size_t>(n_most) * row_bytes_);
  std::vector<std::int32_t> numbers(static_cast<std::size_t>(n_most));
  std::iota(numbers.begin(), numbers.end(), 0);
  numbers_ = backend.allocate(std::max<std::size_t>(1, numbers.size()) * sizeof(std::int32_t));
  backend.upload_later(std::as_bytes(std::span(numbers)), numbers_.data());
}

void HaloExchange::start_wave(std::span<const BlockId> wave) {
  wave_.assign(wave.begin(), wave.end());
  const auto mine =
      std::ranges::find_if(wave_, [&](BlockId i) { return plan_->owner(i) == group_->rank(); });
  own_ = mine == wave_.end() ? -1 : *mine;
}

void HaloExchange::start_layer(const DocumentKv& kv, std::int64_t layer, std::int64_t window) {
  for (const auto& [j, cache] : kv.blocks) {
    for (const BlockId i : wave_) {
      if (i <= j || i == own_) continue;
      const Share rows = rows_of_block(*plan_, j, halo_of(*plan_, i, window));
      if (rows.count > 0) send(cache, layer, rows, plan_->owner(i));
    }
  }
  arrivals_.clear();
  n_halo_ = 0;
  if (own_ < 0) return;
  const TokenRange halo = halo_of(*plan_, own_, window);
  for (BlockId j = halo.first_doc / plan_->block_size(); j < own_; ++j) {
    const Share rows = rows_of_block(*plan_, j, halo);
    const auto of_this_rank = kv.blocks.find(j);
    if (of_this_rank != kv.blocks.end()) {
      take(of_this_rank->second, layer, rows, n_halo_);
    } else {
      const auto n_bytes = static_cast<std::size_t>(rows.count) * row_bytes_;
      for (const Buffer* half : {&k_, &v_}) {
        arrivals_.push_back(channel_->receive(plan_->owner(j),
                                              {rows_of(*half, n_halo_, rows.count).data, n_bytes}));
      }
      trace::count_bytes(kBytes, 2 * n_bytes);
    }
    n_halo_ += rows.count;
  }
  STARATTN_CHECK(n_halo_ == halo.n_tokens);
}

void HaloExchange::send(const KvCache& cache, std::int64_t layer, Share rows, Rank to) {
  const Channel::Reader reader{to, static_cast<std::size_t>(rows.count) * row_bytes_};
  channel_->send({cache.k_rows(layer, rows.first, rows.count).data, cache.is_on_host()},
                 {&reader, 1});
  channel_->send({cache.v_rows(layer, rows.first, rows.count).data, cache.is_on_host()},
                 {&reader, 1});
  trace::count_bytes(kBytes, 2 * reader.n_bytes);
}

void HaloExchange::take(const KvCache& cache, std::int64_t layer, Share rows, std::int64_t at) {
  const auto* numbers = reinterpret_cast<const std::int32_t*>(numbers_.data());
  const RawRows k = cache.k_rows(layer, rows.first, rows.count);
  const RawRows v = cache.v_rows(layer, rows.first, rows.count);
  backend_->gather_rows({&k, 1}, numbers, rows_of(k_, at, rows.count));
  backend_->gather_rows({&v, 1}, numbers, rows_of(v_, at, rows.count));
}

KvSegment HaloExchange::halo() {
  for (const Channel::Arrival arrival : arrivals_)
    poll_until(
        kWait, [this] { poll(); }, [&] { return channel_->has_arrived(arrival); });
  return {k_.data(), v_.data(), n_halo_, false, is_f8_};
}

void HaloExchange::finish_wave() {
  if (!channel_) return;
  poll_until(
      kWait, [this] { poll(); }, [this] { return channel_->is_idle(); });
}

}  // namespace starattn
