// SPDX-License-Identifier: Apache-2.0
// One saved document as one file, to be carried elsewhere: a tar archive (POSIX ustar; sizes from
// 8 GiB on as GNU tar has them) of its manifest, document.h5 and blocks, in this order.
#pragma once

#include <cstdint>
#include <string>

#include "checkpoint/store.h"

namespace starattn {

// Replaces nothing: throws cannot_create where the path exists, no_input where the store has no
// such document, bad_data where one of its files does not pass its digests, io.
void export_document(const CheckpointStore& store, const Digest& key, const std::string& path);

struct Imported {
  Digest key;
  std::int64_t n_blocks = 0;
  std::int64_t n_new = 0;  // of them; the store had the others
};
// Nothing of the archive is believed: names, sizes and digests are checked, and each file's
// structure, before it counts as saved. What came before an error stays. Throws no_input, bad_data,
// cannot_create, io.
Imported import_document(const CheckpointStore& store, const std::string& path);

}  // namespace starattn
