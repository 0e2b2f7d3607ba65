// SPDX-License-Identifier: Apache-2.0
// A directory of saved documents, each found again by its content: <dir>/<key>/. Nothing in it
// knows a rank, so what 16 ranks saved, 3 can open.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "checkpoint/document_checkpoint.h"

namespace starattn {

// What to do with a manifest or document.h5 that does not pass its checks: report it, or start it
// anew with a warning in the log (blocks that a lost manifest listed are then absent). Where a
// folder stands in a file's place, or no folder in the document's, rebuild sets the whole aside
// under another name.
enum class OnDamage { refuse, rebuild };

struct DocumentSummary {
  Digest key;
  std::string directory;
  std::string problem;  // why it cannot be used; then info and blocks_present mean nothing
  DocumentInfo info;
  std::string name;  // the id of the document that a run used it for last; empty: not known
  std::int64_t n_blocks_present = 0;
  std::uint64_t n_bytes = 0;           // of all its files but the locks
  std::int64_t last_written_unix = 0;  // seconds since 1970
  std::int64_t last_used_unix = 0;     // when a run last opened it; 0 where that is not known
  bool complete() const { return problem.empty() && n_blocks_present == info.n_blocks; }
};

class CheckpointStore {
 public:
  // lock_seconds: how long to wait for another process's lock.
  explicit CheckpointStore(std::string directory, double lock_seconds = 10.0);

  // The document of this content; created where it is new. n_tokens and token_digest of `info` are
  // filled in from the ids. Where this user may only read, a complete document is opened to be
  // read. Throws Error(bad_data) where the saved document is damaged or differs in a field,
  // cannot_create, io.
  DocumentCheckpoint open_or_create(DocumentInfo info, std::span<const std::int32_t> token_ids,
                                    OnDamage on_damage = OnDamage::refuse) const;

  // The same, but nothing is created or written (the directory may be read-only): nullopt where the
  // store has no such document.
  std::optional<DocumentCheckpoint> find(DocumentInfo info,
                                         std::span<const std::int32_t> token_ids) const;

  // By key, for a look inside; provenance is complete. Throws no_input where there is none.
  DocumentCheckpoint open(const Digest& key) const;

  // Every document, by key. Directories that are not named like a key are passed over; documents
  // that cannot be read are listed with their problem. An absent directory is an empty store.
  std::vector<DocumentSummary> list() const;

  // What is no folder, in a document's place, is set aside: it gets another name, said once.
  void replace_what_is_no_folder(const std::string& directory) const;

  const std::string& directory() const { return directory_; }
  double lock_seconds() const { return lock_seconds_; }

 private:
  std::string directory_of(const Digest& key) const { return directory_ + "/" + key.hex(); }
  bool is_alone_with(DocumentCheckpoint& document) const;

  std::string directory_;
  double lock_seconds_;
};

// What one document's directory looks like now. Never throws for what it finds there.
DocumentSummary summarize_document(const std::string& directory, const Digest& key);

// Removes what dead writers left in the directory. The document must not be in use by others.
// Returns how many files went.
int remove_temporaries(const std::string& directory);

}  // namespace starattn
