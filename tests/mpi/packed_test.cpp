// SPDX-License-Identifier: Apache-2.0
#include "mpi/packed.h"

#include <gtest/gtest.h>

#include <cstdint>
#include <limits>

namespace starattn {
namespace {

enum class Colour : std::uint8_t { red, green };

struct Inner {
  std::string name;
  std::optional<double> weight;

  static void fields(auto& inner, auto& archive) {
    auto& [name, weight] = inner;
    archive(name, weight);
  }
  bool operator==(const Inner&) const = default;
};

struct Outer {
  std::int64_t number = 0;
  Colour colour = Colour::red;
  std::vector<std::int32_t> tokens;
  std::vector<Inner> inner;
  std::optional<std::vector<std::string>> texts;
  Json json;

  static void fields(auto& outer, auto& archive) {
    auto& [number, colour, tokens, inner, texts, json] = outer;
    archive(number, colour, tokens, inner, texts, json);
  }
  bool operator==(const Outer&) const = default;
};

Outer example() {
  return {INT64_MIN,
          Colour::green,
          {1, -2, 3},
          {{"a\0b\n", 0.1}, {"", std::nullopt}, {"c", std::numeric_limits<double>::infinity()}},
          {{"", "two"}},
          {{"index", 7}, {"text", "\u00e4"}}};
}

TEST(Packed, ComesBackAsItWas) {
  EXPECT_EQ(unpack<Outer>(pack(example())), example());
  EXPECT_EQ(unpack<Outer>(pack(Outer())), Outer());
  EXPECT_EQ(unpack<std::optional<Outer>>(pack(std::optional<Outer>())), std::nullopt);
  EXPECT_EQ(unpack<std::string>(pack(std::string())), "");
}

TEST(Packed, SeveralValuesComeInTheirOrder) {
  const std::string bytes = pack(7, std::string("x"), example());
  Unpacker unpacker(bytes);
  int number = 0;
  unpacker(number);
  EXPECT_EQ(number, 7);
  EXPECT_FALSE(unpacker.at_end());
  std::string text = "old";
  Outer outer;
  unpacker(text, outer);
  EXPECT_EQ(text, "x");
  EXPECT_EQ(outer, example());
  EXPECT_TRUE(unpacker.at_end());
}

TEST(Packed, BytesOfAnythingElseAreABug) {
  const std::string bytes = pack(example());
  EXPECT_THROW(unpack<Outer>(bytes + "x"), Error);
  for (std::size_t n = 0; n < bytes.size(); ++n)
    EXPECT_THROW(unpack<Outer>(std::string_view(bytes).substr(0, n)), Error) << n;
  EXPECT_THROW(unpack<std::vector<Inner>>(pack(std::int64_t{-1})), Error);
}

}  // namespace
}  // namespace starattn
