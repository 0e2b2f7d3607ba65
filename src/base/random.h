// SPDX-License-Identifier: Apache-2.0
// Random numbers as a function of a key and a counter: the same bits on every machine, in any order
// of asking. Nothing here uses <random>, whose distributions differ between libraries.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>
#include <utility>
#include <vector>

namespace starattn {

// SplitMix64's finaliser: a bijection that leaves no visible structure in consecutive counters.
constexpr std::uint64_t mix(std::uint64_t x) {
  x += 0x9e3779b97f4a7c15ULL;
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ULL;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebULL;
  return x ^ (x >> 31);
}

// A key that also depends on the text or number; ("a", "bc") and ("ab", "c") give different keys.
std::uint64_t absorb(std::uint64_t key, std::string_view text);
constexpr std::uint64_t absorb(std::uint64_t key, std::uint64_t number) {
  return mix(key ^ mix(number));
}

// Draw number `counter` of `key`, 64 bits, and as a double in [0, 1).
constexpr std::uint64_t random_bits(std::uint64_t key, std::uint64_t counter) {
  return mix(key ^ mix(counter));
}
constexpr double random_unit(std::uint64_t key, std::uint64_t counter) {
  return static_cast<double>(random_bits(key, counter) >> 11) * 0x1.0p-53;
}

// The draws of one key, one after another.
class Random {
 public:
  explicit Random(std::uint64_t key) : key_(key) {}

  std::uint64_t key() const { return key_; }
  // Draws of their own, whatever was drawn here before.
  Random stream(std::string_view name) const { return Random(absorb(key_, name)); }
  Random stream(std::uint64_t number) const { return Random(absorb(key_, number)); }

  std::uint64_t bits() { return random_bits(key_, counter_++); }
  // 0 .. n - 1, each within n / 2^32 of equally likely. 1 <= n <= 2^32.
  std::uint64_t below(std::uint64_t n) { return ((bits() >> 32) * n) >> 32; }
  std::int64_t between(std::int64_t low, std::int64_t high) {  // both included
    return low + static_cast<std::int64_t>(below(static_cast<std::uint64_t>(high - low) + 1));
  }
  template <typename Container>
  const auto& pick(const Container& items) {
    return items[static_cast<std::size_t>(below(std::size(items)))];
  }
  template <typename T>
  void shuffle(std::vector<T>& items) {
    for (std::size_t i = items.size(); i > 1; --i)
      std::swap(items[i - 1], items[static_cast<std::size_t>(below(i))]);
  }
  // k different numbers of 0 .. n - 1, in random order. Bug unless 0 <= k <= n. O(k) memory.
  std::vector<std::int64_t> sample(std::int64_t n, std::int64_t k);

 private:
  std::uint64_t key_;
  std::uint64_t counter_ = 0;
};

}  // namespace starattn
