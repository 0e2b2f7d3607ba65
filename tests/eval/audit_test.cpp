// SPDX-License-Identifier: Apache-2.0
// The sample of lines, the lines of an audit, and what a batch of them says.
#include <gtest/gtest.h>

#include <cmath>
#include <map>

#include "base/error.h"
#include "eval/audit_line.h"
#include "eval/audit_sheet.h"
#include "eval/line_sample.h"

namespace starattn {
namespace {

std::vector<std::int64_t> sample(std::uint64_t seed, std::int64_t n_wanted, std::int64_t n_lines) {
  LineSample sample(seed, n_wanted);
  for (std::int64_t i = 0; i < n_lines; ++i) sample.see(i);
  return sample.chosen();
}

TEST(LineSample, HasSoManyOfAllAndIsSeeded) {
  EXPECT_EQ(sample(1, 20, 7).size(), 7);
  EXPECT_EQ(sample(1, 20, 700).size(), 20);
  EXPECT_EQ(sample(1, 20, 700), sample(1, 20, 700));
  EXPECT_NE(sample(1, 20, 700), sample(2, 20, 700));
  EXPECT_TRUE(sample(1, 20, 0).empty());
}

TEST(LineSample, ALargerOneHoldsTheSmaller) {
  const auto small = sample(3, 10, 500);
  const auto large = sample(3, 40, 500);
  EXPECT_TRUE(std::ranges::includes(large, small));
}

TEST(LineSample, EveryLineIsEquallyLikely) {
  std::map<std::int64_t, int> counts;
  constexpr int kDraws = 4000;
  for (std::uint64_t seed = 0; seed < kDraws; ++seed) {
    for (const std::int64_t line : sample(seed, 2, 10)) ++counts[line];
  }
  // Binomial with p = 1/5: mean 800, standard deviation 25.3; seven of them.
  for (std::int64_t line = 0; line < 10; ++line) EXPECT_NEAR(counts[line], 800, 177) << line;
}

TEST(StudentT, IsThatOfTheTables) {
  const std::map<std::int64_t, double> table = {{1, 12.706}, {2, 4.303}, {3, 3.182},  {4, 2.776},
                                                {5, 2.571},  {9, 2.262}, {19, 2.093}, {99, 1.984}};
  for (const auto& [degrees, t] : table) EXPECT_NEAR(student_t95(degrees) / t, 1, 2e-3) << degrees;
}

TEST(AuditSheet, MeansOfDocumentsHaveStudentsInterval) {
  // mean 2, standard deviation 1, n = 3: 2 -+ 4.303 / sqrt(3), cut at 0.
  const Estimate mean = mean_over_documents({1, 2, 3});
  EXPECT_NEAR(mean.mean, 2, 1e-12);
  EXPECT_EQ(mean.low, 0);
  EXPECT_NEAR(mean.high, 2 + 4.302653 / std::sqrt(3), 1e-5);
  EXPECT_EQ(mean_over_documents({}).n, 0);
  EXPECT_TRUE(std::isinf(mean_over_documents({1}).high));
}

TEST(AuditSheet, SharesCountDocumentsWhereTheirAnswersGoTogether) {
  // All right or all wrong in a document: 4 documents are 4 observations, not 40.
  const Estimate together = share_over_documents({{10, 10}, {10, 10}, {0, 10}, {0, 10}});
  const Interval four = wilson_interval(0.5, 4);
  EXPECT_NEAR(together.low, four.low, 1e-12);
  EXPECT_NEAR(together.high, four.high, 1e-12);
  // As mixed as can be: all 40 count.
  const Estimate apart = share_over_documents({{5, 10}, {5, 10}, {4, 10}, {6, 10}});
  EXPECT_NEAR(apart.low, wilson_interval(0.5, 40).low, 1e-12);
  // Nothing wrong anywhere says no more than the documents do.
  EXPECT_NEAR(share_over_documents({{10, 10}, {10, 10}}).low, wilson_interval(1, 2).low, 1e-12);
  EXPECT_EQ(share_over_documents({}).n, 0);
}

AuditLine line_of(const std::string& query, std::int64_t n_positions, double kl, bool same) {
  AuditLine line;
  line.id = "d";
  line.query_id = query;
  line.n_context = 1000;
  line.n_positions = n_positions;
  line.kl_sum = kl;
  line.kl_max = kl / 2;
  line.n_same_top = n_positions - (same ? 0 : 1);
  line.is_same_tokens = line.is_same_text = same;
  line.exact = "a \"b\"\n";
  line.star = "\xff";
  line.exact_seconds = 3;
  line.star_seconds = 2;
  line.exact_basis = line.star_basis = {4, false};
  return line;
}

TEST(AuditLine, ComesBackAsItWasWritten) {
  const AuditLine line = parse_audit_line(to_line(line_of("q", 4, 0.1, false)), "here");
  EXPECT_EQ(line.id, "d");
  EXPECT_EQ(line.query_id, "q");
  EXPECT_EQ(line.kl_sum, 0.1);
  EXPECT_EQ(line.n_same_top, 3);
  EXPECT_FALSE(line.is_same_text);
  EXPECT_EQ(line.exact, "a \"b\"\n");
  EXPECT_EQ(line.star_seconds, 2);
}

TEST(AuditLine, RefusesWhatCannotBe) {
  const std::string good = to_line(line_of("q", 4, 0.5, true));
  const std::pair<std::string, std::string> changes[] = {
      {"\"n_positions\":4", "\"n_positions\":3"},  // fewer than agree
      {"\"kl_sum\":0.5", "\"kl_sum\":-1"},
      {"\"kl_sum\":0.5", "\"kl_sum\":1e999"},
      {"\"same_text\":true", "\"same_text\":1"},
      {"\"n_context\":1000", "\"n_context\":0"},
      {"\"id\":\"d\",", ""},
  };
  for (const auto& [from, to] : changes) {
    std::string bad = good;
    ASSERT_NE(bad.find(from), std::string::npos) << from;
    bad.replace(bad.find(from), from.size(), to);
    EXPECT_THROW(parse_audit_line(bad, "here"), Error) << to;
  }
}

TEST(AuditSheet, ADocumentAndABatchAddUp) {
  const std::vector<AuditLine> lines = {line_of("a", 4, 0.2, true), line_of("b", 6, 0.8, false)};
  const AuditRow row = row_of(lines);
  EXPECT_EQ(row.n_queries, 2);
  EXPECT_EQ(row.n_positions, 10);
  EXPECT_NEAR(row.kl_mean(), 0.1, 1e-12);
  EXPECT_NEAR(row.kl_max, 0.4, 1e-12);
  EXPECT_EQ(row.n_same_top, 9);
  EXPECT_EQ(row.n_same_tokens, 1);
  EXPECT_EQ(row.exact_seconds, 3);  // of the document, not of each query
  const AuditSummary all = summarise({row, row});
  EXPECT_EQ(all.n_queries, 4);
  EXPECT_NEAR(all.same_top.mean, 0.9, 1e-12);
  EXPECT_NEAR(all.speed_ratio(), 1.5, 1e-12);
  EXPECT_EQ(summarise({}).n_documents, 0);
}

TEST(AuditSheet, OnlyTimesOfEqualMeansAreCompared) {
  AuditLine line = line_of("a", 4, 0.2, true);
  const auto table = [&] {
    const AuditLine read = parse_audit_line(to_line(line), "here");
    return to_table(summarise({row_of(std::vector<AuditLine>{read})}));
  };
  EXPECT_NE(table().find("1.50 times as fast, on 4 rank(s) both times"), std::string::npos);
  line.exact_basis.n_ranks = 1;
  EXPECT_EQ(table().find("times as fast"), std::string::npos);
  EXPECT_NE(table().find("different numbers of ranks"), std::string::npos);
  line.exact_basis.n_ranks = 4;
  line.star_basis.shares_device = true;
  EXPECT_EQ(table().find("times as fast"), std::string::npos);
  EXPECT_NE(table().find("ranks shared"), std::string::npos);
}

TEST(AuditSheet, TheTableHas80ColumnsWhateverTheId) {
  AuditRow row = row_of(std::vector<AuditLine>{line_of("a", 4, 0.2, true)});
  row.n_context = 10'000'000;
  row.id = std::string(100, 'x') + "\n\x1b[2J";
  EXPECT_LE(to_table_line(row).size(), 81);
  EXPECT_EQ(to_table_line(row).find('\x1b'), std::string::npos);
}

}  // namespace
}  // namespace starattn
