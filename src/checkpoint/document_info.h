// SPDX-License-Identifier: Apache-2.0
// What a saved document is: its size, its plan, the shape and format of its K and V, its model.
// Nothing here knows a rank.
#pragma once

#include <cstdint>
#include <string>

#include "base/dtype.h"
#include "checkpoint/digest.h"

namespace starattn {

enum class KvPart : std::uint8_t { k, v };

// Who made it, for people. Never compared.
struct Provenance {
  std::string program;  // "starattn 0.1.0"
  std::string command_line;
  std::string created;  // "2026-11-23T19:24:00Z"
  std::string host;
};

struct DocumentInfo {
  std::int64_t n_tokens = 0;     // of the context
  Digest token_digest;           // digest_of_tokens
  std::string plan;              // canonical text: "block_size=4096 anchor_size=4096 reach=0"
  std::int64_t block_size = 0;   // tokens
  std::int64_t anchor_size = 0;  // tokens
  std::int64_t reach = 0;        // blocks
  std::int64_t n_blocks = 0;
  Dtype kv_dtype = Dtype::f32;
  std::int64_t n_layers = 0;
  std::int64_t n_kv_heads = 0;
  std::int64_t head_dim = 0;
  Digest model;  // model_fingerprint
  Provenance provenance;

  Digest key() const;

  std::int64_t first_token(std::int64_t block) const { return block * block_size; }
  std::int64_t n_tokens_of(std::int64_t block) const;  // block_size, or fewer in the last block

  // Bytes of K, or of V, of one layer of n tokens: [n, n_kv_heads, head_dim].
  std::size_t part_bytes(std::int64_t n) const;
};

// Throws Error(bad_data) naming `where` and the field where a size is out of range, the sizes do
// not fit each other, or a product overflows.
void validate(const DocumentInfo& info, const std::string& where);

// Throws Error(bad_data) naming the first field in which the two differ; provenance is left out.
void expect_same(const DocumentInfo& found, const DocumentInfo& wanted, const std::string& where);

}  // namespace starattn
