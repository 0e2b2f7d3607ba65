// SPDX-License-Identifier: Apache-2.0
#include "command/document_store.h"

namespace starattn {

DocumentStore::DocumentStore(const std::string& directory, Session& session,
                             const Communicator& group)
    : directory_(directory), session_(session), group_(group) {}

DocumentKv DocumentStore::load_or_encode(const BlockPlan& plan, std::span<const Token> context,
                                         AnchorMode anchor_mode, bool /*complete_only*/,
                                         EncodeHooks hooks) {
  Encoder encoder(*session_.decoder, group_, std::move(hooks));
  return encoder.encode(plan, context, anchor_mode);
}

}  // namespace starattn
