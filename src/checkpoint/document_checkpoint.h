// SPDX-License-Identifier: Apache-2.0
// One document on disk, <store>/<key>/: blocks are added and read one by one, by any number of
// processes at once. A block is committed, which is when the manifest lists it, or absent.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "checkpoint/document_info.h"
#include "checkpoint/file_io.h"
#include "checkpoint/kernel_lock.h"
#include "checkpoint/kv_stream.h"
#include "checkpoint/manifest.h"

namespace starattn {

// Opened by CheckpointStore. While it lives, nobody prunes the document. One thread at a time uses
// this library in a process (HDF5 may not be built for more).
class DocumentCheckpoint {
 public:
  const DocumentInfo& info() const { return info_; }
  const Digest& key() const { return key_; }
  const std::string& directory() const { return directory_; }

  // For `checkpoints list`: what the document is called where it is used.
  void note_name(const std::string& id) const;

  // Committed blocks whose file has the right size, ascending. Reads the manifest anew: other
  // processes add blocks too. Digests are not checked here.
  std::vector<std::int64_t> blocks_present() const;

  // Writes and commits one block: temporary file, fsync, read back and compared with what `source`
  // gave, rename, manifest. False when another process has committed the same block meanwhile; its
  // file stays. first_token and n_tokens must be the plan's. Throws Error(io | cannot_create),
  // after which the block is absent (or the other process's).
  bool write_block(std::int64_t block, std::int64_t first_token, std::int64_t n_tokens,
                   const KvSource& source);

  // The same with a file that was written elsewhere, synced, of these digests. Throws
  // Error(bad_data) where it does not pass read_block's checks.
  bool add_block(std::int64_t block, TemporaryFile& file, const FileDigests& digests);

  // Reads one block: every digest, then the structure, then the values. Throws Error(bad_data)
  // naming file and field, no_input when the block is not committed, io. After an exception what
  // the sink holds is not to be used.
  void read_block(std::int64_t block, const KvSink& sink) const;

  // Why the block cannot be used (read_block's checks, in full), or nothing when it is sound.
  std::optional<std::string> damage_of(std::int64_t block) const;

  // Takes a block that fails these checks out of the manifest, so that it counts as absent and can
  // be written again; returns the reason, or nothing when it was sound.
  std::optional<std::string> discard_if_damaged(std::int64_t block);

  // Deletes a block: it was computed from what should not have been.
  void withdraw(std::int64_t block);

  // The context's token ids, checked. Throws as read_block.
  std::vector<std::int32_t> read_token_ids() const;

 private:
  friend class CheckpointStore;
  DocumentCheckpoint(DocumentInfo info, std::string directory, double lock_seconds);

  std::string path_of(const std::string& name) const { return directory_ + "/" + name; }
  KernelLock lock() const;
  Manifest manifest() const;  // throws no_input when it is gone
  const FileDigests& entry(const Manifest& manifest, std::int64_t block) const;
  std::optional<std::string> damage(std::int64_t block, const FileDigests& file) const;
  bool commit_block(std::int64_t block, TemporaryFile& file, FileDigests digests);

  DocumentInfo info_;
  Digest key_;
  std::string directory_;
  double lock_seconds_;
  std::optional<KernelLock> in_use_;
};

}  // namespace starattn
