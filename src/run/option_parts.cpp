// SPDX-License-Identifier: Apache-2.0
#include "run/option_parts.h"

#include <charconv>

#include "base/error.h"
#include "base/text.h"
#include "star/auto_setting.h"

namespace starattn {
namespace {

std::optional<Placement> placement_of(const std::string& option) {
  if (option == "contiguous") return Placement::contiguous;
  if (option == "zigzag") return Placement::zigzag;
  return std::nullopt;
}

}  // namespace

void InputOptions::shard_numbers(std::int64_t& index, std::int64_t& count) const {
  index = 0;
  count = 1;
  if (shard.empty()) return;
  const char* end = shard.data() + shard.size();
  const auto [slash, error] = std::from_chars(shard.data(), end, index);
  bool good = error == std::errc() && slash != end && *slash == '/';
  if (good) {
    const auto [rest, error2] = std::from_chars(slash + 1, end, count);
    good = error2 == std::errc() && rest == end && count > 0 && index >= 0 && index < count;
  }
  if (!good)
    fail(Exit::usage, "--shard: expected i/n with 0 <= i < n, such as 0/8, got '{}'", shard);
}

std::optional<SpecialTokens> TextOptions::special() const {
  if (special_tokens == "text") return SpecialTokens::text;
  if (special_tokens == "parse") return SpecialTokens::parse;
  return std::nullopt;
}

PlanRequest MethodOptions::plan_request() const {
  PlanRequest request;
  if (attention == "ring") request.attention = Attention::ring;
  if (attention == "dense") request.attention = Attention::dense;
  if (block_size != "auto") {
    request.block_size = parse_tokens(block_size, "--block-size");
    if (*request.block_size == 0)
      fail(Exit::usage, "--block-size: expected at least 1 token, got 0");
  }
  if (anchor_size == "auto") {
    request.anchor_size = kAutoAnchor;
  } else if (anchor_size != "block") {
    request.anchor_size = TokenShare::parse(anchor_size, 'b', "--anchor-size");
    const std::int64_t n_block = request.block_size.value_or(INT64_MAX);
    if (request.anchor_size->n_tokens > n_block)
      fail(Exit::usage, "--anchor-size: expected at most the block size ({} tokens), got {}",
           with_commas(n_block), with_commas(request.anchor_size->n_tokens));
  }
  if (reach == "all") {
    request.reach = kReachAll;
  } else if (reach != "0") {
    request.reach = parse_blocks(reach, "--reach");
  }
  if (request.attention != Attention::star && (request.anchor_size || reach != "0")) {
    fail(Exit::usage, "--anchor-size and --reach belong to --attention star; {} is exact",
         attention);
  }
  if (recall != "0")
    request.recall = recall == "auto" ? auto_recall() : TokenShare::parse(recall, 'b', "--recall");
  if (recall_rows != "auto")
    request.recall_rows = TokenShare::parse(recall_rows, 'b', "--recall-rows");
  if (recall != "0" && request.attention != Attention::star)
    fail(Exit::usage, "--recall belongs to --attention star; {} is exact", attention);
  if (recall == "0" && request.recall_rows)
    fail(Exit::usage, "--recall-rows: only with --recall; without it no row asks");
  if (recall != "0" && reach != "0")
    fail(Exit::usage, "--recall and --reach: a block either recalls or reaches; leave one out");
  if (recall != "0" && anchor == "recompute") {
    fail(Exit::usage,
         "--anchor recompute: only without --recall, where the anchor is all a block sees before "
         "it");
  }
  if (recall != "0" && placement != "auto") {
    fail(Exit::usage,
         "--placement: with --recall blocks go round robin over the ranks, because they advance in "
         "waves; leave the option out");
  }
  if (request.attention == Attention::dense && request.block_size) {
    fail(Exit::usage, "--block-size: dense attention is one block; use --attention star or ring");
  }
  if (anchor == "recompute" && reach != "0") {
    fail(Exit::usage,
         "--anchor recompute: only with --reach 0, where the anchor is all a block sees before it");
  }
  request.placement = placement_of(placement);
  request.anchor_mode = anchor_mode();
  return request;
}

void MethodOptions::check_windows(std::int64_t widest_window) const {
  if (widest_window == 0 || attention != "star" || reach != "0") return;
  PlanRequest request;  // of any two blocks
  request.block_size = 1;
  request.placement = placement_of(placement);
  request.anchor_mode = anchor_mode();
  BlockPlan::make(request, 2, 1, widest_window);
}

void DeviceOptions::settle_precision(Fp8Config& fp8) const {
  using Scales = Fp8Config::Scales;
  if (weights == "fp8" && fp8.scales == Scales::none) fp8.scales = Scales::made;
  if (activations != "fp8") return;
  if (fp8.scales == Scales::none) {
    fail(Exit::usage,
         "--activations fp8: products in FP8 need FP8 weights, and this model has none; add "
         "--weights fp8");
  }
  fp8.rounds_rows = true;
}

}  // namespace starattn
