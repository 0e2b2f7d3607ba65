// SPDX-License-Identifier: Apache-2.0
#include "benchmark/fit.h"

#include <gtest/gtest.h>

#include "base/error.h"

namespace starattn {
namespace {

// A sample of n units whose size in tokens is whatever `tokens` says.
struct Toy {
  std::function<std::int64_t(std::int64_t)> tokens;
  mutable int n_measured = 0;

  SampleMaker maker(std::int64_t min_units) const {
    SampleMaker made;
    made.min_units = min_units;
    made.make = [](const Random&, std::int64_t, std::int64_t n) {
      return Sample{std::to_string(n), "", "", {}};
    };
    return made;
  }
  Fitted fit_to(std::int64_t budget, std::int64_t min_units = 1) const {
    const auto count = [this](const Sample& sample) {
      ++n_measured;
      return tokens(std::stoll(sample.context));
    };
    const FitGuess guess = calibrate(maker(min_units), Random(1), budget, count);
    n_measured = 0;
    return fit(maker(min_units), Random(1), 0, budget, guess, count);
  }
};

TEST(Fit, FillsTheBudgetInTwoOrThreeSteps) {
  const Toy toy{[](std::int64_t n) { return 100 + 7 * n; }};
  for (const std::int64_t budget : {107, 114, 500, 4096, 1 << 20}) {
    const Fitted fitted = toy.fit_to(budget);
    EXPECT_LE(fitted.n_tokens, budget);
    EXPECT_GE(fitted.n_tokens, budget - 7 - budget / 2048);
    EXPECT_EQ(fitted.n_tokens, 100 + 7 * fitted.n_units);
    EXPECT_LE(toy.n_measured, 3) << budget;
  }
}

TEST(Fit, HoldsForCurvesStepsAndBumps) {
  const Toy toys[] = {{[](std::int64_t n) { return n < 400 ? 50 + 2 * n : 4 * n - 750; }},
                      {[](std::int64_t n) { return 10 + n * n; }},
                      {[](std::int64_t n) { return n / 100 * 1000; }},
                      {[](std::int64_t n) { return 20 + 5 * n + (n % 7) * 9; }}};
  for (const Toy& toy : toys) {
    for (const std::int64_t budget : {1000, 1234, 4096, 100000}) {
      const Fitted fitted = toy.fit_to(budget);
      EXPECT_LE(fitted.n_tokens, budget);
      EXPECT_EQ(fitted.n_tokens, toy.tokens(fitted.n_units));
      EXPECT_LE(toy.n_measured, 40);
    }
  }
}

TEST(Fit, SaysWhatTheLeastIs) {
  const Toy toy{[](std::int64_t n) { return 100 + 7 * n; }};
  EXPECT_EQ(toy.fit_to(170, 10).n_units, 10);
  try {
    toy.fit_to(169, 10);
    ADD_FAILURE() << "accepted";
  } catch (const Error& error) {
    EXPECT_EQ(error.exit(), Exit::usage);
    EXPECT_NE(std::string(error.what()).find("at least 170 tokens"), std::string::npos);
  }
}

}  // namespace
}  // namespace starattn
