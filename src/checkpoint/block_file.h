// SPDX-License-Identifier: Apache-2.0
// block-00007.h5: the K and V of one block, /layer_00/k and /layer_00/v and so on, each
// [n_tokens, n_kv_heads, head_dim]. Exactly this structure is written, and exactly this is read.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "checkpoint/document_info.h"
#include "checkpoint/kv_stream.h"
#include "checkpoint/verified_file.h"

namespace starattn {

// Writes the file under `path` (truncated first; not synced) and returns the digest of each part
// given, in order. Throws Error(io) on any failure, after which the file is garbage.
std::vector<Digest> write_block_file(const std::string& path, const DocumentInfo& info,
                                     std::int64_t block, const KvSource& source);

// Digests, then structure, then values, in this order. Throws Error(bad_data) naming file and
// field, or io; what the sink got until then is of no use.
void read_block_file(VerifiedFile& file, const DocumentInfo& info, std::int64_t block,
                     const KvSink& sink);

// The same checks without a place for the values: returns the digest of each part. Needs 64 MiB at
// most.
std::vector<Digest> digest_block_file(VerifiedFile& file, const DocumentInfo& info,
                                      std::int64_t block);

}  // namespace starattn
