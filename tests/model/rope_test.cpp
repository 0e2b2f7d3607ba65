// SPDX-License-Identifier: Apache-2.0
// Frequencies as transformers computes them, in fp32, so to 1e-6 of each; tables as cosine and sine
// in long double, to 1e-7 at ten million.
#include "model/rope.h"

#include <cmath>

#include "small_config.h"

namespace starattn {
namespace {

constexpr std::int64_t kTenMillion = 10'000'000;

struct Table {
  Table(const Rope& rope, std::int64_t first, std::int64_t n)
      : cos(static_cast<std::size_t>(n) * rope.frequencies().size()), sin(cos.size()) {
    rope.table(first, n, cos, sin);
  }
  std::vector<float> cos, sin;  // [n, head_dim / 2]
};

void expect_frequencies(const Rope& rope, const Json& golden) {
  const auto expected = golden["inv_freq"].get<std::vector<double>>();
  ASSERT_GE(rope.frequencies().size(), expected.size());
  for (std::size_t i = 0; i < expected.size(); ++i)
    EXPECT_NEAR(rope.frequencies()[i], expected[i], 1e-6 * expected[i]) << "pair " << i;
  for (std::size_t i = expected.size(); i < rope.frequencies().size(); ++i)
    EXPECT_EQ(rope.frequencies()[i], 0) << "pair " << i;  // of a head that is rotated in part
  EXPECT_NEAR(rope.attention_scaling(), golden["attention_scaling"].get<double>(), 1e-6);
}

TEST(Frequencies, AreTransformersForPublishedSettings) {
  const Json cases = read_json_file(kGoldenModels + "rope.json")["cases"];
  ASSERT_GE(cases.size(), 17U);
  for (const auto& [name, golden] : cases.items()) {
    SCOPED_TRACE(name);
    const ModelConfig config = read_config(golden["config"]);
    expect_frequencies(Rope(config.rope, config.head_dim), golden);
  }
}

TEST(Frequencies, AreTransformersForTheGoldenModels) {
  for (const char* name : kGoldenNames) {
    SCOPED_TRACE(name);
    const ModelConfig config = read_model_config(kGoldenModels + name);
    expect_frequencies(Rope(config.rope, config.head_dim),
                       read_json_file(kGoldenModels + name + "/golden.json"));
  }
}

TEST(Frequencies, OfLongRopeAreDividedOneByOne) {
  RopeConfig config;
  config.kind = RopeKind::longrope;
  config.factor = 32;
  config.original_positions = 4096;
  config.divisors = {1, 2.5, 64};
  const Rope rope(config, 6);
  for (std::size_t i = 0; i < 3; ++i)
    EXPECT_DOUBLE_EQ(rope.frequencies()[i],
                     std::pow(1e4, -static_cast<double>(i) / 3) / config.divisors[i]);
  EXPECT_NEAR(rope.attention_scaling(), 1.190238, 1e-6);  // sqrt(1 + log(32) / log(4096))
  config.attention_factor = 1.25;
  EXPECT_EQ(Rope(config, 6, 2).attention_scaling(), 2.5);
  config.attention_factor = 0;
  config.factor = 1;
  EXPECT_EQ(Rope(config, 6).attention_scaling(), 1);
}

TEST(Tables, AreRightAtEveryPosition) {
  for (const double theta : {1e4, 5e5, 1e7}) {
    RopeConfig config;
    config.theta = theta;
    const Rope rope(config, 128);
    for (const std::int64_t first :
         {std::int64_t{0}, std::int64_t{131'000}, std::int64_t{1} << 20, kTenMillion - 100}) {
      const Table table(rope, first, 200);
      for (std::size_t at = 0; at < table.cos.size(); ++at) {
        const auto pair = static_cast<long double>(at % 64);
        const auto position = static_cast<long double>(first) + static_cast<long double>(at / 64);
        const long double angle = position * std::pow(static_cast<long double>(theta), -pair / 64);
        ASSERT_NEAR(table.cos[at], static_cast<double>(std::cos(angle)), 1e-7)
            << theta << " " << position;
        ASSERT_NEAR(table.sin[at], static_cast<double>(std::sin(angle)), 1e-7)
            << theta << " " << position;
      }
    }
  }
}

TEST(Tables, CarryTheAttentionScaling) {
  const Json scaling = {{"rope_type", "yarn"}, {"factor", 16.0}};
  const ModelConfig config = read_config(small_config({{"rope_scaling", scaling}}));
  const Rope rope(config.rope, config.head_dim);
  EXPECT_NEAR(rope.attention_scaling(), 0.1 * std::log(16.0) + 1, 1e-12);
  const Table table(rope, kTenMillion, 100);
  for (std::size_t at = 0; at < table.cos.size(); ++at)
    ASSERT_NEAR(std::hypot(table.cos[at], table.sin[at]), rope.attention_scaling(), 1e-6);
}

TEST(Tables, HaveTheSameBitsWhereverTheyStart) {
  const ModelConfig config = read_model_config(kGoldenModels + "llama_yarn_bias");
  const Rope rope(config.rope, config.head_dim);
  const std::size_t half = rope.frequencies().size();
  for (const std::int64_t first : {std::int64_t{0}, kTenMillion - 70}) {
    const Table whole(rope, first, 150);
    for (std::int64_t row = 0; row < 150; ++row) {
      const Table rest(rope, first + row, 150 - row);
      const auto from = static_cast<std::ptrdiff_t>(static_cast<std::size_t>(row) * half);
      ASSERT_TRUE(std::equal(rest.cos.begin(), rest.cos.end(), whole.cos.begin() + from)) << row;
      ASSERT_TRUE(std::equal(rest.sin.begin(), rest.sin.end(), whole.sin.begin() + from)) << row;
    }
  }
}

TEST(Tables, OfNoRopeRotateNothing) {
  RopeConfig config;
  config.kind = RopeKind::none;
  config.factor = 16;
  const Table table(Rope(config, 64, 1.25), kTenMillion, 100);
  EXPECT_TRUE(std::ranges::all_of(table.cos, [](float c) { return c == 1.25F; }));
  EXPECT_TRUE(std::ranges::all_of(table.sin, [](float s) { return s == 0; }));
}

// The corners of what read_ropes accepts.
// By hand: the pairs of a head of 12 values for 8 alone, and 1 and 0 behind them.
TEST(Tables, OfAPartRotateNothingBehindIt) {
  RopeConfig config;
  config.kind = RopeKind::yarn;
  config.factor = 4;
  config.original_positions = 64;
  const Rope whole(config, 8, 0.5);
  config.rotary = 8;
  const Rope part(config, 12, 0.5);
  EXPECT_GT(part.attention_scaling(), 0.5);
  const Table expected(whole, 70, 5), found(part, 70, 5);
  for (std::size_t row = 0; row < 5; ++row) {
    for (std::size_t i = 0; i < 6; ++i) {
      EXPECT_EQ(found.cos[row * 6 + i], i < 4 ? expected.cos[row * 4 + i] : 0.5F);
      EXPECT_EQ(found.sin[row * 6 + i], i < 4 ? expected.sin[row * 4 + i] : 0.0F);
    }
  }
}

TEST(Frequencies, AreNumbersForAnySettings) {
  for (const RopeKind kind :
       {RopeKind::standard, RopeKind::linear, RopeKind::llama3, RopeKind::yarn}) {
    for (const double theta : {1 + 1e-9, 1e15}) {
      for (const double factor : {1.0, 1e6}) {
        for (const std::int64_t original : {std::int64_t{1}, std::int64_t{1} << 32}) {
          RopeConfig config;
          config.kind = kind;
          config.theta = theta;
          config.factor = factor;
          config.original_positions = original;
          for (const std::int64_t head_dim : {2, 256}) {
            const Rope rope(config, head_dim);
            for (const double f : rope.frequencies())
              EXPECT_TRUE(f > 0 && f <= 1) << f << " at theta " << theta << ", factor " << factor;
          }
        }
      }
    }
  }
}

}  // namespace
}  // namespace starattn
