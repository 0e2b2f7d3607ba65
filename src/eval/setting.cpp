// SPDX-License-Identifier: Apache-2.0
#include "eval/setting.h"

#include "base/error.h"
#include "base/text.h"
#include "star/auto_setting.h"

namespace starattn {
namespace {

constexpr const char* kForm =
    "expected dense, ring, star, or star:b=n/4,a=b,r=0 or star:b=n/16,a=b/16,c=b/2 (b: tokens or "
    "n/k; a, c and q: tokens, b or b/k, a and c also auto; r: blocks or all)";

}  // namespace

std::string Setting::name() const {
  if (attention_ == Attention::dense) return "dense";
  if (attention_ == Attention::ring) return "ring";
  std::string parts;
  if (block_) parts += ",b=" + block_->text('n');
  if (anchor_) {
    const bool is_auto = anchor_->n_tokens == kAutoAnchor.n_tokens;
    parts += ",a=" + (is_auto ? "auto" : anchor_->text('b'));
  }
  if (reach_ == kReachAll) parts += ",r=all";
  if (reach_ > 0 && reach_ != kReachAll) parts += fmt::format(",r={}", reach_);
  if (recall_) parts += ",c=" + recall_->text('b');
  if (recall_rows_) parts += ",q=" + recall_rows_->text('b');
  return parts.empty() ? "star" : "star:" + parts.substr(1);
}

Setting Setting::parse(const std::string& text) {
  Setting setting;
  const std::size_t colon = text.find(':');
  const std::string mode = text.substr(0, colon);
  if (mode == "dense") setting.attention_ = Attention::dense;
  if (mode == "ring") setting.attention_ = Attention::ring;
  if ((mode != "star" && !setting.is_exact()) ||
      (setting.is_exact() && colon != std::string::npos)) {
    fail(Exit::usage, "--setting '{}': {}", text, kForm);
  }
  std::string seen;
  for (std::size_t at = colon; at != std::string::npos;) {
    const std::size_t next = text.find(',', at + 1);
    const std::string part = text.substr(at + 1, next == std::string::npos ? next : next - at - 1);
    at = next;
    const std::string where = fmt::format("--setting '{}': {}", text, part.substr(0, 1));
    if (part.size() < 3 || part[1] != '=' || seen.find(part[0]) != std::string::npos)
      fail(Exit::usage, "--setting '{}': {}", text, kForm);
    seen += part[0];
    const std::string value = part.substr(2);
    if (part[0] == 'b') {
      setting.block_ = TokenShare::parse(value, 'n', where);
      if (setting.block_->of(1) == 0) fail(Exit::usage, "{}: expected at least 1 token", where);
    } else if (part[0] == 'a') {
      setting.anchor_ = value == "auto" ? kAutoAnchor : TokenShare::parse(value, 'b', where);
    } else if (part[0] == 'c') {
      setting.recall_ = value == "auto" ? auto_recall() : TokenShare::parse(value, 'b', where);
    } else if (part[0] == 'q') {
      setting.recall_rows_ = TokenShare::parse(value, 'b', where);
    } else if (part[0] == 'r') {
      setting.reach_ = value == "all" ? kReachAll : parse_blocks(value, where);
    } else {
      fail(Exit::usage, "--setting '{}': {}", text, kForm);
    }
  }
  if (setting.recall_ && setting.reach_ > 0)
    fail(Exit::usage, "--setting '{}': recall (c) and reach (r) exclude each other", text);
  if (setting.recall_rows_ && !setting.recall_)
    fail(Exit::usage, "--setting '{}': q says how many rows ask for recall; c is missing", text);
  return setting;
}

PlanRequest Setting::plan_request(std::int64_t n_context) const {
  PlanRequest request;
  request.attention = attention_;
  if (is_exact()) return request;
  if (block_) request.block_size = block_->of(n_context);
  if (anchor_) request.anchor_size = anchor_;
  if (recall_) request.recall = *recall_;
  request.recall_rows = recall_rows_;
  if (reach_ > 0) request.reach = reach_;
  return request;
}

}  // namespace starattn
