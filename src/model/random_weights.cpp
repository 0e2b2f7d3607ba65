// SPDX-License-Identifier: Apache-2.0
#include "model/random_weights.h"

#include <cmath>
#include <cstring>

#include "model/on_all_cores.h"

namespace starattn {
namespace {

// SplitMix64's finaliser: a bijection that scatters a counter over 64 bits.
constexpr std::uint64_t scatter(std::uint64_t x) {
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ULL;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebULL;
  return x ^ (x >> 31);
}

// A tensor's stream of numbers depends on seed and name alone, not on its place in the model.
std::uint64_t stream_of(std::uint64_t seed, const std::string& name) {
  std::uint64_t key = scatter(seed);
  for (const char c : name) key = scatter(key ^ static_cast<unsigned char>(c));
  return key;
}

// Value i of a stream, bell-shaped with mean 0 and deviation 1: four 16-bit uniforms added, which
// takes no library function and so has the same bits everywhere. |value| < 3.5.
float bell(std::uint64_t stream, std::uint64_t i) {
  constexpr float kMean = 2 * 65535.0F;
  constexpr float kDeviation = 37837.22F;  // sqrt(4 (65536^2 - 1) / 12)
  const std::uint64_t bits = scatter(stream + i * 0x9e3779b97f4a7c15ULL);
  const auto sum = static_cast<std::int32_t>((bits & 0xffff) + (bits >> 16 & 0xffff) +
                                             (bits >> 32 & 0xffff) + (bits >> 48));
  return (static_cast<float>(sum) - kMean) * (1 / kDeviation);
}

// Values first to first + n - 1 of a stream.
template <typename Number, typename Convert>
void fill_with(std::byte* to, std::uint64_t first, std::uint64_t n, std::uint64_t stream,
               float mean, float deviation, Convert convert) {
  on_all_cores(n, 1, [=](std::uint64_t begin, std::uint64_t end) {
    for (std::uint64_t i = begin; i < end; ++i) {
      const Number number = convert(bell(stream, first + i) * deviation + mean);
      std::memcpy(to + i * sizeof(Number), &number, sizeof(Number));
    }
  });
}

}  // namespace

WeightSource::Tensor RandomWeights::find(const std::string& name,
                                         const std::vector<std::int64_t>& shape) {
  std::uint64_t n = 1;
  for (const std::int64_t size : shape) n *= static_cast<std::uint64_t>(size);
  const bool is_norm = name.ends_with("norm.weight");
  auto memory = std::make_unique_for_overwrite<std::byte[]>(n * size_of(dtype_));
  const std::byte* data = memory.get();
  tensors_[data] = {std::move(memory), stream_of(seed_, name), is_norm ? 1.0F : 0.0F,
                    is_norm ? 0.1F : 1 / std::sqrt(static_cast<float>(shape.back()))};
  return {data, dtype_};
}

void RandomWeights::fill(const WeightView& part) const {
  const auto& [base, numbers] = *std::prev(tensors_.upper_bound(part.data));
  const auto at = static_cast<std::size_t>(part.data - base);
  std::byte* to = numbers.memory.get() + at;
  const std::uint64_t first = at / size_of(dtype_);
  const std::uint64_t n = part.n_bytes() / size_of(dtype_);
  if (dtype_ == Dtype::f32) {
    fill_with<float>(to, first, n, numbers.stream, numbers.mean, numbers.deviation,
                     [](float x) { return x; });
  } else {
    fill_with<std::uint16_t>(to, first, n, numbers.stream, numbers.mean, numbers.deviation,
                             f32_to_bf16);
  }
}

}  // namespace starattn
