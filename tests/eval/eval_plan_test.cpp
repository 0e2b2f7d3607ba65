// SPDX-License-Identifier: Apache-2.0
#include "eval/eval_plan.h"

#include <gtest/gtest.h>

#include <functional>
#include <utility>

#include "benchmark/document_maker.h"

namespace starattn {
namespace {

EvalRules rules() {
  EvalRules rules;
  rules.tasks = {find_task("vt"), find_task("qa1")};
  rules.lengths = {1024, 2048};
  rules.settings = {"dense", "star"};
  rules.count = 25;
  rules.max_length = 16384;
  return rules;
}

struct Taken {
  std::vector<std::string> samples;  // "document setting"
  std::vector<Limit> limits;
};

// Plays an evaluation in which score says how each sample goes. n_at_once samples are in work, and
// come back when there are no more or the plan waits for them.
Taken play(const EvalRules& rules, std::size_t n_at_once,
           const std::function<double(const EvalSample&, const std::string& setting)>& score) {
  EvalPlan plan(rules);
  Comparison found;
  Taken taken;
  std::vector<Trial> in_work;
  const auto come_back = [&] {
    for (const Trial& trial : std::exchange(in_work, {})) found.add(trial);
  };
  for (;;) {
    if (plan.depends_on_results() || in_work.size() >= n_at_once) come_back();
    const auto sample = plan.next(found);
    if (!sample) break;
    for (const std::string& setting : sample->settings) {
      Trial trial;
      trial.id = document_id(*find_task(sample->task), sample->length, sample->number);
      trial.setting = setting;
      trial.task = sample->task;
      trial.length = sample->length;
      trial.score = score(*sample, setting);
      taken.samples.push_back(trial.id + " " + setting);
      in_work.push_back(trial);
    }
  }
  taken.limits = plan.limits();
  return taken;
}

double always_right(const EvalSample&, const std::string&) {
  return 1;
}

TEST(EvalPlan, TakesEverySampleOnceInEverySetting) {
  const Taken taken = play(rules(), 4, always_right);
  EXPECT_EQ(taken.samples.size(), 2 * 2 * 2 * 25);
  EXPECT_EQ(taken.samples.front(), "vt-1024-0 dense");
  EXPECT_EQ(taken.samples.back(), "qa1-2048-24 star");
}

TEST(EvalPlan, TakesTheSameHoweverManyAreInWork) {
  EvalRules adaptive = rules();
  adaptive.until = 0.1;
  adaptive.count = 75;
  const auto score = [](const EvalSample& sample, const std::string& setting) {
    return setting == "star" && sample.length == 2048 ? 0.8 : 1.0;
  };
  const Taken one = play(adaptive, 1, score);
  for (const std::size_t n : {2, 3, 7, 64, 10000})
    EXPECT_EQ(play(adaptive, n, score).samples, one.samples);
}

TEST(EvalPlan, StopsBehindTenTwentyWhenAllSettingsAreCertain) {
  EvalRules adaptive = rules();
  adaptive.until = 0.1;
  adaptive.count = 75;
  // All right: Wilson's half-width is 0.139 for 10, 0.081 for 20.
  EXPECT_EQ(play(adaptive, 4, always_right).samples.size(), 2 * 2 * 2 * 20);
  // A setting that is right half of the time would need 100: all that are allowed are taken.
  const Taken taken = play(adaptive, 4, [](const EvalSample&, const std::string& setting) {
    return setting == "star" ? 0.5 : 1.0;
  });
  EXPECT_EQ(taken.samples.size(), 2 * 2 * 2 * 75);
}

TEST(EvalPlan, DoublesTheLengthWhileASettingHolds) {
  EvalRules limit = rules();
  limit.lengths = {1024};
  limit.count = 3;
  limit.find_limit = 0.9;
  const Taken taken = play(limit, 2, [](const EvalSample& sample, const std::string& setting) {
    return setting == "dense" || sample.length < 4096 ? 1.0 : 0.5;
  });
  ASSERT_EQ(taken.limits.size(), 4);
  EXPECT_EQ(taken.limits[0].setting, "dense");
  EXPECT_EQ(taken.limits[0].holds, 16384);  // the model has no more positions
  EXPECT_EQ(taken.limits[0].fails, 0);
  EXPECT_EQ(taken.limits[1].setting, "star");
  EXPECT_EQ(taken.limits[1].holds, 2048);
  EXPECT_EQ(taken.limits[1].fails, 4096);
  EXPECT_EQ(taken.limits[3].task, "qa1");
  // 1k, 2k and 4k in both settings, 8k and 16k only in the one that held.
  EXPECT_EQ(taken.samples.size(), 2 * 3 * (3 * 2 + 2));
}

TEST(EvalPlan, WaitsOnlyForResultsThatDecideSomething) {
  const auto n_before_it_waits = [](const EvalRules& rules) {
    EvalPlan plan(rules);
    std::int64_t n = 0;
    while (!plan.depends_on_results() && plan.next(Comparison())) ++n;
    return n;
  };
  EXPECT_EQ(n_before_it_waits(rules()), 2 * 2 * 25) << "never";
  EvalRules adaptive = rules();
  adaptive.until = 0.1;
  EXPECT_EQ(n_before_it_waits(adaptive), 10) << "the first that may be enough";
  EvalRules limit = rules();
  limit.lengths = {1024};
  limit.find_limit = 0.9;
  EXPECT_EQ(n_before_it_waits(limit), 25) << "all of a length";
}

TEST(EvalPlan, EndsWhereNothingHolds) {
  EvalRules limit = rules();
  limit.lengths = {1024};
  limit.count = 3;
  limit.find_limit = 0.9;
  const Taken taken = play(limit, 5, [](const EvalSample&, const std::string&) { return 0.0; });
  EXPECT_EQ(taken.samples.size(), 2 * 2 * 3);
  EXPECT_EQ(taken.limits[0].holds, 0);
  EXPECT_EQ(taken.limits[0].fails, 1024);
}

}  // namespace
}  // namespace starattn
