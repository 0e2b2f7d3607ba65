// SPDX-License-Identifier: Apache-2.0
#include "model/rope.h"

#include <algorithm>
#include <cmath>
#include <numbers>

#include "base/error.h"

namespace starattn {
namespace {

// Llama 3.1: long wavelengths are stretched by `factor`, short ones kept, those between blended.
double llama3_frequency(const RopeConfig& config, double frequency) {
  const auto original = static_cast<double>(config.original_positions);
  const double wavelength = 2 * std::numbers::pi / frequency;
  if (wavelength < original / config.high_freq_factor) return frequency;
  if (wavelength > original / config.low_freq_factor) return frequency / config.factor;
  const double smooth = (original / wavelength - config.low_freq_factor) /
                        (config.high_freq_factor - config.low_freq_factor);
  return (1 - smooth) * frequency / config.factor + smooth * frequency;
}

// YaRN (arXiv 2309.00071): dimensions that turn more than beta_fast times over the original length
// are kept, those under beta_slow stretched, with a linear ramp between.
struct YarnRamp {
  double low = 0;
  double high = 0;

  YarnRamp(const RopeConfig& config, std::int64_t head_dim) {
    const auto dimension_of = [&](double turns) {
      const auto original = static_cast<double>(config.original_positions);
      return static_cast<double>(head_dim) * std::log(original / (turns * 2 * std::numbers::pi)) /
             (2 * std::log(config.theta));
    };
    low = dimension_of(config.beta_fast);
    high = dimension_of(config.beta_slow);
    if (config.truncate) {
      low = std::floor(low);
      high = std::ceil(high);
    }
    low = std::max(low, 0.0);
    high = std::min(high, static_cast<double>(head_dim - 1));
    if (low == high) high += 0.001;
  }
  double stretched_share(std::int64_t i) const {
    return std::clamp((static_cast<double>(i) - low) / (high - low), 0.0, 1.0);
  }
};

double yarn_scale(double factor, double mscale) {
  return factor <= 1 ? 1.0 : 0.1 * mscale * std::log(factor) + 1.0;
}

double yarn_attention_scaling(const RopeConfig& config) {
  if (config.attention_factor > 0) return config.attention_factor;
  if (config.mscale > 0 && config.mscale_all_dim > 0) {
    return yarn_scale(config.factor, config.mscale) /
           yarn_scale(config.factor, config.mscale_all_dim);
  }
  return yarn_scale(config.factor, 1.0);
}

}  // namespace

Rope::Rope(const RopeConfig& config, std::int64_t head_dim) {
  const YarnRamp ramp(config, head_dim);
  for (std::int64_t i = 0; i < head_dim / 2; ++i) {
    const double frequency =
        std::pow(config.theta, -2.0 * static_cast<double>(i) / static_cast<double>(head_dim));
    switch (config.kind) {
      case RopeKind::standard:
        frequencies_.push_back(frequency);
        break;
      case RopeKind::linear:
        frequencies_.push_back(frequency / config.factor);
        break;
      case RopeKind::llama3:
        frequencies_.push_back(llama3_frequency(config, frequency));
        break;
      case RopeKind::yarn: {
        const double share = ramp.stretched_share(i);
        frequencies_.push_back(frequency / config.factor * share + frequency * (1 - share));
        break;
      }
    }
  }
  if (config.kind == RopeKind::yarn) attention_scaling_ = yarn_attention_scaling(config);
}

void Rope::table(std::int64_t first_position, std::int64_t n_positions, std::span<float> cos,
                 std::span<float> sin) const {
  const std::size_t half = frequencies_.size();
  STARATTN_CHECK(cos.size() >= static_cast<std::size_t>(n_positions) * half &&
                 sin.size() >= cos.size());
  for (std::int64_t p = 0; p < n_positions; ++p) {
    for (std::size_t i = 0; i < half; ++i) {
      const double angle = static_cast<double>(first_position + p) * frequencies_[i];
      const std::size_t at = static_cast<std::size_t>(p) * half + i;
      cos[at] = static_cast<float>(std::cos(angle) * attention_scaling_);
      sin[at] = static_cast<float>(std::sin(angle) * attention_scaling_);
    }
  }
}

}  // namespace starattn
