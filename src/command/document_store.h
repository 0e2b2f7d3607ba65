// SPDX-License-Identifier: Apache-2.0
// Encoded documents on disk, as a group of ranks uses them: blocks that a checkpoint holds are
// loaded, the others encoded and saved as each is finished.
#pragma once

#include <span>
#include <string>

#include "command/session.h"
#include "star/encode.h"

namespace starattn {

class DocumentStore {
 public:
  // directory: empty for no checkpoints. Arguments must outlive the store.
  DocumentStore(const std::string& directory, Session& session, const Communicator& group);

  // Collective over the group. complete_only: refuse (bad_data) instead of encoding what is
  // missing.
  DocumentKv load_or_encode(const BlockPlan& plan, std::span<const Token> context,
                            AnchorMode anchor_mode, bool complete_only, EncodeHooks hooks);

 private:
  std::string directory_;
  Session& session_;
  const Communicator& group_;
};

}  // namespace starattn
