// SPDX-License-Identifier: Apache-2.0
// document.h5: the token ids of the context, the plan, and who made it.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "checkpoint/document_info.h"
#include "checkpoint/verified_file.h"

namespace starattn {

// Writes the file under `path` (truncated first; not synced). Throws Error(io), after which the
// file is garbage.
void write_document_file(const std::string& path, const DocumentInfo& info,
                         std::span<const std::int32_t> token_ids);

struct SavedDocument {
  Provenance provenance;
  std::vector<std::int32_t> token_ids;  // [n_tokens]
};

// Digests, structure, then contents, which must agree with `info`. Throws Error(bad_data) naming
// file and field, or io.
SavedDocument read_document_file(VerifiedFile& file, const DocumentInfo& info);

}  // namespace starattn
