// SPDX-License-Identifier: Apache-2.0
// One saved document: <dir>/<key>/document.h5, block-00007.h5 ..., and manifest.json, which says
// what counts. A file counts once the manifest has its size and digests; the manifest is rewritten
// by rename under a kernel lock, so several processes may add blocks at once, and a crash leaves a
// block either saved or absent.
#pragma once

#include <cstdint>
#include <map>
#include <set>
#include <span>
#include <string>

#include "checkpoint/block_file.h"
#include "checkpoint/document_info.h"

namespace starattn {

class BlockArchive {
 public:
  BlockArchive(const std::string& directory, DocumentInfo info);

  const std::string& path() const { return path_; }

  // Makes the folder and document.h5 where they are missing. Throws Error(cannot_create | io).
  void create(std::span<const std::int32_t> token_ids);

  // Blocks that the manifest has; none where there is no manifest. Throws Error(bad_data) for a
  // manifest that is damaged or of another document.
  std::set<std::int64_t> saved_blocks() const;

  // Writes the file under a temporary name, syncs and verifies it, then makes it count.
  void save(std::int64_t block, const KvSource& source) const;

  // Digests and structure are checked before a value is used. Throws Error(bad_data) naming file
  // and field.
  void load(std::int64_t block, const KvSink& sink) const;

 private:
  using Files = std::map<std::string, FileDigests>;

  std::string block_name(std::int64_t block) const;
  Files read_manifest() const;
  void commit(const std::string& name, const FileDigests& digests) const;

  std::string path_;
  DocumentInfo info_;
};

}  // namespace starattn
