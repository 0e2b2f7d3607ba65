// SPDX-License-Identifier: Apache-2.0
// Encoded documents on disk, as a group of ranks uses them: blocks that a checkpoint holds are
// loaded, the others encoded and saved as each is finished.
#pragma once

#include <optional>
#include <span>
#include <string>

#include "checkpoint/store.h"
#include "run/loaded_model.h"
#include "star/encode.h"

namespace starattn {

class CheckpointedEncoder {
 public:
  // directory: empty for no checkpoints. Arguments must outlive the store.
  CheckpointedEncoder(const std::string& directory, LoadedModel& model, const Communicator& group);

  bool keeps() const { return !store_.directory().empty(); }

  // Collective over the group. complete_only: refuse (bad_data) instead of encoding what is
  // missing. A saved block that is damaged is reported and encoded again. With a directory, a stop
  // signal to any rank ends this with AgreedError(stopped) on all: ranks finish and save the blocks
  // they are at, and the message says how many are saved. AgreedError(io) where the weights have
  // changed: no block is saved that was computed since.
  // id: of the document, for `checkpoints list`.
  DocumentKv load_or_encode(const std::string& id, const BlockPlan& plan,
                            std::span<const Token> context, bool complete_only,
                            EncodeOptions options);

 private:
  DocumentInfo info_of(const BlockPlan& plan) const;
  DocumentCheckpoint open(const BlockPlan& plan, std::span<const Token> context,
                          bool complete_only) const;
  DocumentCheckpoint find_what_first_rank_has(const BlockPlan& plan,
                                              std::span<const Token> context) const;
  std::map<BlockId, KvCache> load_blocks(DocumentCheckpoint& saved, const BlockPlan& plan,
                                         KvMemory kv_memory) const;
  void stop_if_asked(const BlockPlan& plan, std::int64_t n_own_saved) const;
  DocumentKv encode(const BlockPlan& plan, std::span<const Token> context, EncodeOptions options,
                    std::map<BlockId, KvCache> loaded);
  void withdraw(DocumentCheckpoint& saved, const std::vector<BlockId>& blocks) const;
  // False where another process has saved the block meanwhile.
  bool save(DocumentCheckpoint& saved, const BlockPlan& plan, BlockId block,
            const KvCache& cache) const;

  CheckpointStore store_;
  LoadedModel& model_;
  const Communicator& group_;
  Encoder encoder_;
  Digest fingerprint_;
};

}  // namespace starattn
