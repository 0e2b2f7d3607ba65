// SPDX-License-Identifier: Apache-2.0
#include "base/dtype.h"

#include <cmath>
#include <limits>
#include <random>

#include "../temporary_folder.h"

namespace starattn {
namespace {

float f32(std::uint32_t bits) {
  return std::bit_cast<float>(bits);
}

TEST(Bf16, RoundsToTheNearest) {
  const std::pair<std::uint32_t, int> cases[] = {
      {0x3f800000, 0x3f80},  // 1
      {0x3f807fff, 0x3f80},  // just below the middle
      {0x3f808000, 0x3f80},  // in the middle: down to the even one
      {0x3f808001, 0x3f81},  // just above it
      {0x3f818000, 0x3f82},  // in the middle: up to the even one
      {0x3fffffff, 0x4000},  // carries into the exponent
      {0x7f7f7fff, 0x7f7f},  // the largest that stays finite
      {0x7f7f8000, 0x7f80},  // the smallest that becomes infinite
      {0x7f800000, 0x7f80},  // infinity
      {0x00000001, 0x0000},  // the smallest subnormal vanishes
      {0x00008000, 0x0000},  // half of bf16's smallest subnormal: to the even one
      {0x00008001, 0x0001}, {0x00018000, 0x0002},
      {0x007fffff, 0x0080},  // the largest subnormal becomes normal
  };
  for (const auto& [bits, expected] : cases) {
    EXPECT_EQ(f32_to_bf16(f32(bits)), expected) << std::hex << bits;
    EXPECT_EQ(f32_to_bf16(f32(bits | 0x80000000U)), expected | 0x8000) << std::hex << bits;
  }
}

TEST(Bf16, KeepsNaN) {
  for (const std::uint32_t bits : {0x7f800001U, 0x7f80ffffU, 0x7fc00000U, 0x7fffffffU}) {
    EXPECT_TRUE(std::isnan(bf16_to_f32(f32_to_bf16(f32(bits))))) << std::hex << bits;
    EXPECT_EQ(f32_to_bf16(f32(bits | 0x80000000U)) & 0x8000, 0x8000) << std::hex << bits;
  }
}

TEST(Bf16, ComesBackFromF32WithEveryBit) {
  for (unsigned bits = 0; bits < 0x10000; ++bits) {
    const float value = bf16_to_f32(static_cast<std::uint16_t>(bits));
    if (std::isnan(value)) continue;
    ASSERT_EQ(f32_to_bf16(value), bits) << std::hex << bits;
  }
}

TEST(Bf16, IsNeverFartherThanItsNeighbour) {
  std::mt19937 random(1);
  for (int i = 0; i < 200'000; ++i) {
    const std::uint32_t bits = random() & 0x7fffffffU;
    if (bits >= 0x7f7f0000U) continue;  // no finite neighbour above
    const double value = f32(bits);
    const double below = f32(bits & 0xffff0000U), above = f32((bits & 0xffff0000U) + 0x10000U);
    const double rounded = bf16_to_f32(f32_to_bf16(f32(bits)));
    ASSERT_TRUE(rounded == below || rounded == above) << std::hex << bits;
    ASSERT_EQ(std::abs(rounded - value), std::min(value - below, above - value))
        << std::hex << bits;
  }
}

// By the definition of IEEE 754 binary16: 1 sign, 5 exponent, 10 fraction bits.
TEST(F16, IsWhatItsBitsSay) {
  for (unsigned bits = 0; bits < 0x10000; ++bits) {
    const int exponent = bits >> 10 & 31;
    const double fraction = (bits & 0x3ff) / 1024.0;
    const double size = exponent == 31  ? std::numeric_limits<double>::infinity()
                        : exponent == 0 ? std::ldexp(fraction, -14)
                                        : std::ldexp(1 + fraction, exponent - 15);
    const float value = f16_to_f32(static_cast<std::uint16_t>(bits));
    ASSERT_EQ(std::signbit(value), bits >= 0x8000) << std::hex << bits;
    if (exponent == 31 && fraction > 0) {
      ASSERT_TRUE(std::isnan(value)) << std::hex << bits;
    } else {
      ASSERT_EQ(std::abs(value), size) << std::hex << bits;
    }
  }
}

TEST(Dtype, HasASizeAndAName) {
  EXPECT_EQ(size_of(Dtype::f32), 4U);
  EXPECT_EQ(size_of(Dtype::f16), 2U);
  EXPECT_EQ(size_of(Dtype::bf16), 2U);
  for (const Dtype dtype : {Dtype::f32, Dtype::f16, Dtype::bf16})
    EXPECT_EQ(dtype_from_name(name_of(dtype)), dtype);
  for (const char* name : {"", "BF16", "bf16 ", "float32"})
    expect_refused([&] { dtype_from_name(name); }, Exit::usage, {name, "f32, f16 or bf16"});
}

TEST(F8, HasItsPublishedValues) {
  EXPECT_EQ(f8_to_f32(0x00), 0);
  EXPECT_EQ(f8_to_f32(0x01), std::ldexp(1.0F, -9));  // the smallest subnormal
  EXPECT_EQ(f8_to_f32(0x07), std::ldexp(7.0F, -9));  // the largest
  EXPECT_EQ(f8_to_f32(0x08), std::ldexp(1.0F, -6));  // the smallest normal
  EXPECT_EQ(f8_to_f32(0x38), 1);
  EXPECT_EQ(f8_to_f32(0xb9), -1.125F);
  EXPECT_EQ(f8_to_f32(0x7e), 448);  // the largest
  EXPECT_TRUE(std::signbit(f8_to_f32(0x80)));
  EXPECT_TRUE(std::isnan(f8_to_f32(0x7f)));
  EXPECT_TRUE(std::isnan(f8_to_f32(0xff)));
  for (unsigned bits = 1; bits < 0x7f; ++bits) {
    const float value = f8_to_f32(static_cast<std::uint8_t>(bits));
    EXPECT_GT(value, f8_to_f32(static_cast<std::uint8_t>(bits - 1)));
    EXPECT_EQ(f8_to_f32(static_cast<std::uint8_t>(bits | 0x80)), -value);
  }
}

}  // namespace
}  // namespace starattn
