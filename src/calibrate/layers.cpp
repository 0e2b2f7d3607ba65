// SPDX-License-Identifier: Apache-2.0
#include "calibrate/layers.h"

#include <utility>

#include "calibrate/line_through.h"
#include "star/seconds.h"

namespace starattn {
namespace {

constexpr std::int64_t kVocabulary = 4096;
constexpr std::int64_t kExperts = 16, kChosen = 2;
constexpr std::int64_t kExpertsOnGpu[] = {512, 1536}, kExpertsOnCpu[] = {256, 768};

bool has_f8(const ModelConfig& config) {
  return config.fp8.scales != Fp8Config::Scales::none;
}

// Of the matrices that all rows of a layer go through.
double weight_bytes(const ModelConfig& config) {
  const std::int64_t inter = config.mixture.n_experts > 0 ? 0 : config.intermediate_size;
  return (has_f8(config) ? 1 : 2) *
         static_cast<double>(config.hidden_size *
                             (2 * config.q_width() + 2 * config.kv_width() + 3 * inter));
}

double layer_of_step(const Machine& m, const ModelConfig& config, std::int64_t n_rows) {
  return seconds_of(has_f8(config) ? m.f8_weights->thin_layers : m.thin_layers, n_rows,
                    config.hidden_size, weight_bytes(config));
}

// Parts by themselves: all but attention, and attention, of a layer of phase 1.
std::pair<double, double> parts_of(ModelConfig config, Machine m, std::int64_t n_rows) {
  config.fp8 = {};
  m.in_layer.clear();
  const Seconds seconds(config, m);
  return {seconds.project(n_rows) + seconds.feed_forward(n_rows, false), seconds.attend(n_rows, 0)};
}

// Whether attention is so much of a layer that it can be told apart from the rest.
bool shows(double attention, double rest) {
  constexpr double kLeastShare = 0.25;
  return attention >= kLeastShare * (attention + rest);
}

// What parts take in a layer over that, however wrong a busy machine makes it.
double times(double value) {
  return std::clamp(value, 0.1, 10.0);
}

}  // namespace

Machine::InLayer in_layer_through(const Machine& m, const ModelConfig& config, std::int64_t n_few,
                                  double few, std::int64_t n_many, double many) {
  const auto [rest_few, attention_few] = parts_of(config, m, n_few);
  const auto [rest_many, attention_many] = parts_of(config, m, n_many);
  Machine::InLayer in_layer{config.hidden_size};
  if (!shows(attention_many, rest_many)) {
    in_layer.products = in_layer.attention =
        times((few + many) / (rest_few + attention_few + rest_many + attention_many));
  } else {
    const double both = rest_few * attention_many - rest_many * attention_few;
    in_layer.products = times((few * attention_many - many * attention_few) / both);
    in_layer.attention = times((rest_few * many - rest_many * few) / both);
  }
  return in_layer;
}

Machine::InLayer in_layer_like(const Machine& m, const ModelConfig& config, std::int64_t n_rows,
                               double layer) {
  const auto [rest, attention] = parts_of(config, m, n_rows);
  Machine::InLayer in_layer = in_layer_of(m.in_layer, config.hidden_size);
  const double factor = times(layer / (in_layer.products * rest + in_layer.attention * attention));
  in_layer.hidden_size = config.hidden_size;
  in_layer.products = times(in_layer.products * factor);
  in_layer.attention = times(in_layer.attention * factor);
  return in_layer;
}

SmallModel::Timer LayerCalibration::over(std::size_t n_bundles) const {
  return [this, n_bundles](const std::function<void()>& operation) {
    return timer_([&](std::int64_t) { operation(); }, n_bundles);
  };
}

const LayerCalibration::Sizes& LayerCalibration::sizes(std::size_t i) const {
  static constexpr Sizes kOnGpu[] = {{1024, 64, 1024, 4096}, {4096, 128, 4096, 12288}};
  static constexpr Sizes kOnCpu[] = {{1024, 64, 1024, 3072}, {2048, 128, 2048, 6144}};
  return backend_.is_host_memory() ? kOnCpu[i] : kOnGpu[i];
}

ModelConfig LayerCalibration::config_of(const Sizes& sizes, std::int64_t inter) const {
  ModelConfig config;
  config.vocab_size = kVocabulary;
  config.hidden_size = sizes.hidden;
  config.intermediate_size = inter;
  config.head_dim = sizes.head_dim;
  config.n_heads = sizes.hidden / sizes.head_dim;
  config.n_kv_heads = config.n_heads / 4;
  return config;
}

SmallModel& LayerCalibration::model(const ModelConfig& config, Backend& backend) {
  models_.push_back(std::make_unique<SmallModel>(config, backend, self_));
  return *models_.back();
}

std::int64_t LayerCalibration::n_long_rows() const {
  return (backend_.is_host_memory() ? 3 : 8) * chunk();
}

double LayerCalibration::kv_bytes(const ModelConfig& config, std::int64_t n_tokens,
                                  Dtype dtype) const {
  return 2 * static_cast<double>(n_tokens) *
         static_cast<double>(KvLayout{dtype, config.n_kv_heads, config.head_dim}.row_bytes());
}

void LayerCalibration::measure(Machine& m) {
  for (const std::size_t i : {0U, 1U}) {
    const ModelConfig narrow_config = config_of(sizes(i), sizes(i).narrow);
    const ModelConfig config = config_of(sizes(i), sizes(i).wide);
    SmallModel& wide = model(config, backend_);
    measure_encoding(m, config, wide);
    if (!backend_.is_host_memory()) correct_attention(m, config, wide);
    const auto layers = thin_layers(m, narrow_config, config, model(narrow_config, backend_), wide);
    m.thin_layers.insert(m.thin_layers.end(), layers.begin(), layers.end());
    if (i == 0) continue;
    correct_next_tokens(m, config, wide);
    measure_f8_weights(m, narrow_config, config);
  }
  m.experts = experts(m, Fp8Config::Scales::none);
  m.f8_weights->experts = experts(m, Fp8Config::Scales::made);
  measure_f8_kv(m);
}

// A short and a long block tell attention from the rest.
void LayerCalibration::measure_encoding(Machine& m, const ModelConfig& config, SmallModel& model) {
  const std::int64_t n_few = chunk(), n_many = n_long_rows();
  const SmallModel::Encoding few = model.encode(n_few, over(kBundles));
  const SmallModel::Encoding many = model.encode(n_many, over(kBundles));
  m.in_layer.push_back(in_layer_through(m, config, n_few, few.layer, n_many, many.layer));
  const auto bytes = [&](std::int64_t n) {
    return static_cast<double>(n * config.head_dim) * sizeof(float);
  };
  const Seconds seconds(config, m);
  const auto start = [&](const SmallModel::Encoding& encoding, std::int64_t n) {
    return std::max(0.0, encoding.rest - seconds.project_kv(n));
  };
  m.block_start = line_through(bytes(n_few), start(few, n_few), bytes(n_many), start(many, n_many));
}

// Between other operations keys and values come at another rate than in a row of such calls: on a
// GPU, that is. On a CPU two differences of noise would take the place of a good measurement.
void LayerCalibration::correct_attention(Machine& m, const ModelConfig& config, SmallModel& model) {
  const std::int64_t n_few = chunk(), n_many = n_many_keys(chunk());
  const double few_bytes = kv_bytes(config, n_few, m.dtype);
  for (Machine::Thin& thin : m.thin_attention) {
    if (thin.length != config.head_dim) continue;
    const double few = model.step(thin.n_rows, n_few, over(kFewBundles)).layer;
    const double many = model.step(thin.n_rows, n_many, over(kFewBundles)).layer;
    const double alone = thin.line.seconds(few_bytes);
    thin.line = line_through(few_bytes, alone, kv_bytes(config, n_many, m.dtype),
                             alone + std::max(0.0, many - few));
  }
}

// All of a layer of a step but the context.
std::vector<Machine::Thin> LayerCalibration::thin_layers(const Machine& m,
                                                         const ModelConfig& narrow_config,
                                                         const ModelConfig& wide_config,
                                                         SmallModel& narrow, SmallModel& wide) {
  std::vector<Machine::Thin> layers;
  for (const std::int64_t n : kThinRows) {
    const double few = beside_context(m, narrow_config, narrow, n);
    const double many = beside_context(m, wide_config, wide, n);
    layers.push_back(
        {n, wide_config.hidden_size,
         line_through(weight_bytes(narrow_config), few, weight_bytes(wide_config), many)});
  }
  return layers;
}

double LayerCalibration::beside_context(const Machine& m, const ModelConfig& config,
                                        SmallModel& model, std::int64_t n_rows) {
  const double layer = model.step(n_rows, chunk(), over(kFewBundles)).layer;
  const double context =
      seconds_of(m.thin_attention, n_rows, config.head_dim, kv_bytes(config, chunk(), m.dtype));
  return std::max(0.1 * layer, layer - context);
}

// All of a step that is in no layer.
void LayerCalibration::correct_next_tokens(Machine& m, const ModelConfig& config,
                                           SmallModel& model) {
  for (Machine::Thin& thin : m.next_tokens) {
    const double rest = model.step(thin.n_rows, chunk(), over(kFewBundles)).rest;
    const double head = seconds_of(m.thin_products, thin.n_rows, config.hidden_size,
                                   2 * static_cast<double>(config.vocab_size * config.hidden_size));
    const double logits = static_cast<double>(thin.n_rows * config.vocab_size) * sizeof(float);
    thin.line.start_s = std::max(0.0, rest - head - logits / thin.line.bytes_per_s);
  }
}

void LayerCalibration::measure_f8_weights(Machine& m, ModelConfig narrow_config,
                                          ModelConfig wide_config) {
  narrow_config.fp8.scales = wide_config.fp8.scales = Fp8Config::Scales::made;
  SmallModel& wide = model(wide_config, backend_);
  const auto [rest, attention] = parts_of(wide_config, m, chunk());
  const double layer = wide.encode(chunk(), over(kBundles)).layer;
  const Machine::InLayer& base = m.in_layer.back();
  m.f8_weights.emplace();
  m.f8_weights->in_layer = {{wide_config.hidden_size,
                             times((layer - base.attention * attention) / rest), base.attention}};
  m.f8_weights->thin_layers =
      thin_layers(m, narrow_config, wide_config, model(narrow_config, backend_), wide);
}

Machine::Experts LayerCalibration::experts(const Machine& m, Fp8Config::Scales scales) {
  Machine::Experts all;
  std::vector<std::vector<std::pair<double, double>>> steps(std::size(kThinRows));
  for (const std::int64_t size : backend_.is_host_memory() ? kExpertsOnCpu : kExpertsOnGpu) {
    Sizes half = sizes(1);
    half.hidden /= 2;
    ModelConfig config = config_of(half, size);
    config.family = Family::qwen3_moe;
    config.qk_norm = true;
    config.fp8.scales = scales;
    ModelConfig dense = config;
    config.mixture = {.n_experts = kExperts,
                      .n_chosen = kChosen,
                      .expert_size = size,
                      .routing = {.renormalise = true}};
    SmallModel& mixture = model(config, backend_);
    const Seconds seconds(dense, m);
    const double layer = mixture.encode(chunk(), over(kBundles)).layer;
    const double rest =
        seconds.project(chunk()) + seconds.attend(chunk(), 0) + seconds.output(chunk());
    const double n_operations =
        6 * static_cast<double>(chunk() * kChosen * size * config.hidden_size);
    all.products.push_back({size, n_operations / std::max(0.1 * layer, layer - rest)});
    const double expert_bytes =
        (has_f8(config) ? 1 : 2) * static_cast<double>(3 * size * config.hidden_size);
    for (std::size_t i = 0; i < std::size(kThinRows); ++i) {
      const std::int64_t n = kThinRows[i];
      const double whole = beside_context(m, config, mixture, n);
      steps[i].emplace_back(n_chosen_experts(config.mixture, n) * expert_bytes,
                            std::max(0.1 * whole, whole - layer_of_step(m, config, n)));
    }
  }
  for (std::size_t i = 0; i < std::size(kThinRows); ++i) {
    const auto& few = steps[i].front();
    const auto& many = steps[i].back();
    all.thin.push_back(
        {kThinRows[i], 0, line_through(few.first, few.second, many.first, many.second)});
  }
  return all;
}

void LayerCalibration::measure_f8_kv(Machine& m) {
  m.f8_kv.emplace();
  for (const std::size_t i : {0U, 1U}) {
    const ModelConfig config = config_of(sizes(i), sizes(i).wide);
    SmallModel& f8 = model(config, f8_kv_);
    const double layer = f8.encode(n_long_rows(), over(kBundles)).layer;
    const auto [rest, attention] = parts_of(config, m, n_long_rows());
    Machine::InLayer in_layer = m.in_layer[i];
    if (shows(attention, rest)) {
      in_layer.attention = times((layer - in_layer.products * rest) / attention);
    } else {
      in_layer.products = in_layer.attention = times(layer / (rest + attention));
    }
    m.f8_kv->in_layer.push_back(in_layer);
    for (const std::int64_t n : kThinRows) {
      const auto context = [&](std::int64_t n_keys) {
        const double whole = f8.step(n, n_keys, over(kFewBundles)).layer;
        return std::max(0.01 * whole, whole - layer_of_step(m, config, n));
      };
      const std::int64_t n_few = chunk(), n_many = n_many_keys(chunk());
      m.f8_kv->thin_attention.push_back(
          {n, config.head_dim,
           line_through(kv_bytes(config, n_few, Dtype::f8), context(n_few),
                        kv_bytes(config, n_many, Dtype::f8), context(n_many))});
    }
  }
}

}  // namespace starattn
