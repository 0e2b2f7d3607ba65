// SPDX-License-Identifier: Apache-2.0
// The cells that trials make, what counts as worse, and how it is shown.
#include "eval/comparison.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <sstream>

#include "base/error.h"
#include "eval/accuracy_report.h"

namespace starattn {
namespace {

Trial trial(int sample, const std::string& setting, double score, double seconds = 2) {
  Trial t;
  t.id = fmt::format("vt-1024-{}", sample);
  t.setting = setting;
  t.task = "vt";
  t.length = 1024;
  t.seed = 42;
  t.score = score;
  t.n_right = static_cast<std::int64_t>(5 * score);
  t.n_context = 1000;
  t.n_new_tokens = 10;
  t.encode_seconds = seconds;
  t.answer_seconds = 0.5;
  t.basis.n_ranks = 1;
  t.answer = "a \"b\"";
  return t;
}

// n samples: dense all right in 4 s, star right but for the first n_wrong, in the given time.
Comparison comparison(int n, int n_wrong, double star_seconds = 2) {
  Comparison all;
  for (int i = 0; i < n; ++i) {
    all.add(trial(i, "dense", 1, 4));
    all.add(trial(i, "star:b=n/4", i < n_wrong ? 0 : 1, star_seconds * (i % 2 ? 1.01 : 0.99)));
  }
  return all;
}

TEST(PairedDifference, IsAgrestiAndMins) {
  // 20 pairs, 4 worse, 1 better: b = 1, c = 4, n + 2 = 22. Middle (1 - 4) / 22; variance
  // ((1.5 + 4.5) - 9 / 22) / 22^2.
  std::vector<std::pair<double, double>> pairs(20, {1, 1});
  for (int i = 0; i < 4; ++i) pairs[i] = {0, 1};
  pairs[4] = {1, 0};
  const Estimate d = paired_difference(pairs);
  EXPECT_EQ(d.n, 20);
  EXPECT_NEAR(d.mean, -3.0 / 20, 1e-12);
  const double half = 1.959964 * std::sqrt((6 - 9.0 / 22) / (22.0 * 22));
  EXPECT_NEAR(d.low, -3.0 / 22 - half, 1e-6);
  EXPECT_NEAR(d.high, -3.0 / 22 + half, 1e-6);
  const Estimate same = paired_difference({{1, 1}, {0, 0}});
  EXPECT_EQ(same.mean, 0);
  EXPECT_LT(same.low, -0.4);  // two equal pairs prove little
  EXPECT_EQ(paired_difference({}).n, 0);
}

TEST(PairedRatio, IsGeometric) {
  const Estimate ratio = paired_ratio({{2, 1}, {8, 1}});
  EXPECT_NEAR(ratio.mean, 4, 1e-12);
  EXPECT_NEAR(ratio.low, 4 * std::exp(-12.706205 * std::log(2)), 1e-8);
  EXPECT_NEAR(ratio.high, 4 * std::exp(12.706205 * std::log(2)), 1);
  EXPECT_EQ(paired_ratio({{3, 1}}).low, 0);  // one pair says nothing of its noise
}

TEST(Comparison, CellsHaveScoresLossesAndSpeeds) {
  const auto cells = comparison(10, 3).cells();
  ASSERT_EQ(cells.size(), 2);
  EXPECT_TRUE(cells[0].is_exact);
  EXPECT_EQ(cells[0].difference.n, 0);
  EXPECT_NEAR(cells[0].tokens_per_second, 250, 1e-9);
  EXPECT_NEAR(cells[0].ms_per_token, 50, 1e-9);
  EXPECT_EQ(cells[1].setting, "star:b=n/4");
  EXPECT_NEAR(cells[1].score.mean, 0.7, 1e-12);
  EXPECT_NEAR(cells[1].score.low, wilson_interval(0.7, 10).low, 1e-12);
  EXPECT_NEAR(cells[1].difference.mean, -0.3, 1e-12);
  EXPECT_NEAR(cells[1].speedup.mean, 2, 1e-3);
  EXPECT_NEAR(cells[1].n_right, 3.5, 1e-12);
}

TEST(Comparison, SpeedsAreComparedOnEqualRanksAlone) {
  Comparison all;
  for (int i = 0; i < 4; ++i) {
    Trial star = trial(i, "star", 1, 2);
    star.basis.n_ranks = 4;
    all.add(trial(i, "dense", 1, 100));
    all.add(star);
  }
  EXPECT_EQ(all.cell("vt", 1024, "star").speedup.n, 0);  // dense is one rank's work
  EXPECT_EQ(all.cell("vt", 1024, "star").difference.n, 4);
  for (int i = 0; i < 4; ++i) {
    Trial ring = trial(i, "ring", 1, 6);
    ring.basis.n_ranks = 4;
    all.add(ring);
  }
  const Cell star = all.cell("vt", 1024, "star");
  EXPECT_NEAR(star.speedup.mean, 3, 1e-9);
  EXPECT_EQ(star.faster_than, "ring");
  EXPECT_EQ(star.n_ranks, 4);
  EXPECT_NE(speed_notes(all.cells()).find("as fast as ring, on 4 rank(s) each"), std::string::npos);
}

TEST(Comparison, RanksThatShareADeviceHaveNoSpeeds) {
  Comparison all;
  for (const char* setting : {"ring", "star"}) {
    Trial one = trial(0, setting, 1, 2);
    one.basis = {4, true};
    all.add(parse_trial(to_line(one), "here"));
  }
  EXPECT_EQ(all.cell("vt", 1024, "star").speedup.n, 0);
  EXPECT_FALSE(all.cell("vt", 1024, "star").has_speeds);
  const std::string page = to_html(all.cells(), {"m", "run", "starattn 1"});
  for (const char* head : {"<th>tokens/s</th>", "<th>x exact</th>", "<th>ms/token</th>"})
    EXPECT_EQ(page.find(head), std::string::npos) << head;
  EXPECT_NE(page.find("ranks shared a GPU or cores"), std::string::npos);
  const std::string with_speeds = to_html(comparison(3, 1).cells(), {"m", "run", "v"});
  EXPECT_NE(with_speeds.find("<th>x exact</th>"), std::string::npos);
  EXPECT_NE(with_speeds.find("Speed against accuracy"), std::string::npos);
  EXPECT_EQ(page.find("Speed against accuracy"), std::string::npos);
}

TEST(Comparison, OnlyTheSameSamplesArePaired) {
  Comparison all;
  for (int i = 0; i < 4; ++i) all.add(trial(i, "dense", 1));
  for (int i = 2; i < 8; ++i) all.add(trial(i, "star", 0));
  Trial other_seed = trial(0, "star", 0);
  other_seed.seed = 7;
  all.add(other_seed);
  EXPECT_EQ(all.cell("vt", 1024, "star").difference.n, 2);
  EXPECT_EQ(all.cell("vt", 1024, "star").score.n, 7);
  all.add(trial(2, "star", 1));  // a second one
  EXPECT_EQ(all.cell("vt", 1024, "star").score.mean, 0);
  EXPECT_EQ(all.cell("vt", 2048, "star").score.n, 0);
}

TEST(Comparison, WorseIsWhatTheNoiseDoesNotExplain) {
  const Comparison stored = comparison(40, 2);
  std::int64_t n_compared = 0;
  EXPECT_TRUE(stored.regressions(stored, n_compared).empty());
  EXPECT_EQ(n_compared, 2);
  EXPECT_TRUE(comparison(40, 4).regressions(stored, n_compared).empty());
  const auto worse = comparison(40, 14).regressions(stored, n_compared);
  ASSERT_EQ(worse.size(), 1);
  EXPECT_NE(worse[0].find("vt, 1,024 tokens, star:b=n/4: score 65.0 %, stored 95.0 %"),
            std::string::npos)
      << worse[0];
  EXPECT_TRUE(comparison(40, 2, 2.08).regressions(stored, n_compared).empty());
  const auto slower = comparison(40, 2, 2.5).regressions(stored, n_compared);
  ASSERT_EQ(slower.size(), 1);
  EXPECT_NE(slower[0].find("1.60x as fast as exact"), std::string::npos) << slower[0];
  EXPECT_TRUE(comparison(40, 0, 1).regressions(stored, n_compared).empty());  // better
  Comparison none;
  EXPECT_TRUE(none.regressions(stored, n_compared).empty());
  EXPECT_EQ(n_compared, 0);
}

TEST(AccuracyReport, TheTerminalHas80Columns) {
  Comparison all = comparison(10, 10);
  all.add(trial(0, "star:b=n/16,a=0,r=9", 0));
  std::istringstream lines(to_terminal(all.cells()));
  int n = 0;
  for (std::string line; std::getline(lines, line); ++n) EXPECT_LE(line.size(), 80) << line;
  EXPECT_EQ(n, 2 + 3 * 2 + 1);  // and on what the speeds are
}

TEST(AccuracyReport, LongSettingsShiftNoColumn) {
  Comparison all;
  all.add(trial(0, "dense", 1));
  all.add(trial(0, "star:b=n/16,a=b/16,c=b/2,q=b/128", 1));
  std::istringstream lines(to_terminal(all.cells()));
  std::size_t width = 0;
  for (std::string line; std::getline(lines, line);) {
    if (line.starts_with(" dense")) width = line.size();
    if (line.starts_with(" star:b")) {
      EXPECT_EQ(line.size(), width) << line;
    }
  }
  EXPECT_GT(width, 80U);
}

TEST(AccuracyReport, LinesAreJsonWithoutInfinities) {
  Comparison all;
  all.add(trial(0, "dense", 1));
  all.add(trial(0, "star", 1));
  std::istringstream lines(to_json_lines(all.cells()));
  std::string line;
  std::getline(lines, line);
  EXPECT_TRUE(parse_json(line, "first")["difference"].is_null());
  std::getline(lines, line);
  const Json star = parse_json(line, "second");
  EXPECT_EQ(star["speedup"]["mean"], 1);
  EXPECT_TRUE(star["speedup"]["high"].is_null());
}

TEST(AccuracyReport, ThePageEscapesWhatItIsGiven) {
  const std::string page =
      to_html(comparison(3, 1).cells(), {"<script>\"m\"&", "run 'x' <y>", "starattn 1"});
  EXPECT_EQ(page.find("<script"), std::string::npos);
  EXPECT_NE(page.find("&lt;script&gt;&quot;m&quot;&amp;"), std::string::npos);
  EXPECT_EQ(std::ranges::count(page, '<'), std::ranges::count(page, '>'));
  EXPECT_EQ(page.find("http"), std::string::npos);  // it needs nothing else
}

}  // namespace
}  // namespace starattn
