// SPDX-License-Identifier: Apache-2.0
#include "eval/setting.h"

#include <charconv>

#include "base/error.h"
#include "base/text.h"

namespace starattn {
namespace {

constexpr const char* kForm =
    "expected dense, ring, star, or star:b=n/4,a=b,r=0 (b: tokens or n/k; a: tokens, b or b/k; r: "
    "blocks or all)";

constexpr std::int64_t kMostParts = std::int64_t{1} << 40;  // no context has more tokens

// A whole number of parts, nothing behind it; 0 when it is none.
std::int64_t parts(std::string_view text) {
  std::int64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  const bool is_whole = error == std::errc() && end == text.data() + text.size();
  return is_whole && value > 0 && value <= kMostParts ? value : 0;
}

}  // namespace

Setting::Size Setting::parse_size(const std::string& text, char whole, const std::string& where) {
  if (!text.starts_with(whole)) return {parse_tokens(text, where), 0};
  if (text.size() == 1) return {0, 1};
  const std::int64_t divisor = text[1] == '/' ? parts(std::string_view(text).substr(2)) : 0;
  if (divisor == 0)
    fail(Exit::usage, "{}: expected tokens or {}/k with k at least 1, got '{}'", where, whole,
         text);
  return {0, divisor};
}

std::string Setting::Size::text(char whole) const {
  if (divisor == 0) return std::to_string(n_tokens);
  return divisor == 1 ? std::string(1, whole) : fmt::format("{}/{}", whole, divisor);
}

std::string Setting::name() const {
  if (attention_ == Attention::dense) return "dense";
  if (attention_ == Attention::ring) return "ring";
  std::string parts;
  if (block_) parts += ",b=" + block_->text('n');
  if (anchor_) parts += ",a=" + anchor_->text('b');
  if (reach_ == kReachAll) parts += ",r=all";
  if (reach_ > 0 && reach_ != kReachAll) parts += fmt::format(",r={}", reach_);
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
      setting.block_ = parse_size(value, 'n', where);
      if (setting.block_->of(1) == 0) fail(Exit::usage, "{}: expected at least 1 token", where);
    } else if (part[0] == 'a') {
      setting.anchor_ = parse_size(value, 'b', where);
    } else if (part[0] == 'r') {
      setting.reach_ = value == "all" ? kReachAll : parse_blocks(value, where);
    } else {
      fail(Exit::usage, "--setting '{}': {}", text, kForm);
    }
  }
  return setting;
}

PlanRequest Setting::plan_request(std::int64_t n_context) const {
  PlanRequest request;
  request.attention = attention_;
  if (is_exact()) return request;
  if (block_) request.block_size = block_->of(n_context);
  if (anchor_) {
    request.anchor_size = anchor_->of(request.block_size.value_or(auto_block_size(n_context)));
  }
  if (reach_ > 0) request.reach = reach_;
  return request;
}

}  // namespace starattn
