// SPDX-License-Identifier: Apache-2.0
#include "eval/audit_sheet.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "base/error.h"
#include "base/text.h"

namespace starattn {
namespace {

constexpr std::size_t kIdWidth = 24;

// An id of any length and any bytes, in so many characters.
std::string short_id(const std::string& id) {
  std::string text;
  for (const char c : id) text += static_cast<unsigned char>(c) < 0x20 || c == 0x7f ? '?' : c;
  if (text.size() <= kIdWidth) return text;
  std::size_t end = kIdWidth - 2;
  while (end > 0 && (static_cast<unsigned char>(text[end]) & 0xc0) == 0x80) --end;
  return text.substr(0, end) + "..";
}

double percent(std::int64_t part, std::int64_t whole) {
  return whole == 0 ? 0 : 100.0 * static_cast<double>(part) / static_cast<double>(whole);
}

std::string estimate_line(const char* what, const Estimate& estimate, double scale,
                          const char* format) {
  const auto number = [&](double value) {
    return fmt::format(fmt::runtime(format), scale * value);
  };
  const bool known = std::isfinite(estimate.high);
  return fmt::format(
      "{:<34} {:>10}  {}\n", what, number(estimate.mean),
      known ? number(estimate.low) + " .. " + number(estimate.high) : "- (one document)");
}

}  // namespace

double AuditRow::kl_mean() const {
  return n_positions == 0 ? 0 : kl_sum / static_cast<double>(n_positions);
}

Estimate mean_over_documents(const std::vector<double>& values) {
  if (values.empty()) return {};
  const auto n = static_cast<double>(values.size());
  const double mean = std::accumulate(values.begin(), values.end(), 0.0) / n;
  if (values.size() == 1) return {1, mean, 0, std::numeric_limits<double>::infinity()};
  double squares = 0;
  for (const double value : values) squares += (value - mean) * (value - mean);
  const double half = student_t95(std::ssize(values) - 1) * std::sqrt(squares / (n - 1) / n);
  return {std::ssize(values), mean, std::max(0.0, mean - half), mean + half};
}

Estimate share_over_documents(const std::vector<Hits>& documents) {
  Hits all;
  for (const Hits& one : documents) all = {all.hits + one.hits, all.n + one.n};
  if (all.n == 0) return {};
  const auto n_all = static_cast<double>(all.n);
  const auto n_documents = static_cast<double>(documents.size());
  const double mean = static_cast<double>(all.hits) / n_all;
  double squares = 0;
  for (const Hits& one : documents) {
    const double rest = static_cast<double>(one.hits) - mean * static_cast<double>(one.n);
    squares += rest * rest;
  }
  double n_effective = n_documents;
  if (squares > 0 && documents.size() > 1) {
    const double variance = squares / (n_all * n_all) * n_documents / (n_documents - 1);
    n_effective = std::clamp(mean * (1 - mean) / variance, n_documents, n_all);
  }
  const Interval interval = wilson_interval(mean, static_cast<std::int64_t>(n_effective));
  return {std::ssize(documents), mean, interval.low, interval.high};
}

AuditSummary summarise(const std::vector<AuditRow>& rows) {
  AuditSummary all;
  std::vector<double> kl;
  std::vector<Hits> top, tokens, text;
  for (const AuditRow& row : rows) {
    ++all.n_documents;
    all.n_queries += row.n_queries;
    all.n_positions += row.n_positions;
    all.kl_max = std::max(all.kl_max, row.kl_max);
    all.exact_seconds += row.exact_seconds;
    all.star_seconds += row.star_seconds;
    all.is_speed_comparable =
        all.is_speed_comparable && are_comparable(row.exact_basis, row.star_basis);
    all.shares_device = all.shares_device || row.star_basis.shares_device;
    all.n_ranks = std::max(all.n_ranks, row.star_basis.n_ranks);
    kl.push_back(row.kl_mean());
    top.push_back({row.n_same_top, row.n_positions});
    tokens.push_back({row.n_same_tokens, row.n_queries});
    text.push_back({row.n_same_text, row.n_queries});
  }
  all.kl = mean_over_documents(kl);
  all.same_top = share_over_documents(top);
  all.same_tokens = share_over_documents(tokens);
  all.same_text = share_over_documents(text);
  return all;
}

std::string audit_table_head() {
  return fmt::format("{:<24} {:>10} {:>7} {:>9} {:>9} {:>7} {:>6}\n", "document", "tokens",
                     "answers", "mean KL", "max KL", "top-1 %", "same %");
}

std::string to_table_line(const AuditRow& row) {
  return fmt::format("{:<24} {:>10} {:>7} {:>9.2g} {:>9.2g} {:>7.1f} {:>6.1f}\n", short_id(row.id),
                     with_commas(row.n_context), row.n_queries, row.kl_mean(), row.kl_max,
                     percent(row.n_same_top, row.n_positions),
                     percent(row.n_same_tokens, row.n_queries));
}

std::string to_table(const AuditSummary& summary) {
  std::string text = fmt::format(
      "\n{:<34} {:>10}  95 % interval\n",
      fmt::format("{} document(s), {} answer(s)", summary.n_documents, summary.n_queries), "mean");
  text += estimate_line("KL(exact || star), nats a token", summary.kl, 1, "{:.3g}");
  text += estimate_line("same likeliest token, %", summary.same_top, 100, "{:.1f}");
  text += estimate_line("same answer, token by token, %", summary.same_tokens, 100, "{:.1f}");
  text += estimate_line("same answer as text, %", summary.same_text, 100, "{:.1f}");
  text += fmt::format("largest KL of {} positions: {:.3g} nats\n", with_commas(summary.n_positions),
                      summary.kl_max);
  text += fmt::format("phase 1: exact {}, star {}", human_seconds(summary.exact_seconds),
                      human_seconds(summary.star_seconds));
  if (summary.is_speed_comparable) {
    return text + fmt::format(": {:.2f} times as fast, on {} rank(s) both times\n",
                              summary.speed_ratio(), summary.n_ranks);
  }
  return text + (summary.shares_device
                     ? "; not compared: ranks shared a GPU or cores\n"
                     : "; not compared: exact and star ran on different numbers of ranks\n");
}

}  // namespace starattn
