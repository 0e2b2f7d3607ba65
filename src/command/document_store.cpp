// SPDX-License-Identifier: Apache-2.0
#include "command/document_store.h"

#include <ctime>

#include "checkpoint/fingerprint.h"
#include "mpi/runtime.h"
#include "obs/range.h"
#include "version.h"

namespace starattn {
namespace {

std::string now_utc() {
  const std::time_t now = std::time(nullptr);
  char text[32] = {};
  std::strftime(text, sizeof(text), "%Y-%m-%dT%H:%M:%SZ", std::gmtime(&now));
  return text;
}

// Everything of config.json that changes K and V.
std::string canonical_config(const ModelConfig& c) {
  return fmt::format(
      "{} vocab={} hidden={} intermediate={} layers={} heads={} kv_heads={} head_dim={} "
      "eps={:.17g} rope={} {:.17g} "
      "{:.17g} {:.17g} {:.17g} {} {:.17g} {:.17g} {:.17g} {:.17g} {:.17g} {}",
      c.architecture, c.vocab_size, c.hidden_size, c.intermediate_size, c.n_layers, c.n_heads,
      c.n_kv_heads, c.head_dim, c.rms_norm_eps, static_cast<int>(c.rope.kind), c.rope.theta,
      c.rope.factor, c.rope.low_freq_factor, c.rope.high_freq_factor, c.rope.original_positions,
      c.rope.beta_fast, c.rope.beta_slow, c.rope.attention_factor, c.rope.mscale,
      c.rope.mscale_all_dim, c.rope.truncate);
}

}  // namespace

DocumentStore::DocumentStore(const std::string& directory, Session& session,
                             const Communicator& group)
    : directory_(directory), session_(session), group_(group) {
  if (directory_.empty()) return;
  collectively(group_, [&] {
    if (!group_.is_root()) return;
    const obs::Range range("fingerprint model");
    std::vector<std::string> files;
    for (const MappedFile* file : session_.weights.files()) files.push_back(file->path());
    model_ = model_fingerprint(canonical_config(session_.config), files);
  });
  model_ = group_.bcast_value(model_, 0);
}

DocumentInfo DocumentStore::info_of(const BlockPlan& plan, std::span<const Token> context) const {
  DocumentInfo info;
  info.n_tokens = plan.n_context();
  info.token_digest = digest_of_tokens(context);
  info.plan = plan.canonical_text();
  info.block_size = plan.block_size();
  info.anchor_size = plan.anchor_size();
  info.reach = plan.reach();
  info.n_blocks = plan.n_blocks();
  info.kv_dtype = session_.backend->kv_dtype();
  info.n_layers = session_.config.n_layers;
  info.n_kv_heads = session_.config.n_kv_heads;
  info.head_dim = session_.config.head_dim;
  info.model = model_;
  info.provenance = {"starattn " STARATTN_VERSION, "", now_utc(), host_name()};
  return info;
}

DocumentKv DocumentStore::load_or_encode(const BlockPlan& plan, std::span<const Token> context,
                                         AnchorMode anchor_mode, bool complete_only,
                                         EncodeHooks hooks) {
  if (directory_.empty()) {
    Encoder encoder(*session_.decoder, group_, std::move(hooks));
    return encoder.encode(plan, context, anchor_mode);
  }
  std::optional<BlockArchive> archive;
  std::map<BlockId, KvCache> loaded;
  collectively(group_, [&] {
    archive.emplace(directory_, info_of(plan, context));
    if (group_.is_root() && !complete_only) archive->create(context);
  });
  collectively(group_, [&] {
    loaded = load_blocks(*archive, plan);
    const std::size_t n_own = plan.blocks_of(group_.rank()).size();
    if (complete_only && loaded.size() < n_own) {
      fail(Exit::bad_data,
           "{}: {} of this rank's {} block(s) are saved; run 'starattn encode' with the same "
           "settings first",
           archive->path(), loaded.size(), n_own);
    }
  });
  // A block that cannot be saved must not stop the others, who wait for this rank's anchor: it is
  // said at the end, when every rank can hear it.
  std::optional<Error> unsaved;
  hooks.block_done = [&](BlockId block, const KvCache& cache) {
    try {
      save(*archive, block, cache);
    } catch (const Error& error) {
      unsaved = error;
    }
  };
  Encoder encoder(*session_.decoder, group_, std::move(hooks));
  DocumentKv kv = encoder.encode(plan, context, anchor_mode, std::move(loaded));
  collectively(group_, [&] {
    if (unsaved) throw *unsaved;
  });
  return kv;
}

std::map<BlockId, KvCache> DocumentStore::load_blocks(const BlockArchive& archive,
                                                      const BlockPlan& plan) const {
  const obs::Range range("load blocks");
  std::map<BlockId, KvCache> loaded;
  const std::set<std::int64_t> saved = archive.saved_blocks();
  Backend& backend = *session_.backend;
  for (const BlockId block : plan.blocks_of(group_.rank())) {
    if (!saved.contains(block)) continue;
    KvCache cache(backend, session_.config.n_layers, plan.block(block).n_tokens,
                  session_.config.kv_width());
    std::vector<std::byte> staging(cache.part_bytes());
    const auto memory = [&](std::int64_t layer, KvPart part) {
      return part == KvPart::k ? cache.k(layer) : cache.v(layer);
    };
    KvSink sink;
    sink.place = [&](std::int64_t, KvPart) { return std::span(staging); };
    sink.filled = [&](std::int64_t layer, KvPart part) {
      backend.upload(staging, memory(layer, part));
    };
    try {
      archive.load(block, sink);
      obs::count_bytes("load blocks",
                       cache.part_bytes() * 2 * static_cast<std::size_t>(cache.n_layers()));
      loaded.emplace(block, std::move(cache));
    } catch (const Error& error) {
      if (error.exit() != Exit::bad_data && error.exit() != Exit::no_input) throw;
      log::error("{}; block {} is encoded again", error.what(), block);
    }
  }
  return loaded;
}

void DocumentStore::save(const BlockArchive& archive, BlockId block, const KvCache& cache) const {
  const obs::Range range("save blocks");
  std::vector<std::byte> staging(cache.part_bytes());
  archive.save(block, [&](std::int64_t layer, KvPart part) {
    session_.backend->download(part == KvPart::k ? cache.k(layer) : cache.v(layer), staging);
    return std::span<const std::byte>(staging);
  });
  obs::count_bytes("save blocks",
                   cache.part_bytes() * 2 * static_cast<std::size_t>(cache.n_layers()));
}

}  // namespace starattn
