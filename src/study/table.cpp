// SPDX-License-Identifier: Apache-2.0
#include "study/table.h"

#include <fmt/format.h>

#include <algorithm>

#include "study/median.h"

namespace starattn {
namespace {

constexpr const char* kColumns =
    "{:>8}{:>10}  {:<{}}  {:<7}{:<10}{:>8}{:>12}{:>12}{:>12}{:>12}{:>9}{:>10}{:>10}{:>7}\n";

std::string head_line(const char* what, const std::string& text) {
  return fmt::format("# {:<10}{}\n", what, text);
}

// "ranks 0-3: host, processor, cores 0-7, 8 thread(s), 2100 MHz", equal ranks in one line.
std::string rank_lines(const Json& ranks) {
  std::string lines;
  for (std::size_t first = 0; first < ranks.size();) {
    std::size_t end = first + 1;
    while (end < ranks.size() && ranks[end] == ranks[first]) ++end;
    const auto text = [&](const char* key) { return ranks[first][key].get<std::string>(); };
    const std::string who = end == first + 1 ? fmt::format("rank {}", first)
                                             : fmt::format("ranks {}-{}", first, end - 1);
    lines += head_line(who.c_str(), fmt::format("{}, {}, bound to core(s) {} now at {} MHz, {}",
                                                text("host"), text("processor"), text("cores"),
                                                text("clock_mhz"), text("device")));
    first = end;
  }
  return lines;
}

std::string seconds_text(double seconds) {
  return fmt::format("{:.6g}", seconds);
}

}  // namespace

StudyTable::StudyTable(const std::vector<std::string>& settings) : width_(7) {
  for (const std::string& setting : settings) width_ = std::max(width_, setting.size());
}

std::string StudyTable::head(const Json& head, const std::string& compared_with) const {
  const auto text = [&](const char* key) { return head[key].get<std::string>(); };
  std::string all =
      fmt::format("# starattn {} bench, table 2 ({})\n", text("version"), text("schema"));
  for (const char* key : {"date", "command", "mpi", "model", "weights", "phase_2"})
    all += head_line(key, text(key));
  all += rank_lines(head["ranks"]);
  all += fmt::format(
      "# seconds: median of {} repeats after {} of warm-up, and its 95 % interval; product: of the "
      "rate of the\n# machine's own matrix products; wrong: repeats whose bits differ from {}\n#\n",
      head["repeats"].get<int>(), head["warm_ups"].get<int>(), compared_with);
  all += "#" + fmt::format(kColumns, "ranks", "tokens", "setting", width_, "anchor", "operation",
                           "queries", "median", "low", "high", "rate", "product", "moved", "waited",
                           "wrong")
                   .substr(1);
  all += "#" + fmt::format(kColumns, "", "", "", width_, "", "", "", "(s)", "(s)", "(s)", "(tok/s)",
                           "(%)", "(MB)", "(s)", "")
                   .substr(1);
  return all;
}

std::string StudyTable::row(std::span<const Measurement> repeats) const {
  const Measurement& first = repeats.front();
  std::vector<double> seconds, waits, moved;
  std::int64_t n_wrong = 0;
  for (const Measurement& one : repeats) {
    seconds.push_back(one.seconds);
    waits.push_back(one.most_wait);
    moved.push_back(static_cast<double>(one.moved_bytes));
    n_wrong += one.is_right == false;
  }
  const Median median = median_of(seconds);
  const bool is_step = first.n_queries > 0;
  const double tokens = static_cast<double>(is_step ? first.n_queries : first.n_context);
  const bool has_anchor = first.reach == 0 && first.block_size < first.n_context;
  const char* anchor = !has_anchor ? "-" : first.anchor == "recompute" ? "again" : "once";
  return fmt::format(
      kColumns, first.n_ranks, first.n_context, first.setting, width_, anchor, first.operation,
      is_step ? fmt::format("{}", first.n_queries) : "-", seconds_text(median.value),
      median.interval ? seconds_text(median.interval->first) : "-",
      median.interval ? seconds_text(median.interval->second) : "-",
      fmt::format("{:.5g}", tokens / median.value),
      is_step ? "-" : fmt::format("{:.1f}", 100 * first.flop / median.value / first.product_rate),
      fmt::format("{:.5g}", median_of(moved).value * 1e-6), seconds_text(median_of(waits).value),
      first.is_right ? fmt::format("{}", n_wrong) : "-");
}

}  // namespace starattn
