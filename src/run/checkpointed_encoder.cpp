// SPDX-License-Identifier: Apache-2.0
#include "run/checkpointed_encoder.h"

#include <algorithm>
#include <ctime>

#include "checkpoint/fingerprint.h"
#include "mpi/runtime.h"
#include "trace/range.h"
#include "version.h"

namespace starattn {
namespace {

std::string now_utc() {
  const std::time_t now = std::time(nullptr);
  char text[32] = {};
  std::strftime(text, sizeof(text), "%Y-%m-%dT%H:%M:%SZ", std::gmtime(&now));
  return text;
}

}  // namespace

CheckpointedEncoder::CheckpointedEncoder(const std::string& directory, LoadedModel& model,
                                         const Communicator& group)
    : store_(directory), model_(model), group_(group), encoder_(*model.decoder, group) {
  if (directory.empty()) return;
  fingerprint_ = model_fingerprint(canonical_text(model_.config), model_.watch.digests());
}

DocumentInfo CheckpointedEncoder::info_of(const BlockPlan& plan) const {
  DocumentInfo info;
  info.plan = plan.canonical_text();
  info.block_size = plan.block_size();
  info.anchor_size = plan.anchor_size();
  info.reach = plan.reach();
  info.n_blocks = plan.n_blocks();
  info.kv_dtype = model_.backend->kv_dtype();
  info.n_layers = model_.config.n_layers;
  info.n_kv_heads = model_.config.n_kv_heads;
  info.head_dim = model_.config.head_dim;
  info.model = fingerprint_;
  info.provenance = {"starattn " STARATTN_VERSION, command_line(), now_utc(), host_name()};
  return info;
}

DocumentKv CheckpointedEncoder::load_or_encode(const std::string& id, const BlockPlan& plan,
                                               std::span<const Token> context, bool complete_only,
                                               EncodeOptions options) {
  if (!keeps()) return encode(plan, context, std::move(options), {});
  std::optional<DocumentCheckpoint> saved;
  std::map<BlockId, KvCache> loaded;
  collectively(group_, [&] {  // the first rank makes what is missing, the others find it
    if (!group_.is_root()) return;
    saved = open(plan, context, complete_only);
    saved->note_name(id);
  });
  collectively(group_, [&] {
    if (!group_.is_root()) saved = find_what_first_rank_has(plan, context);
    loaded = load_blocks(*saved, plan, options.kv_memory);
    const std::size_t n_own = plan.blocks_of(group_.rank()).size();
    if (complete_only && loaded.size() < n_own) {
      fail(Exit::bad_data,
           "{}: {} of this rank's {} block(s) are saved and sound; run 'starattn encode' with the "
           "same settings first",
           saved->directory(), loaded.size(), n_own);
    }
  });
  // A block that cannot be saved must not stop the others, who wait for this rank's anchor: it is
  // said at the end, when every rank can hear it. Till then this rank's other blocks would only
  // wait for the same disk or lock.
  std::optional<Error> unsaved;
  auto n_own_saved = std::ssize(loaded);
  std::vector<BlockId> saved_now;
  options.stop = [&] { return unsaved || stop_requested(); };
  options.block_done = [&](BlockId block, const KvCache& cache) {
    if (unsaved) return;
    try {
      model_.watch.check();
      if (save(*saved, plan, block, cache)) saved_now.push_back(block);
      ++n_own_saved;
    } catch (const Error& error) {
      unsaved = error;
    }
  };
  DocumentKv kv;
  try {
    kv = encode(plan, context, std::move(options), std::move(loaded));
  } catch (const AgreedError& error) {
    if (error.exit() == Exit::io) withdraw(*saved, saved_now);
    throw;
  }
  collectively(group_, [&] {
    if (unsaved) throw *unsaved;
  });
  stop_if_asked(plan, n_own_saved);
  return kv;
}

// Weights that have changed are what went wrong, whatever came of it.
DocumentKv CheckpointedEncoder::encode(const BlockPlan& plan, std::span<const Token> context,
                                       EncodeOptions options, std::map<BlockId, KvCache> loaded) {
  DocumentKv kv;
  std::optional<AgreedError> failed;
  try {
    kv = encoder_.encode(plan, context, std::move(options), std::move(loaded));
  } catch (const AgreedError& error) {
    failed = error;
  }
  collectively(group_, [&] { model_.watch.check(); });
  if (failed) throw *failed;
  return kv;
}

// Blocks rest on what other ranks have sent, and another node may have heard of a change first.
void CheckpointedEncoder::withdraw(DocumentCheckpoint& saved,
                                   const std::vector<BlockId>& blocks) const {
  if (group_.split_by_node().size() == group_.size()) return;
  for (const BlockId block : blocks) saved.withdraw(block);
}

void CheckpointedEncoder::stop_if_asked(const BlockPlan& plan, std::int64_t n_own_saved) const {
  struct State {
    std::int64_t asked, n_saved;
  };
  State all{};
  for (const State& rank : group_.allgather(State{stop_requested(), n_own_saved})) {
    all = {all.asked + rank.asked, all.n_saved + rank.n_saved};
  }
  if (all.asked == 0) return;
  throw AgreedError(Exit::stopped, fmt::format("{} of {} blocks are saved in {}", all.n_saved,
                                               plan.n_blocks(), store_.directory()));
}

DocumentCheckpoint CheckpointedEncoder::open(const BlockPlan& plan, std::span<const Token> context,
                                             bool complete_only) const {
  if (!complete_only) return store_.open_or_create(info_of(plan), context, OnDamage::rebuild);
  std::optional<DocumentCheckpoint> saved = store_.find(info_of(plan), context);
  if (!saved) {
    fail(Exit::bad_data,
         "{}: no checkpoint of this document, model and plan ({}); run 'starattn encode' with the "
         "same settings first",
         store_.directory(), plan.canonical_text());
  }
  return std::move(*saved);
}

DocumentCheckpoint CheckpointedEncoder::find_what_first_rank_has(
    const BlockPlan& plan, std::span<const Token> context) const {
  std::optional<DocumentCheckpoint> saved = store_.find(info_of(plan), context);
  if (!saved) {
    fail(Exit::unfit,
         "--checkpoint-dir {}: the document that rank 0 of this group has there is not to be seen "
         "on {}; all nodes must see the same directory",
         store_.directory(), host_name());
  }
  return std::move(*saved);
}

std::map<BlockId, KvCache> CheckpointedEncoder::load_blocks(DocumentCheckpoint& saved,
                                                            const BlockPlan& plan,
                                                            KvMemory kv_memory) const {
  const trace::Range range("load blocks", trace::Lane::files);
  std::map<BlockId, KvCache> loaded;
  const std::vector<std::int64_t> present = saved.blocks_present();
  Backend& backend = *model_.backend;
  for (const BlockId block : plan.blocks_of(group_.rank())) {
    if (!std::ranges::binary_search(present, block)) continue;
    KvCache cache(backend, model_.config.n_layers, plan.block(block).n_tokens,
                  backend.kv_layout(model_.config.shape().attention), kv_memory);
    std::vector<std::byte> staging(cache.part_bytes());
    KvSink sink;
    sink.place = [&](std::int64_t, KvPart) { return std::span(staging); };
    sink.filled = [&](std::int64_t layer, KvPart part) {
      backend.upload(staging, part == KvPart::k ? cache.k(layer) : cache.v(layer));
    };
    try {
      saved.read_block(block, sink);
      trace::count_bytes("load blocks",
                         cache.part_bytes() * 2 * static_cast<std::size_t>(cache.n_layers()),
                         trace::Lane::files);
      loaded.emplace(block, std::move(cache));
    } catch (const Error& error) {
      if (error.exit() != Exit::bad_data && error.exit() != Exit::no_input) throw;
      log::error("{}; block {} counts as missing", error.what(), block);
    }
  }
  return loaded;
}

bool CheckpointedEncoder::save(DocumentCheckpoint& saved, const BlockPlan& plan, BlockId block,
                               const KvCache& cache) const {
  const trace::Range range("save blocks", trace::Lane::files);
  std::vector<std::byte> staging(cache.part_bytes());
  saved.discard_if_damaged(block);  // a sound one has not been encoded again
  const TokenRange span = plan.block(block);
  const auto source = [&](std::int64_t layer, KvPart part) {
    model_.backend->download(part == KvPart::k ? cache.k(layer) : cache.v(layer), staging);
    return std::span<const std::byte>(staging);
  };
  const bool is_ours = saved.write_block(block, span.first_doc, span.n_tokens, source);
  trace::count_bytes("save blocks",
                     cache.part_bytes() * 2 * static_cast<std::size_t>(cache.n_layers()),
                     trace::Lane::files);
  return is_ours;
}

}  // namespace starattn
