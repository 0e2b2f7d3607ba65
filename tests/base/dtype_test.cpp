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
  for (const Dtype dtype : {Dtype::f32, Dtype::f16, Dtype::bf16, Dtype::f8})
    EXPECT_EQ(dtype_from_name(name_of(dtype)), dtype);
  for (const char* name : {"", "BF16", "bf16 ", "float32"})
    expect_refused([&] { dtype_from_name(name); }, Exit::usage, {name, "f32, f16, bf16 or f8"});
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

TEST(F8, IsTheNearestOfAllThereAre) {
  const auto nearest = [](float size) {  // the code of the nearest, of two the even one
    unsigned best = 0;
    for (unsigned code = 1; code <= 0x7e; ++code) {
      const double to_best = std::abs(static_cast<double>(f8_to_f32(best)) - size);
      const double to_code = std::abs(double{f8_to_f32(static_cast<std::uint8_t>(code))} - size);
      if (to_code < to_best || (to_code == to_best && code % 2 == 0)) best = code;
    }
    return best;
  };
  for (unsigned code = 0; code < 0x7e; ++code) {
    const float below = f8_to_f32(static_cast<std::uint8_t>(code));
    const float above = f8_to_f32(static_cast<std::uint8_t>(code + 1));
    const float middle = (below + above) / 2;
    for (const float value : {below, middle, std::nextafter(middle, 0.0F),
                              std::nextafter(middle, above), below + (above - below) / 3}) {
      EXPECT_EQ(f32_to_f8(value), nearest(value)) << value;
      EXPECT_EQ(f32_to_f8(-value), nearest(value) | 0x80) << value;
    }
  }
  EXPECT_EQ(f32_to_f8(1e-30F), 0);
  EXPECT_EQ(f32_to_f8(-1e30F), 0xfe);
  for (const float bad : {NAN, INFINITY, -INFINITY}) EXPECT_EQ(f32_to_f8(bad) & 0x7f, 0x7f);
}

TEST(F8, SharesTheLeastScaleThatFits) {
  for (const float largest :
       {1e-38F, 3e-7F, 0.75F, 0.874F, 0.875F, 0.8751F, 1.0F, 448.0F, 449.0F, 57344.0F}) {
    const std::uint8_t exponent = f8_exponent(largest);
    const double scaled = double{largest} / f8_scale(exponent);
    EXPECT_LE(scaled, 448) << largest;
    EXPECT_TRUE(scaled > 224 || exponent == 1) << largest;
    EXPECT_EQ(double{f8_scale(exponent)} * f8_inverse_scale(exponent), 1) << largest;
  }
  for (const float beyond : {57345.0F, 3.3e38F}) EXPECT_EQ(f8_scale(f8_exponent(beyond)), 128);
  EXPECT_EQ(f8_scale(f8_exponent(0)), 1);
  const float values[] = {-7, 0.5F, 0, NAN, 6.9F, -INFINITY};
  std::uint8_t codes[6];
  const float scale = f8_scale(to_f8(values, 6, codes));
  EXPECT_EQ(scale, 1.0F / 64);  // 7 * 64 = 448
  EXPECT_EQ(f8_to_f32(codes[0]) * scale, -7);
  EXPECT_EQ(f8_to_f32(codes[1]) * scale, 0.5F);
  EXPECT_EQ(f8_to_f32(codes[4]) * scale, 7);
  EXPECT_TRUE(std::isnan(f8_to_f32(codes[3])) && std::isnan(f8_to_f32(codes[5])));
}

}  // namespace
}  // namespace starattn
