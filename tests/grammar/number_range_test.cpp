// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <charconv>
#include <cmath>
#include <string>

#include "base/random.h"
#include "grammar/json_text.h"
#include "matching.h"

namespace starattn {
namespace {

using testing::behind;
using testing::matches;
using testing::new_expressions;

bool is_within(double value, const NumberBounds& bounds) {
  return !(bounds.low && (value < *bounds.low || (bounds.excludes_low && value == *bounds.low))) &&
         !(bounds.high &&
           (value > *bounds.high || (bounds.excludes_high && value == *bounds.high)));
}

TEST(NumberRange, EveryIntegerBetweenSmallBounds) {
  for (int low = -120; low <= 120; low += 7) {
    for (int high = low; high <= 130; high += 11) {
      for (const bool excludes : {false, true}) {
        const NumberBounds bounds{low, high, excludes, false};
        Expressions in = new_expressions();
        const Expression e = json_integer_within(in, bounds);
        for (int n = -1300; n <= 1300; n += n > -140 && n < 140 ? 1 : 97)
          ASSERT_EQ(matches(in, e, std::to_string(n)), is_within(n, bounds))
              << n << " in " << low << " to " << high << excludes;
        for (const char* text : {"", "-", "-0", "00", "01", "1.0", "+1"})
          ASSERT_FALSE(matches(in, e, text)) << text;
      }
    }
  }
}

TEST(NumberRange, OneBoundAndFractions) {
  Expressions in = new_expressions();
  const Expression from = json_integer_within(in, {-2.5, std::nullopt});
  const Expression to = json_integer_within(in, {std::nullopt, 1000.5});
  EXPECT_TRUE(matches(in, from, "-2"));
  EXPECT_FALSE(matches(in, from, "-3"));
  EXPECT_TRUE(matches(in, from, "999999999999999"));
  EXPECT_FALSE(matches(in, from, "9999999999999999")) << "more than 15 digits";
  EXPECT_TRUE(matches(in, to, "1000"));
  EXPECT_FALSE(matches(in, to, "1001"));
  EXPECT_TRUE(matches(in, to, "-999999"));
  EXPECT_EQ(json_integer_within(in, {0.2, 0.8}), kNoText);
  EXPECT_EQ(json_integer_within(in, {1, 2, true, true}), kNoText);
  EXPECT_EQ(json_number_within(in, {2.0, 1.0}), kNoText);
  EXPECT_EQ(json_number_within(in, {2.0, 2.0, true, false}), kNoText);
  EXPECT_TRUE(matches(in, json_integer_within(in, {std::nullopt, 9.3e18}), "123456789012345"));
}

// Any path through the expression ends at a number within the bounds, as a double reads it.
TEST(NumberRange, WhateverIsWrittenIsWithin) {
  const NumberBounds all[] = {
      {0.0, 1.0},          {0.0, 1.0, true, true}, {-0.5, 0.25},
      {3.14159, 3.1416},   {-1e-5, 1e-5},          {99.95, 1234.5, true, false},
      {std::nullopt, 0.0}, {-7.25, std::nullopt},  {-3.5, -1.25, false, true},
      {0.0, 0.0},          {std::nullopt, -0.001}, {1e14, 2e14}};
  for (const NumberBounds& bounds : all) {
    Expressions in = new_expressions();
    const Expression e = json_number_within(in, bounds);
    ASSERT_NE(e, kNoText);
    for (std::uint64_t seed = 0; seed < 2000; ++seed) {
      Random random(seed);
      std::string text;
      for (Expression rest = e; !(in.may_end(rest) && random.below(4) == 0);) {
        std::string bytes;
        for (const char c : std::string("-.0123456789e"))
          if (in.after(rest, static_cast<unsigned char>(c)) != kNoText) bytes += c;
        if (bytes.empty()) break;
        text += random.pick(bytes);
        rest = in.after(rest, static_cast<unsigned char>(text.back()));
      }
      ASSERT_TRUE(matches(in, e, text)) << text;
      ASSERT_TRUE(Json::accept(text)) << text;
      ASSERT_TRUE(is_within(Json::parse(text).get<double>(), bounds)) << text;
    }
  }
}

TEST(NumberRange, ReachesWhatIsWithin) {
  Expressions in = new_expressions();
  const Expression e = json_number_within(in, {-0.5, 12.25, false, true});
  for (const char* text :
       {"0", "0.0", "-0.5", "-0.499", "-0.1", "0.1", "7", "12", "12.2", "12.2499", "12.0"})
    EXPECT_TRUE(matches(in, e, text)) << text;
  for (const char* text :
       {"-0.51", "-1", "12.25", "12.250", "12.3", "13", "100", "-0", "012", "1e1", "12."})
    EXPECT_FALSE(matches(in, e, text)) << text;
}

}  // namespace
}  // namespace starattn
