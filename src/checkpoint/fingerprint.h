// SPDX-License-Identifier: Apache-2.0
// By what a document is found again: a digest of its content and of everything that changes its K
// and V. Paths, file names, dates and rank counts never enter.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/dtype.h"
#include "checkpoint/digest.h"

namespace starattn {

// canonical_config: the meaning of config.json in a text that the caller keeps stable (sizes, norm
// epsilon, RoPE). safetensors_files: of all their bytes, in any order.
Digest model_fingerprint(std::string_view canonical_config,
                         const std::vector<FileDigests>& safetensors_files);

// The same from the first 4 KiB of every tensor: tells models apart that are trained differently,
// in no time; of numbers changed by hand it may miss some.
Digest sampled_fingerprint(std::string_view canonical_config,
                           const std::vector<std::span<const std::byte>>& tensors);

Digest digest_of_tokens(std::span<const std::int32_t> token_ids);

// canonical_plan: "block_size=4096 anchor_size=4096 reach=0".
Digest document_key(std::int64_t n_tokens, const Digest& token_digest,
                    std::string_view canonical_plan, Dtype kv_dtype, const Digest& model);

}  // namespace starattn
