// SPDX-License-Identifier: Apache-2.0
// One saved document, as `inspect DIR/KEY` shows it.
#pragma once

#include <optional>
#include <string>

#include "base/error.h"
#include "checkpoint/digest.h"

namespace starattn {

struct CheckpointPath {
  std::string store;
  Digest key;
};

// "DIR/KEY" where the last part is a key, or the beginning of exactly one in DIR (4 digits or
// more). nullopt where DIR has none of that name; throws Error(usage) where it has several.
std::optional<CheckpointPath> find_checkpoint(std::string path);

// verify: every digest of every block is checked. bad_data when anything is damaged.
// as_json: one line of JSON instead.
Exit inspect_checkpoint(const CheckpointPath& path, bool verify, bool as_json);

}  // namespace starattn
