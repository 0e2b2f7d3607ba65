// SPDX-License-Identifier: Apache-2.0
#include "model/rope.h"

#include <algorithm>
#include <cmath>
#include <numbers>

#include "base/error.h"

namespace starattn {
namespace {

// Sine and cosine are taken at every 64th position only; those between follow by one complex
// product (ten times faster than the library's functions, and within 1e-15 of them).
constexpr std::int64_t kStride = 64;

// Llama 3.1: long wavelengths are stretched by `factor`, short ones kept, those between blended.
double llama3_frequency(const RopeConfig& config, double frequency) {
  const auto original = static_cast<double>(config.original_positions);
  const double wavelength = 2 * std::numbers::pi / frequency;
  if (wavelength < original / config.high_freq_factor) return frequency;
  if (wavelength > original / config.low_freq_factor) return frequency / config.factor;
  const double kept = (original / wavelength - config.low_freq_factor) /
                      (config.high_freq_factor - config.low_freq_factor);
  return (1 - kept) * frequency / config.factor + kept * frequency;
}

// YaRN: pairs that turn more than beta_fast times over the original length are kept, those under
// beta_slow stretched, with a linear ramp between.
class YarnRamp {
 public:
  YarnRamp(const RopeConfig& config, std::int64_t rotary) {
    const auto pair_that_turns = [&](double times) {
      const auto original = static_cast<double>(config.original_positions);
      return static_cast<double>(rotary) * std::log(original / (times * 2 * std::numbers::pi)) /
             (2 * std::log(config.theta));
    };
    low_ = pair_that_turns(config.beta_fast);
    high_ = pair_that_turns(config.beta_slow);
    if (config.truncate) {
      low_ = std::floor(low_);
      high_ = std::ceil(high_);
    }
    low_ = std::max(low_, 0.0);
    high_ = std::min(high_, static_cast<double>(rotary - 1));
    if (low_ == high_) high_ += 0.001;
  }

  double frequency(double factor, double frequency, std::int64_t pair) const {
    const double stretched =
        std::clamp((static_cast<double>(pair) - low_) / (high_ - low_), 0.0, 1.0);
    return frequency / factor * stretched + frequency * (1 - stretched);
  }

 private:
  double low_ = 0;
  double high_ = 0;
};

// YaRN makes attention sharper as it stretches; cos and sin carry the square root of it.
double yarn_attention_scaling(const RopeConfig& config) {
  if (config.attention_factor > 0) return config.attention_factor;
  const auto scaling = [&](double mscale) {
    return config.factor <= 1 ? 1.0 : 0.1 * mscale * std::log(config.factor) + 1.0;
  };
  const bool both = config.mscale > 0 && config.mscale_all_dim > 0;
  return both ? scaling(config.mscale) / scaling(config.mscale_all_dim) : scaling(1.0);
}

// LongRoPE sharpens attention as YaRN does, by the other of the two lengths.
double longrope_attention_scaling(const RopeConfig& config) {
  if (config.attention_factor > 0) return config.attention_factor;
  const auto original = static_cast<double>(config.original_positions);
  return config.factor <= 1 ? 1.0 : std::sqrt(1 + std::log(config.factor) / std::log(original));
}

double attention_scaling_of(const RopeConfig& config) {
  if (config.kind == RopeKind::yarn) return yarn_attention_scaling(config);
  return config.kind == RopeKind::longrope ? longrope_attention_scaling(config) : 1.0;
}

// Of the pairs of so many values.
std::vector<double> frequencies_of(const RopeConfig& config, std::int64_t rotary) {
  std::vector<double> frequencies;
  for (std::int64_t i = 0; i < rotary / 2; ++i) {
    frequencies.push_back(
        std::pow(config.theta, -2.0 * static_cast<double>(i) / static_cast<double>(rotary)));
  }
  switch (config.kind) {
    case RopeKind::standard:
      break;
    case RopeKind::linear:
      for (double& f : frequencies) f /= config.factor;
      break;
    case RopeKind::llama3:
      for (double& f : frequencies) f = llama3_frequency(config, f);
      break;
    case RopeKind::yarn: {
      const YarnRamp ramp(config, rotary);
      std::int64_t pair = 0;
      for (double& f : frequencies) f = ramp.frequency(config.factor, f, pair++);
      break;
    }
    case RopeKind::longrope: {
      STARATTN_CHECK(config.divisors.size() == frequencies.size());
      for (std::size_t i = 0; i < frequencies.size(); ++i) frequencies[i] /= config.divisors[i];
      break;
    }
    case RopeKind::none:
      std::ranges::fill(frequencies, 0);
      break;
  }
  return frequencies;
}

}  // namespace

float query_scale(const RopeConfig& config, std::int64_t position) {
  if (config.query_beta == 0) return 1;
  const auto times = static_cast<double>(position / config.original_positions);
  return static_cast<float>(1 + config.query_beta * std::log(1 + times));
}

Rope::Rope(const RopeConfig& config, std::int64_t head_dim, double scale)
    : frequencies_(frequencies_of(config, config.rotary > 0 ? config.rotary : head_dim)),
      attention_scaling_(scale * attention_scaling_of(config)),
      scale_(scale),
      n_rotated_(frequencies_.size()) {
  frequencies_.resize(static_cast<std::size_t>(head_dim / 2));
  for (std::int64_t step = 0; step < kStride; ++step) {
    for (const double f : frequencies_)
      steps_.push_back(std::polar(1.0, static_cast<double>(step) * f));
  }
}

void Rope::table(std::int64_t first_position, std::int64_t n_positions, std::span<float> cos,
                 std::span<float> sin) const {
  const std::size_t half = frequencies_.size();
  const std::size_t size = static_cast<std::size_t>(n_positions) * half;
  STARATTN_CHECK(first_position >= 0 && cos.size() >= size && sin.size() >= size);

  // The nearest multiple of kStride at or below the position, scaled. [head_dim / 2]
  std::vector<std::complex<double>> base(half);
  for (std::int64_t row = 0; row < n_positions; ++row) {
    const std::int64_t position = first_position + row;
    const std::int64_t step = position % kStride;
    if (row == 0 || step == 0) {
      for (std::size_t i = 0; i < half; ++i) {
        base[i] = std::polar(i < n_rotated_ ? attention_scaling_ : scale_,
                             static_cast<double>(position - step) * frequencies_[i]);
      }
    }
    const std::complex<double>* turn = steps_.data() + static_cast<std::size_t>(step) * half;
    float* cos_row = cos.data() + static_cast<std::size_t>(row) * half;
    float* sin_row = sin.data() + static_cast<std::size_t>(row) * half;
    for (std::size_t i = 0; i < half; ++i) {
      const double c = base[i].real(), s = base[i].imag();
      const double dc = turn[i].real(), ds = turn[i].imag();
      cos_row[i] = static_cast<float>(c * dc - s * ds);
      sin_row[i] = static_cast<float>(s * dc + c * ds);
    }
  }
}

}  // namespace starattn
