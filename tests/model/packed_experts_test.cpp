// SPDX-License-Identifier: Apache-2.0
#include "model/packed_experts.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <vector>

#include "model/weights.h"

namespace starattn {
namespace {

std::vector<float> numbers_of(const WeightView& w) {
  std::vector<float> numbers;
  for (std::int64_t i = 0; i < w.n_rows * w.n_cols; ++i) {
    if (w.dtype == Dtype::f8) {
      const float scale = w.scales_of_row(i / w.n_cols)[0];
      numbers.push_back(f8_to_f32(std::to_integer<std::uint8_t>(w.data[i])) * scale);
      continue;
    }
    std::uint16_t bits = 0;
    std::memcpy(&bits, w.data + static_cast<std::size_t>(i) * sizeof(bits), sizeof(bits));
    numbers.push_back(bf16_to_f32(bits));
  }
  return numbers;
}

// Two experts of four rows of 64 numbers: blocks of 32, the low half of a byte first.
class Mxfp4 : public ::testing::Test {
 protected:
  std::vector<std::byte> values_ = std::vector<std::byte>(2 * 4 * 32);
  std::vector<std::byte> scales_ = std::vector<std::byte>(2 * 4 * 2, std::byte{127});
  PackedExperts experts_;

  PackedExperts::Source source() const {
    return {values_.data(), scales_.data(), Dtype::f8, 4, 64};
  }
};

TEST_F(Mxfp4, AreNumbersOfFourBitsTimesAPowerOfTwo) {
  const float numbers[] = {0, 0.5, 1, 1.5, 2, 3, 4, 6, -0.0F, -0.5, -1, -1.5, -2, -3, -4, -6};
  for (std::size_t i = 0; i < 8; ++i)
    values_[(4 + 2) * 32 + i] = std::byte(2 * i | (2 * i + 1) << 4);  // expert 1, row 2
  values_[(4 + 2) * 32 + 16] = std::byte{0x1d};                       // its second block
  scales_[(4 + 2) * 2] = std::byte{130};
  scales_[(4 + 2) * 2 + 1] = std::byte{118};  // the least that is exact beside 48: 2^-15 of it
  const WeightView even = experts_.add(source(), 1, 0, 2);
  ASSERT_EQ(even.n_rows, 2);
  ASSERT_EQ(even.n_cols, 64);
  EXPECT_TRUE(experts_.has(even.rows(1, 1)));
  EXPECT_FALSE(experts_.has({values_.data(), Dtype::f8, 1, 64}));
  experts_.fill(even);
  const std::vector<float> found = numbers_of(even);
  for (std::size_t i = 0; i < 16; ++i) EXPECT_EQ(found[64 + i], 8 * numbers[i]);
  EXPECT_EQ(found[64 + 32], -3 * std::ldexp(1.0F, -9));
  EXPECT_EQ(found[64 + 33], 0.5F * std::ldexp(1.0F, -9));
  EXPECT_EQ(found[0], 0);
}

// Whatever the size of a row's numbers; and what is rounded is rounded by less than 2^-17 of the
// largest.
TEST_F(Mxfp4, AreExactBesideNumbersThatAreNotFarLarger) {
  for (const int largest : {1, 20, 127, 130}) {
    for (const int below : {0, 5, 12, 13, 20, 100}) {
      const int smaller = std::max(0, largest - below);
      values_[0] = std::byte{0x7f};  // -6, 6
      scales_[0] = static_cast<std::byte>(largest);
      for (std::size_t i = 16; i < 24; ++i)
        values_[i] = std::byte(2 * (i - 16) | (2 * i - 31) << 4);
      scales_[1] = static_cast<std::byte>(smaller);
      PackedExperts experts;
      const WeightView w = experts.add(source(), 0, 0, 1);
      experts.fill(w);
      const std::vector<float> found = numbers_of(w);
      EXPECT_EQ(found[0], -6 * std::ldexp(1.0F, largest - 127));
      EXPECT_EQ(found[1], 6 * std::ldexp(1.0F, largest - 127));
      const float numbers[] = {0, 0.5, 1, 1.5, 2, 3, 4, 6};
      for (std::size_t i = 0; i < 16; ++i) {
        const float expected =
            (i < 8 ? 1.0F : -1.0F) * numbers[i % 8] * std::ldexp(1.0F, smaller - 127);
        if (largest - smaller <= 12) {
          EXPECT_EQ(found[32 + i], expected) << largest << " " << below << " " << i;
        } else {
          EXPECT_LE(std::abs(found[32 + i] - expected), found[1] * std::ldexp(1.0F, -17));
        }
      }
    }
  }
}

TEST_F(Mxfp4, OfRowsInTurnAreTwoMatrices) {
  for (std::size_t row = 0; row < 8; ++row) values_[row * 32] = std::byte(row);
  const WeightView gate = experts_.add(source(), 0, 0, 2), up = experts_.add(source(), 0, 1, 2);
  experts_.fill(gate);
  experts_.fill(up.rows(1, 1));
  EXPECT_EQ(numbers_of(gate)[64], 1);   // row 2
  EXPECT_EQ(numbers_of(up)[64], 1.5F);  // row 3
}

TEST_F(Mxfp4, WithoutAScaleAreNoNumbers) {
  scales_[0] = std::byte{255};
  const WeightView w = experts_.add(source(), 0, 0, 1);
  experts_.fill(w);
  EXPECT_TRUE(std::isnan(numbers_of(w)[0]));
}

TEST(PackedExperts, OfWideNumbersAreTurned) {
  std::vector<std::uint16_t> bits;  // [2 experts][3 in][4 out]
  for (int i = 0; i < 24; ++i) bits.push_back(f32_to_bf16(static_cast<float>(i)));
  PackedExperts experts;
  const WeightView odd = experts.add(
      {reinterpret_cast<const std::byte*>(bits.data()), nullptr, Dtype::bf16, 4, 3}, 1, 1, 2);
  experts.fill(odd);
  EXPECT_EQ(numbers_of(odd), (std::vector<float>{13, 17, 21, 15, 19, 23}));
}

TEST(PackedExperts, OfFp8HaveAScaleEach) {
  const std::string numbers = "\x30\x38\x40\x48";  // 0.5, 1, 2, 4: [2 experts][1 in][2 out]
  const float scales[] = {2, 10};
  PackedExperts experts;
  const WeightView w = experts.add(
      {reinterpret_cast<const std::byte*>(numbers.data()), nullptr, Dtype::f8, 2, 1, scales}, 1, 0,
      1);
  experts.fill(w);
  EXPECT_EQ(numbers_of(w), (std::vector<float>{20, 40}));
  EXPECT_EQ(experts.bytes_in_file(w.rows(1, 1)).size(), 2U);
}

// The two folders hold the same model, one of them rounded.
TEST(PackedExperts, OfFilesAreCloseToWhatTheyWereMadeOf) {
  const std::string models = STARATTN_SOURCE_DIR "/tests/golden/models/";
  std::vector<std::vector<float>> all;
  for (const char* name : {"gpt_oss", "gpt_oss_mxfp4"}) {
    const ModelConfig config = read_model_config(models + name);
    const ModelWeights weights = ModelWeights::open(models + name, config);
    ASSERT_TRUE(weights.are_made());
    const WeightView& w = weights.layers[1].experts[5].up_proj;
    ASSERT_TRUE(weights.is_made(w));
    EXPECT_FALSE(weights.is_made(weights.layers[1].q_proj));
    weights.fill(w);
    all.push_back(numbers_of(w));
    EXPECT_NE(weights.name_of(w).name.find("layers.1.mlp.experts.gate_up_proj"), std::string::npos);
  }
  ASSERT_EQ(all[0].size(), all[1].size());
  float most = 0;
  for (std::size_t i = 0; i < all[0].size(); ++i)
    most = std::max(most, std::abs(all[0][i] - all[1][i]));
  EXPECT_GT(most, 0);
  EXPECT_LT(most, 0.25F);
}

}  // namespace
}  // namespace starattn
