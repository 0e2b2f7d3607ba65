// SPDX-License-Identifier: Apache-2.0
#include "study/random_model.h"

#include <algorithm>
#include <map>

#include "star/answer.h"

namespace starattn {
namespace {

// Numbers are made a tensor at a time, and the host forgets what the device has. Returns the bytes
// that this rank's device keeps.
std::uint64_t load_weights(LoadedModel& model, const Ranks& ranks) {
  const WeightSharing& sharing = model.sharing;
  SharedModel shared;
  if (sharing.layers) shared = shared_model(model.weights, sharing.plan, model.config.head_dim);
  std::map<const std::byte*, WeightView> kept;  // rows, where not all
  const auto note = [&](const SharedMatrix& matrix) {
    const Share rows = matrix.rows[static_cast<std::size_t>(sharing.node->rank())];
    kept[matrix.whole.data] = matrix.whole.rows(rows.first, rows.count);
  };
  for (const auto& layer : shared.layers)
    for (const SharedMatrix& matrix : layer) note(matrix);
  if (sharing.layers) {
    note(shared.lm_head);
    note(shared.embedding);
  }
  for (const WeightView& weight : model.weights.all()) {
    const auto rows = kept.find(weight.data);
    const WeightView part = rows == kept.end() ? weight : rows->second;
    model.weights.fill(part);
    model.backend->load(weight);
    if (!model.backend->is_host_memory()) model.weights.forget(part);
  }
  ranks.world.barrier();
  connect_layers(model.sharing);
  if (sharing.streamed) return streamed_bytes(model.weights, *model.backend);
  return sharing.layers ? shared_bytes(model.weights, shared, *model.backend, sharing.node->rank())
                        : model.weights.total_bytes();
}

}  // namespace

std::unique_ptr<LoadedModel> make_random_model(const ModelConfig& config, const Options& options,
                                               const Ranks& ranks) {
  auto model = std::make_unique<LoadedModel>();
  LoadedModel& m = *model;  // its parts refer to each other
  m.config = config;
  m.weights = ModelWeights::random_later(m.config, Dtype::bf16, options.seed + 1);
  if (m.config.fp8.scales == Fp8Config::Scales::made) m.weights.make_fp8();
  m.backend = make_backend(options, ranks);
  m.backend->check_model(m.config.shape());
  m.sharing = share_weights(options, options.transport, options.weight_memory, ranks.group,
                            *m.backend, m.config, m.weights);
  m.weight_bytes = load_weights(m, ranks);
  m.decoder = std::make_unique<Decoder>(m.config, m.weights, *m.backend,
                                        std::max(m.backend->chunk_rows(), Answerer::kMaxRows),
                                        m.sharing.fetched());
  m.answering = std::make_unique<Answering>(ranks.group, *m.decoder, m.weights, m.sharing);
  return model;
}

}  // namespace starattn
