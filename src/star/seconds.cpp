// SPDX-License-Identifier: Apache-2.0
#include "star/seconds.h"

#include <algorithm>
#include <cmath>

#include "base/error.h"
#include "star/context_attention.h"
#include "star/recall_choice.h"

namespace starattn {
namespace {

constexpr double kF32 = sizeof(float);

// Of parts in a layer with these weights, keys and values.
Machine::InLayer in_layer_of(const ModelConfig& config, const Machine& machine) {
  const auto at = [&](const std::vector<Machine::InLayer>& measured) {
    return starattn::in_layer_of(measured, config.hidden_size);
  };
  Machine::InLayer times = at(machine.in_layer);
  const double products = times.products;
  if (machine.has_f8_kv) times = at(machine.f8_kv->in_layer);
  if (config.fp8.scales == Fp8Config::Scales::none) return times;
  times.products *= at(machine.f8_weights->in_layer).products / products;
  return times;
}

bool has_f8_experts(const ModelConfig& config) {
  return config.mixture.are_f8 || config.fp8.scales != Fp8Config::Scales::none;
}

void refuse_what_was_not_measured(const ModelConfig& config, const Machine& machine) {
  const bool has_f8 = config.fp8.scales != Fp8Config::Scales::none;
  const bool is_mixture = config.mixture.n_experts > 0;
  const bool has_experts = has_f8_experts(config)
                               ? machine.f8_weights && machine.f8_weights->experts
                               : machine.experts.has_value();
  if (is_mixture && !has_experts) {
    fail(Exit::unfit,
         "no times for a mixture of experts: the machine file has no rates of its products. Make "
         "it again with bench --calibrate, or leave out --machine");
  }
  if (config.fp8.rounds_rows) {
    fail(Exit::unfit,
         "no times for --activations fp8: bench --calibrate does not time such products yet. Leave "
         "out --machine");
  }
  if (has_f8 && !machine.f8_weights) {
    fail(Exit::unfit,
         "no times for FP8 weights: the machine file has no rates of their products. Make it again "
         "with bench --calibrate, or leave out --machine");
  }
}

}  // namespace

double n_chosen_experts(const MixtureConfig& mixture, std::int64_t n_rows) {
  const auto n = static_cast<double>(mixture.n_experts);
  const double left_out =
      std::pow(1 - static_cast<double>(mixture.n_chosen) / n, static_cast<double>(n_rows));
  return n * (1 - left_out);
}

Seconds::Seconds(const ModelConfig& config, const Machine& machine, int n_shares)
    : config_(&config),
      machine_(&machine),
      n_shares_(n_shares),
      group_(n_shares > 1 ? group_of(machine, n_shares) : nullptr),
      element_(static_cast<double>(size_of(machine.dtype))),
      weight_(static_cast<double>(
          size_of(config.fp8.scales == Fp8Config::Scales::none ? config.dtype : Dtype::f8))),
      hidden_(config.hidden_size),
      inter_(config.intermediate_size),
      q_(config.q_width()),
      kv_(config.kv_width()) {
  refuse_what_was_not_measured(config, machine);
  in_layer_ = in_layer_of(config, machine);
  if (!group_) return;
  const Machine::InLayer alone =
      starattn::in_layer_of(machine.in_layer, group_->in_layer.hidden_size);
  in_layer_.products *= group_->in_layer.products / alone.products;
  in_layer_.attention *= group_->in_layer.attention / alone.attention;
}

template <typename F>
double Seconds::over_chunks(std::int64_t n_rows, const F& f) const {
  double sum = 0;
  for (std::int64_t first = 0; first < n_rows; first += machine_->chunk_rows)
    sum += f(std::min(machine_->chunk_rows, n_rows - first), first);
  return sum;
}

double Seconds::product(double n_rows, std::int64_t n_in, std::int64_t n_out) const {
  return 2 * n_rows * static_cast<double>(n_in * n_out) / machine_->product_rate(n_in, n_out);
}

// On a GPU the product itself adds; a CPU reads and writes a second time.
double Seconds::add_bytes() const {
  return machine_->dtype == Dtype::f32 ? 3 * element_ : element_;
}

const Machine::Experts& Seconds::experts() const {
  return has_f8_experts(*config_) ? *machine_->f8_weights->experts : *machine_->experts;
}

double Seconds::start_block(std::int64_t n_rows) const {
  const auto n = static_cast<double>(n_rows);
  return machine_->block_start
             ? machine_->block_start->seconds(n * static_cast<double>(config_->head_dim) * kF32)
             : 0;
}

double Seconds::project(std::int64_t n_rows) const {
  const auto n = static_cast<double>(n_rows);
  return in_layer_.products *
         (product(n, hidden_, q_) + 2 * product(n, hidden_, kv_) +
          rows(n * element_ * static_cast<double>(2 * hidden_ + 2 * q_ + 2 * kv_ + 2 * kv_)));
}

double Seconds::project_kv(std::int64_t n_rows) const {
  const auto n = static_cast<double>(n_rows);
  return in_layer_.products *
         (2 * product(n, hidden_, kv_) +
          rows(n * element_ * static_cast<double>(2 * hidden_ + 2 * kv_ + 2 * kv_)));
}

double Seconds::output(std::int64_t n_rows) const {
  const auto n = static_cast<double>(n_rows);
  const auto hidden = static_cast<double>(hidden_);
  return in_layer_.products *
         (product(n, q_, hidden_) + rows(n * hidden * (2 * element_ + 2 * add_bytes())));
}

double Seconds::feed_forward(std::int64_t n_rows, bool is_mixture) const {
  const auto n = static_cast<double>(n_rows);
  const MixtureConfig& m = config_->mixture;
  const std::int64_t inner = is_mixture ? m.shared_size : inter_;
  double seconds = output(n_rows);
  if (is_mixture) {
    const double n_operations = 6 * n * static_cast<double>(m.n_chosen * m.expert_size * hidden_);
    seconds += n_operations / expert_rate(experts(), m.expert_size);
  }
  if (inner == 0) return seconds;
  return seconds +
         in_layer_.products * (2 * product(n, hidden_, inner) + product(n, inner, hidden_) +
                               rows(n * element_ * 3 * static_cast<double>(inner)));
}

double Seconds::attention(std::int64_t n_rows, double n_pairs, std::int64_t n_keys) const {
  if (n_rows == 0 || n_keys == 0) return 0;
  return in_layer_.attention * 4 * static_cast<double>(q_) * n_pairs /
         machine_->attention_rate(config_->head_dim, n_keys);
}

double Seconds::attend(std::int64_t n_rows, std::int64_t n_before, std::int64_t window) const {
  return over_chunks(n_rows, [&](std::int64_t n, std::int64_t first) {
    // Rows that see all before them, and those for which the window hides some.
    const std::int64_t n_growing = std::clamp<std::int64_t>(window - n_before - first, 0, n);
    const auto growing = static_cast<double>(n_growing);
    const double pairs = growing * static_cast<double>(n_before + first) +
                         growing * (growing + 1) / 2 +
                         (n_growing == n ? 0 : static_cast<double>((n - n_growing) * window));
    const std::int64_t n_keys = n_before + first + n;
    return attention(n, pairs, n_growing == n ? n_keys : std::min(n_keys, window - 1 + n));
  });
}

double Seconds::attend_and_merge(std::int64_t n_rows, std::int64_t n_keys, std::int64_t n_between,
                                 std::int64_t window) const {
  const auto n_seen = [&](std::int64_t row) {
    return std::clamp<std::int64_t>(window - 1 - n_between - row, 0, n_keys);
  };
  return over_chunks(n_rows, [&](std::int64_t n, std::int64_t first) {
    const std::int64_t most = n_seen(first);
    if (most == 0) return 0.0;
    const double pairs =
        static_cast<double>(n) * static_cast<double>(most + n_seen(first + n - 1)) / 2;
    return attention(n, pairs, most) + rows(3 * partial_bytes(n));
  });
}

double Seconds::attend_own_and_merge(std::int64_t n_rows, std::int64_t window) const {
  const double cleared_merged_and_finished = 5 * partial_bytes(n_rows) + q_bytes(n_rows);
  return attend(n_rows, 0, window) + rows(cleared_merged_and_finished);
}

double Seconds::ask(std::int64_t n_rows, std::int64_t n_asking, std::int64_t n_anchor) const {
  const auto width = static_cast<double>(kv_);
  const double n_sampled = static_cast<double>(n_rows) / kSampleStride;
  return static_cast<double>(n_rows) * width * element_ / machine_->likeness_bytes_per_s +
         static_cast<double>(n_rows) / machine_->best_of_keys_per_s +
         2 * static_cast<double>(q_ * n_asking) * (static_cast<double>(n_anchor) + n_sampled) /
             machine_->scoring_flops_per_s;
}

double Seconds::score(std::int64_t n_asking, std::int64_t n_keys) const {
  return 2 * static_cast<double>(q_ * n_asking) * static_cast<double>(n_keys) /
             machine_->scoring_flops_per_s +
         static_cast<double>(n_keys) / machine_->best_of_keys_per_s;
}

double Seconds::gather(std::int64_t n_tokens) const {
  return rows(2 * kv_bytes(n_tokens));
}

double Seconds::step_layer(std::int64_t n_rows, bool is_mixture) const {
  const bool has_f8 = config_->fp8.scales != Fp8Config::Scales::none;
  const auto& layers = has_f8 ? machine_->f8_weights->thin_layers : machine_->thin_layers;
  const MixtureConfig& m = config_->mixture;
  const auto n_weights =
      static_cast<double>(hidden_ * (2 * q_ + 2 * kv_ + 3 * (is_mixture ? m.shared_size : inter_)));
  double seconds = seconds_of(layers, n_rows, hidden_, weight_ * n_weights / n_shares_);
  if (group_) {  // what a group takes over one rank with as many bytes
    const double bytes = 2 * n_weights / n_shares_;
    seconds += std::max(0.0, seconds_of(group_->thin_layers, n_rows, hidden_, bytes) -
                                 seconds_of(machine_->thin_layers, n_rows, hidden_, bytes));
  }
  if (!is_mixture) return seconds;
  const std::size_t weight_bytes = size_of(has_f8_experts(*config_) ? Dtype::f8 : config_->dtype);
  const double expert_bytes =
      static_cast<double>(3 * m.expert_size * hidden_) * static_cast<double>(weight_bytes);
  return seconds + seconds_of(experts().thin, n_rows, 0,
                              n_chosen_experts(m, n_rows) * expert_bytes / n_shares_);
}

double Seconds::step_attention(std::int64_t n_rows, std::int64_t n_blocks, std::int64_t n_keys,
                               bool from_host) const {
  if (n_blocks == 0) return 0;
  const auto at_once = static_cast<std::int64_t>(ContextAttention::kBlocksAtOnce);
  const std::int64_t n_calls = (n_blocks + at_once - 1) / at_once;
  const double bytes = kv_bytes(n_keys);
  const double seconds = seconds_of(machine_->thin_attention, n_rows, config_->head_dim,
                                    bytes / static_cast<double>(n_calls)) *
                             static_cast<double>(n_calls) +
                         merge_step(n_rows, n_blocks - n_calls);
  if (!from_host || !machine_->bus_bytes_per_s) return seconds;
  return std::max(seconds, bytes / *machine_->bus_bytes_per_s);
}

double Seconds::next_tokens(std::int64_t n_rows) const {
  const auto head = static_cast<double>(config_->vocab_size * config_->hidden_size) *
                    static_cast<double>(size_of(config_->dtype));
  return seconds_of(machine_->thin_products, n_rows, hidden_, head / n_shares_) +
         seconds_of(group_ ? group_->next_tokens : machine_->next_tokens, n_rows, 0,
                    static_cast<double>(n_rows * config_->vocab_size) * kF32);
}

double Seconds::merge_step(std::int64_t n_rows, std::int64_t n_partials) const {
  return seconds_of(machine_->thin_merges, n_rows, 0, partial_bytes(n_rows)) *
         static_cast<double>(n_partials);
}

double Seconds::kv_bytes(std::int64_t n_tokens) const {
  const KvLayout layout{machine_->has_f8_kv ? Dtype::f8 : machine_->dtype, config_->n_kv_heads,
                        config_->head_dim};
  return 2 * static_cast<double>(n_tokens) * static_cast<double>(layout.row_bytes());
}
double Seconds::q_bytes(std::int64_t n_rows) const {
  return static_cast<double>(n_rows * q_) * element_;
}
double Seconds::partial_bytes(std::int64_t n_rows) const {
  return static_cast<double>(n_rows * (q_ + 2 * config_->n_heads)) * kF32;
}
double Seconds::ask_bytes(std::int64_t n_asking) const {
  return q_bytes(n_asking) + static_cast<double>(n_asking * config_->n_heads) * kF32;
}

}  // namespace starattn
