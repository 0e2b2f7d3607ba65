// SPDX-License-Identifier: Apache-2.0
#include "study/study_report.h"

#include <gtest/gtest.h>

#include <algorithm>

namespace starattn {
namespace {

Study study_of(std::int64_t n_ranks, std::initializer_list<std::int64_t> lengths) {
  Study study;
  study.head = {
      {"date", "<today>"}, {"version", "1"}, {"device", "d"}, {"model", "m"}, {"command", "c"}};
  for (const std::int64_t n : lengths) {
    for (int repeat = 0; repeat < 6; ++repeat) {
      Measurement one;
      one.n_ranks = n_ranks;
      one.n_context = n;
      one.setting = "star";
      one.anchor = "broadcast";
      one.operation = "phase-1";
      one.repeat = repeat;
      one.seconds = static_cast<double>(n) / static_cast<double>(n_ranks) + repeat;
      one.phases["layer"] = {1, 2, 3, 0};
      study.measurements.push_back(one);
    }
  }
  return study;
}

const Chart* chart_named(const std::vector<Chart>& charts, const std::string& title) {
  const auto found = std::ranges::find_if(
      charts, [&](const Chart& chart) { return chart.title.starts_with(title); });
  return found == charts.end() ? nullptr : &*found;
}

TEST(StudyReport, StrongScalingStandsBesideTheIdealLine) {
  const auto charts = charts_of({study_of(1, {1024, 2048}), study_of(4, {1024, 2048})});
  const Chart* chart = chart_named(charts, "Strong scaling of phase 1");
  ASSERT_TRUE(chart);
  ASSERT_EQ(chart->series.size(), 4U);  // two contexts, each with its ideal
  EXPECT_EQ(chart->series[0].name, "1K tokens, star");
  ASSERT_EQ(chart->series[0].points.size(), 2U);
  EXPECT_EQ(chart->series[0].points[1].x, 4);
  EXPECT_EQ(chart->series[0].points[1].y, 256 + 2.5);
  EXPECT_EQ(chart->series[0].points[1].low, 256);
  EXPECT_EQ(chart->series[0].points[1].high, 256 + 5);
  EXPECT_TRUE(chart->series[2].is_ideal);
  EXPECT_EQ(chart->series[2].points[1].y, (1024 + 2.5) / 4);
}

TEST(StudyReport, WeakScalingIsWhereTokensOfARankAreEqual) {
  const auto charts = charts_of({study_of(1, {1024}), study_of(2, {2048}), study_of(4, {4096})});
  const Chart* chart = chart_named(charts, "Weak scaling of phase 1");
  ASSERT_TRUE(chart);
  ASSERT_EQ(chart->series.size(), 2U);
  EXPECT_EQ(chart->series[0].points.size(), 3U);
  EXPECT_EQ(chart->series[1].points[2].y, 1024 + 2.5);
  EXPECT_FALSE(chart_named(charts, "Strong scaling"));
}

TEST(StudyReport, EscapesWhatItIsGiven) {
  Study study = study_of(1, {1024, 2048});
  for (Measurement& one : study.measurements) one.setting = "<script>";
  std::string page = to_page({"<b>", "<c>", "<d>"}, study_sections({study}));
  for (const char* tag : {"<script", "<today", "<b>", "<c>", "<d>"})
    EXPECT_EQ(page.find(tag), std::string::npos) << tag;
  EXPECT_EQ(std::ranges::count(page, '<'), std::ranges::count(page, '>'));
  EXPECT_EQ(page.find("http"), std::string::npos);  // it needs nothing else
}

TEST(StudyReport, LeavesNoControlCharacterInAPage) {
  Study study = study_of(1, {1024, 2048});
  for (Measurement& one : study.measurements) one.setting = std::string("a\0b\x1b[31m\n", 9);
  const std::string page = to_page({"t", "c", "v"}, study_sections({study}));
  EXPECT_TRUE(std::ranges::none_of(
      page, [](unsigned char c) { return c < 0x20 && c != '\n' && c != '\t'; }));
}

TEST(Chart, EndsWhateverTheNumbers) {
  for (const bool is_log : {true, false}) {
    Chart chart{.title = "t", .x_label = "x", .y_label = "y", .is_y_log = is_log};
    for (const double y : {5e-324, 1e-300, 1e-25, 1.0, 1e17, 1e25, 1e308})
      chart.series.push_back({"a", {{1, y, y, y}, {2, 1.0000001 * y, y, 1.0000001 * y}}});
    const std::string svg = to_svg(chart);
    EXPECT_EQ(svg.find("nan"), std::string::npos);
    EXPECT_EQ(svg.find("inf"), std::string::npos);
    EXPECT_LT(svg.size(), 20'000U);
  }
}

TEST(Chart, LinesDifferWithoutTheirColours) {
  Chart chart{.title = "t", .x_label = "x", .y_label = "y"};
  for (const char* name : {"a", "b"}) chart.series.push_back({name, {{1, 1, 1, 1}, {2, 2, 2, 2}}});
  const std::string svg = to_svg(chart);
  EXPECT_NE(svg.find("stroke-dasharray=''"), std::string::npos);
  EXPECT_NE(svg.find("stroke-dasharray='7 3'"), std::string::npos);
  EXPECT_NE(svg.find("a3 3 0 1 0 6 0"), std::string::npos);  // a circle
  EXPECT_NE(svg.find("M-3 -3h6v6h-6z"), std::string::npos);  // a square
}

// Nothing that is not positive has a place on a logarithmic axis.
TEST(Chart, LeavesOutWhatHasNoPlace) {
  Chart chart{.title = "t", .x_label = "x", .y_label = "y", .is_y_log = true};
  chart.series.push_back({"a", {{1, 0, 0, 0}, {2, 1, 1, 1}, {4, 3, 3, 3}}});
  const std::string svg = to_svg(chart);
  EXPECT_EQ(svg.find("nan"), std::string::npos);
  EXPECT_EQ(svg.find("inf"), std::string::npos);
}

}  // namespace
}  // namespace starattn
