// SPDX-License-Identifier: Apache-2.0
#include "checkpoint/document_info.h"

#include <algorithm>

#include "base/error.h"
#include "base/text.h"
#include "checkpoint/fingerprint.h"

namespace starattn {
namespace {

constexpr std::int64_t kMaxTokens = std::int64_t{1} << 40;
constexpr std::int64_t kMaxBlocks = 10'000'000;  // seven digits in a file name
constexpr std::size_t kMaxPlanBytes = 1024;

void expect_range(const char* field, std::int64_t value, std::int64_t min, std::int64_t max,
                  const std::string& where) {
  if (value < min || value > max) {
    fail(Exit::bad_data, "{}: {}: expected {} to {}, got {}", where, field, min, max, value);
  }
}

template <typename Value>
void expect_field(const char* field, const Value& found, const Value& wanted,
                  const std::string& where) {
  if (found != wanted) {
    fail(Exit::bad_data, "{}: {}: expected {}, got {}", where, field, wanted, found);
  }
}

}  // namespace

Digest DocumentInfo::key() const {
  return document_key(n_tokens, token_digest, plan, kv_dtype, model);
}

std::int64_t DocumentInfo::n_tokens_of(std::int64_t block) const {
  STARATTN_CHECK(block >= 0 && block < n_blocks);
  return std::min(block_size, n_tokens - first_token(block));
}

std::size_t DocumentInfo::part_bytes(std::int64_t n) const {
  return static_cast<std::size_t>(n) * KvLayout{kv_dtype, n_kv_heads, head_dim}.row_bytes();
}

void validate(const DocumentInfo& info, const std::string& where) {
  expect_range("n_tokens", info.n_tokens, 1, kMaxTokens, where);
  expect_range("block_size", info.block_size, 1, kMaxTokens, where);
  expect_range("anchor_size", info.anchor_size, 0, info.block_size, where);
  expect_range("n_blocks", info.n_blocks, 1, kMaxBlocks, where);
  expect_field("n_blocks", info.n_blocks, (info.n_tokens - 1) / info.block_size + 1, where);
  expect_range("reach", info.reach, 0, info.n_blocks, where);
  expect_range("n_layers", info.n_layers, 1, 4096, where);
  expect_range("n_kv_heads", info.n_kv_heads, 1, 65536, where);
  expect_range("head_dim", info.head_dim, 1, 65536, where);
  if (info.plan.empty() || info.plan.size() > kMaxPlanBytes || !is_utf8(info.plan) ||
      info.plan.find('\0') != std::string::npos) {
    fail(Exit::bad_data, "{}: plan: expected 1 to {} bytes of text", where, kMaxPlanBytes);
  }
  std::int64_t bytes = 0;
  const auto row = static_cast<std::int64_t>(
      KvLayout{info.kv_dtype, info.n_kv_heads, info.head_dim}.row_bytes());
  if (__builtin_mul_overflow(std::min(info.n_tokens, info.block_size), row, &bytes) ||
      __builtin_mul_overflow(bytes, 2 * info.n_layers, &bytes)) {
    fail(Exit::bad_data, "{}: the K and V of one block would not fit 64 bits", where);
  }
}

void expect_same(const DocumentInfo& found, const DocumentInfo& wanted, const std::string& where) {
  expect_field("n_tokens", found.n_tokens, wanted.n_tokens, where);
  expect_field("token_digest", found.token_digest.hex(), wanted.token_digest.hex(), where);
  expect_field("plan", found.plan, wanted.plan, where);
  expect_field("block_size", found.block_size, wanted.block_size, where);
  expect_field("anchor_size", found.anchor_size, wanted.anchor_size, where);
  expect_field("reach", found.reach, wanted.reach, where);
  expect_field("n_blocks", found.n_blocks, wanted.n_blocks, where);
  expect_field("kv_dtype", name_of(found.kv_dtype), name_of(wanted.kv_dtype), where);
  expect_field("n_layers", found.n_layers, wanted.n_layers, where);
  expect_field("n_kv_heads", found.n_kv_heads, wanted.n_kv_heads, where);
  expect_field("head_dim", found.head_dim, wanted.head_dim, where);
  expect_field("model_fingerprint", found.model.hex(), wanted.model.hex(), where);
}

}  // namespace starattn
