// SPDX-License-Identifier: Apache-2.0
#include "calibrate/small_model.h"

#include <algorithm>
#include <vector>

#include "base/clock.h"
#include "calibrate/inputs.h"

namespace starattn {
namespace {

// On a GPU so many that it hardly pauses between documents, or it would run at a higher clock.
struct Depths {
  std::int64_t few, more;
};
Depths depths_on(const Backend& backend) {
  return backend.is_host_memory() ? Depths{2, 4} : Depths{4, 8};
}

ModelConfig with_layers(ModelConfig config, std::int64_t n_layers) {
  config.n_layers = n_layers;
  if (config.mixture.n_experts > 0)
    config.layers.assign(static_cast<std::size_t>(n_layers), {.is_mixture = true});
  return config;
}

ModelWeights make_weights(const ModelConfig& config, Backend& backend) {
  ModelWeights weights = ModelWeights::random_later(config, Dtype::bf16, /*seed=*/1);
  if (config.fp8.scales == Fp8Config::Scales::made) weights.make_fp8();
  for (const WeightView& weight : weights.all()) {
    weights.fill(weight);
    backend.load(weight);
    if (!backend.is_host_memory()) weights.forget(weight);
  }
  return weights;
}

BlockPlan single_block(std::int64_t n_tokens) {
  PlanRequest request;
  request.attention = Attention::dense;
  return BlockPlan::make(request, n_tokens, 1);
}

// Random keys and values: the same 1024 rows again and again.
void fill(const KvCache& kv, const AttentionShape& shape, Backend& backend) {
  const std::int64_t n_made = std::min<std::int64_t>(kv.n_tokens(), 1024);
  const std::int64_t width = shape.n_kv_heads * shape.head_dim;
  const std::vector<std::byte> numbers = random_numbers(n_made * width, backend.activation_dtype());
  const std::span<const std::byte> bytes(numbers);
  const RowBuffer made(backend, n_made, width);
  backend.upload(bytes, made.rows(n_made).data);
  for (std::int64_t layer = 0; layer < kv.n_layers(); ++layer) {
    for (std::int64_t first = 0; first < kv.n_tokens(); first += n_made) {
      const std::int64_t n = std::min(n_made, kv.n_tokens() - first);
      for (const RawRows& to : {kv.k_rows(layer, first, n), kv.v_rows(layer, first, n)}) {
        if (kv.layout().is_f8()) {
          backend.narrow(made.rows(n), shape.head_dim, to);
        } else {
          backend.upload_later(bytes.first(static_cast<std::size_t>(n) * to.row_bytes), to.data);
        }
      }
    }
  }
  backend.synchronize();
}

}  // namespace

SmallModel::Depth::Depth(const ModelConfig& whole, std::int64_t n_layers,
                         const ModelWeights& weights, Backend& backend, const Communicator& self)
    : config(with_layers(whole, n_layers)),
      decoder(config, weights, backend, std::max(backend.chunk_rows(), Answerer::kMaxRows)),
      encoder(decoder, self),
      exchange(Answerer::exchange(decoder, self)) {}

SmallModel::SmallModel(const ModelConfig& config, Backend& backend, const Communicator& self)
    : backend_(&backend),
      weights_(make_weights(with_layers(config, depths_on(backend).more), backend)),
      few_(std::make_unique<Depth>(config, depths_on(backend).few, weights_, backend, self)),
      more_(std::make_unique<Depth>(config, depths_on(backend).more, weights_, backend, self)) {}

SmallModel::Encoding SmallModel::encode(std::int64_t n_rows, const Timer& timer) {
  const BlockPlan plan = single_block(n_rows);
  std::vector<Token> context;
  for (std::int64_t i = 0; i < n_rows; ++i)
    context.push_back(static_cast<Token>(i * 2654435761 % few_->config.vocab_size));
  const auto seconds = [&](Depth& depth) {
    return timer([&] { depth.encoder.encode(plan, context); });
  };
  // A GPU that has rested is faster than one in a run, for about as long.
  constexpr double kWarmUp = 1;
  for (const Stopwatch clock; !backend_->is_host_memory() && clock.seconds() < kWarmUp;)
    more_->encoder.encode(plan, context);
  const double few = seconds(*few_);
  const double layer = (seconds(*more_) - few) / n_between();
  return {layer, few - layer * static_cast<double>(few_->config.n_layers - 1)};
}

SmallModel::Step SmallModel::step(std::int64_t n_rows, std::int64_t n_keys, const Timer& timer) {
  const double few = seconds_of_step(*few_, n_rows, n_keys, timer);
  const double more = seconds_of_step(*more_, n_rows, n_keys, timer);
  const double layer = (more - few) / n_between();
  return {layer, few - layer * static_cast<double>(few_->config.n_layers)};
}

double SmallModel::n_between() const {
  return static_cast<double>(more_->config.n_layers - few_->config.n_layers);
}

double SmallModel::seconds_of_step(Depth& depth, std::int64_t n_rows, std::int64_t n_keys,
                                   const Timer& timer) const {
  const AttentionShape shape = depth.decoder.attention_shape();
  DocumentKv kv{single_block(n_keys), {}};
  kv.blocks.emplace(0, KvCache(*backend_, depth.config.n_layers, n_keys, backend_->kv_layout(shape),
                               KvMemory::device));
  fill(kv.blocks.at(0), shape, *backend_);
  Answerer answerer(depth.decoder, depth.exchange, kv, {});
  const std::int64_t n_steps = backend_->is_host_memory() ? 2 : 16;
  std::vector<QueryJob> jobs;
  for (std::int64_t i = 0; i < n_rows; ++i)
    jobs.push_back({{static_cast<Token>(i % depth.config.vocab_size)}, n_steps, 0});
  return timer([&] { answerer.answer(jobs); }) / static_cast<double>(n_steps);
}

}  // namespace starattn
