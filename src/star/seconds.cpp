// SPDX-License-Identifier: Apache-2.0
#include "star/seconds.h"

#include <algorithm>

#include "base/error.h"
#include "star/context_attention.h"

namespace starattn {
namespace {

constexpr double kF32 = sizeof(float);
constexpr std::int64_t kSampleStride = 16;  // own keys beside an asking row (encode_waves.cpp)

}  // namespace

Seconds::Seconds(const ModelConfig& config, const Machine& machine)
    : config_(&config),
      machine_(&machine),
      element_(static_cast<double>(size_of(machine.dtype))),
      weight_(static_cast<double>(size_of(config.dtype))),
      hidden_(config.hidden_size),
      inter_(config.intermediate_size),
      q_(config.q_width()),
      kv_(config.kv_width()) {
  if (config.mixture.n_experts > 0) {
    fail(Exit::unfit,
         "no times for a mixture of experts: the machine file has no rates of its products. Leave "
         "out --machine");
  }
  if (config.widest_window() > 0) {
    fail(
        Exit::unfit,
        "no times for a model whose layers have windows: blocks of it wait for each other in a way "
        "that is not simulated yet. Leave out --machine");
  }
  if (config.fp8.scales != Fp8Config::Scales::none) {
    fail(Exit::unfit,
         "no times for FP8 weights: the machine file has no rates of their products. Leave out "
         "--machine");
  }
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

double Seconds::project(std::int64_t n_rows) const {
  const auto n = static_cast<double>(n_rows);
  return product(n, hidden_, q_) + 2 * product(n, hidden_, kv_) +
         rows(n * element_ * static_cast<double>(2 * hidden_ + 2 * q_ + 2 * kv_ + 2 * kv_));
}

double Seconds::project_kv(std::int64_t n_rows) const {
  const auto n = static_cast<double>(n_rows);
  return 2 * product(n, hidden_, kv_) +
         rows(n * element_ * static_cast<double>(2 * hidden_ + 2 * kv_ + 2 * kv_));
}

double Seconds::feed_forward(std::int64_t n_rows) const {
  const auto n = static_cast<double>(n_rows);
  const auto hidden = static_cast<double>(hidden_);
  return product(n, q_, hidden_) + 2 * product(n, hidden_, inter_) + product(n, inter_, hidden_) +
         rows(n * (element_ * (2 * hidden + 3 * static_cast<double>(inter_)) +
                   2 * hidden * add_bytes()));
}

double Seconds::attention(std::int64_t n_rows, double n_pairs, std::int64_t n_keys) const {
  if (n_rows == 0 || n_keys == 0) return 0;
  return 4 * static_cast<double>(q_) * n_pairs /
         machine_->attention_rate(config_->head_dim, n_keys);
}

double Seconds::attend(std::int64_t n_rows, std::int64_t n_before) const {
  return over_chunks(n_rows, [&](std::int64_t n, std::int64_t first) {
    const auto own = static_cast<double>(n);
    const double pairs = own * static_cast<double>(n_before + first) + own * (own + 1) / 2;
    return attention(n, pairs, n_before + first + n);
  });
}

double Seconds::attend_and_merge(std::int64_t n_rows, std::int64_t n_keys) const {
  return over_chunks(n_rows, [&](std::int64_t n, std::int64_t) {
    return attention(n, static_cast<double>(n) * static_cast<double>(n_keys), n_keys) +
           rows(3 * partial_bytes(n));
  });
}

double Seconds::attend_own_and_merge(std::int64_t n_rows) const {
  return attend(n_rows, 0) + rows(3 * partial_bytes(n_rows));
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

double Seconds::step_layer(std::int64_t n_rows, int n_shares) const {
  const auto n_weights = static_cast<double>(hidden_ * (2 * q_ + 2 * kv_ + 3 * inter_));
  return seconds_of(machine_->thin_layers, n_rows, hidden_, weight_ * n_weights / n_shares);
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

double Seconds::next_tokens(std::int64_t n_rows, int n_shares) const {
  const auto head = static_cast<double>(config_->vocab_size * config_->hidden_size) *
                    static_cast<double>(size_of(config_->dtype));
  return seconds_of(machine_->thin_products, n_rows, hidden_, head / n_shares) +
         seconds_of(machine_->next_tokens, n_rows, 0,
                    static_cast<double>(n_rows * config_->vocab_size) * kF32);
}

double Seconds::merge_step(std::int64_t n_rows, std::int64_t n_partials) const {
  return seconds_of(machine_->thin_merges, n_rows, 0, partial_bytes(n_rows)) *
         static_cast<double>(n_partials);
}

double Seconds::kv_bytes(std::int64_t n_tokens) const {
  return 2 * static_cast<double>(n_tokens * kv_) * element_;
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
