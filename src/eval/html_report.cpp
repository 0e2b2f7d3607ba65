// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>

#include <algorithm>
#include <map>

#include "base/text.h"
#include "eval/accuracy_report.h"
#include "report/chart.h"

namespace starattn {
namespace {

template <typename F>
std::vector<std::string> names_of(const std::vector<Cell>& cells, F name) {
  std::vector<std::string> names;
  for (const Cell& cell : cells) {
    if (std::ranges::find(names, name(cell)) == names.end()) names.push_back(name(cell));
  }
  return names;
}

// Score over length of one task, a line a setting, with its intervals.
Chart chart_of(const std::vector<Cell>& cells, const std::string& task,
               const std::vector<std::string>& settings) {
  Chart chart{.title = task, .x_label = "tokens", .y_label = "score, %", .stands_apart = true};
  std::map<std::int64_t, std::string> lengths;
  for (const std::string& setting : settings) {
    ChartSeries series{.name = setting};
    for (const Cell& cell : cells) {
      if (cell.task != task || cell.setting != setting) continue;
      lengths[cell.length] = with_commas(cell.length);
      series.points.push_back({static_cast<double>(cell.length), 100 * cell.score.mean,
                               100 * cell.score.low, 100 * cell.score.high});
    }
    chart.series.push_back(std::move(series));
  }
  for (const auto& [length, text] : lengths)
    chart.x_ticks.emplace_back(static_cast<double>(length), text);
  return chart;
}

// How many times as fast as exact attention, and what of the score is left: the mean over tasks, a
// mark for each setting and length.
Chart speed_against_accuracy(const std::vector<Cell>& cells,
                             const std::vector<std::string>& settings) {
  Chart chart{.title = "Speed against accuracy",
              .x_label = "phase 1, times as fast as exact",
              .y_label = "score, %",
              .has_zero = false};
  for (const std::string& setting : settings) {
    struct Sum {
      double score = 0, speedup = 0;
      int n = 0;
    };
    std::map<std::int64_t, Sum> by_length;
    for (const Cell& cell : cells) {
      if (cell.setting != setting || (cell.speedup.n == 0 && !cell.is_exact)) continue;
      Sum& sum = by_length[cell.length];
      sum.score += cell.score.mean;
      sum.speedup += cell.is_exact ? 1 : cell.speedup.mean;
      ++sum.n;
    }
    for (const auto& [length, sum] : by_length) {
      const double score = 100 * sum.score / sum.n;
      chart.series.push_back({.name = fmt::format("{}, {} tokens", setting, with_commas(length)),
                              .points = {{sum.speedup / sum.n, score, score, score}},
                              .is_scatter = true});
    }
  }
  return chart;
}

// Green where much is right, red where half or less is: the colours mix with the page's own.
std::string score_text(double score) {
  return fmt::format(
      "<span style='display:block;background:color-mix(in srgb, hsl({:.0f} 70% 50%) 30%, "
      "transparent)'>{:.1f}</span>",
      120 * std::clamp(2 * score - 1, 0.0, 1.0), 100 * score);
}

// The score first: a narrow screen shows no more.
std::vector<std::string> row(const Cell& cell, bool with_speeds) {
  std::string difference = cell.is_exact ? "exact" : "&ndash;";
  if (cell.difference.n > 0)
    difference = fmt::format("{:+.1f} ({:+.1f} .. {:+.1f})", 100 * cell.difference.mean,
                             100 * cell.difference.low, 100 * cell.difference.high);
  std::vector<std::string> texts = {
      escaped(cell.setting),
      score_text(cell.score.mean),
      fmt::format("{:.1f} .. {:.1f}", 100 * cell.score.low, 100 * cell.score.high),
      difference,
      fmt::format("{}", cell.score.n),
      cell.n_right < 0 ? "" : fmt::format("{:.1f}", cell.n_right)};
  if (!with_speeds) return texts;
  const bool has_speedup = cell.has_speeds && cell.speedup.n > 0;
  texts.push_back(cell.has_speeds ? fmt::format("{:.0f}", cell.tokens_per_second) : "");
  texts.push_back(has_speedup ? fmt::format("{:.2f}", cell.speedup.mean) : "");
  texts.push_back(cell.has_speeds ? fmt::format("{:.2f}", cell.ms_per_token) : "");
  return texts;
}

}  // namespace

std::vector<PageSection> accuracy_sections(const std::vector<Cell>& cells) {
  const auto tasks = names_of(cells, [](const Cell& cell) { return cell.task; });
  const auto settings = names_of(cells, [](const Cell& cell) { return cell.setting; });
  const bool with_speeds = std::ranges::any_of(cells, &Cell::has_speeds);
  std::string pictures;
  for (const std::string& task : tasks) pictures += to_svg(chart_of(cells, task, settings));
  const Chart speeds = speed_against_accuracy(cells, settings);
  if (with_speeds &&
      std::ranges::any_of(cells, [](const Cell& cell) { return cell.speedup.n > 0; }))
    pictures += to_svg(speeds);

  std::vector<std::string> head = {"setting", "score %", "95 % interval", "points against exact",
                                   "n",       "chain"};
  if (with_speeds) head.insert(head.end(), {"tokens/s", "x exact", "ms/token"});
  HtmlTable table(head);
  const Cell* above = nullptr;
  for (const Cell& cell : cells) {
    if (!above || above->task != cell.task || above->length != cell.length)
      table.heading(fmt::format("{}, {} tokens", cell.task, with_commas(cell.length)));
    above = &cell;
    table.row(row(cell, with_speeds));
  }
  const std::string notes = fmt::format(
      "<p class='note'>Points against exact: the same samples in both settings, 95 % interval of "
      "the paired difference. Chain: variables of a chain (vt) that are right before the first "
      "miss.{} {}</p>\n",
      with_speeds
          ? " tokens/s: context tokens over the seconds of phase 1; x exact: how many times "
            "as fast as exact attention on as many ranks, the same samples. ms/token: phase "
            "2, the question included."
          : "",
      escaped(speed_notes(cells)));
  return {
      {"Score over length, with 95 % intervals", "<div class='pictures'>" + pictures + "</div>\n"},
      {"Every cell", table.html() + notes}};
}

std::string to_html(const std::vector<Cell>& cells, ReportHead head) {
  head.about = "Accuracy of " + head.about;
  return to_page(head, accuracy_sections(cells));
}

}  // namespace starattn
