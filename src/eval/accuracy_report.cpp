// SPDX-License-Identifier: Apache-2.0
// The terminal's and the program's side; html_report.cpp has the browser's.
#include "eval/accuracy_report.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <set>

#include "base/json.h"
#include "base/text.h"

namespace starattn {
namespace {

// setting, samples, score, interval, difference, tokens a second, speedup: 80 columns where no
// setting is longer than 19.
constexpr const char* kRow = "{:<{}}{:>4}{:>6} {:<14} {:<20}{:>8}{:>6}\n";

int width_of_settings(const std::vector<Cell>& cells) {
  std::size_t width = 20;
  for (const Cell& cell : cells) width = std::max(width, cell.setting.size() + 1);
  return static_cast<int>(width);
}

std::string interval_text(const Estimate& share) {
  return fmt::format("{:.1f} .. {:.1f}", 100 * share.low, 100 * share.high);
}

std::string difference_text(const Cell& cell) {
  if (cell.is_exact) return "exact";
  if (cell.difference.n == 0) return "-";
  return fmt::format("{:+.1f} ({:+.0f} .. {:+.0f})", 100 * cell.difference.mean,
                     100 * cell.difference.low, 100 * cell.difference.high);
}

Json number(double value) {
  return std::isfinite(value) ? Json(value) : Json(nullptr);
}

Json to_json(const Estimate& estimate) {
  if (estimate.n == 0) return nullptr;
  return {{"n", estimate.n},
          {"mean", number(estimate.mean)},
          {"low", number(estimate.low)},
          {"high", number(estimate.high)}};
}

}  // namespace

std::string speed_notes(const std::vector<Cell>& cells) {
  std::string notes;
  std::set<std::string> said;
  for (const Cell& cell : cells) {
    if (cell.speedup.n == 0) continue;
    const std::string ranks =
        cell.n_ranks > 0 ? fmt::format("{} rank(s) each", cell.n_ranks) : "as many ranks each";
    const std::string note = fmt::format("x: as fast as {}, on {}", cell.faster_than, ranks);
    if (said.insert(note).second) notes += note + "\n";
  }
  if (!std::ranges::all_of(cells, &Cell::has_speeds))
    notes += "no speeds where ranks shared a GPU or cores\n";
  return notes;
}

std::string to_terminal(const std::vector<Cell>& cells) {
  const int width = width_of_settings(cells);
  std::string table =
      fmt::format(kRow, "", width, "n", "score", "95 % interval", "against exact", "tokens/s", "x");
  const Cell* above = nullptr;
  for (const Cell& cell : cells) {
    if (!above || above->task != cell.task || above->length != cell.length)
      table += fmt::format("{}, {} tokens\n", cell.task, with_commas(cell.length));
    above = &cell;
    const std::string speedup = cell.speedup.n == 0 ? "" : fmt::format("{:.2f}", cell.speedup.mean);
    table += fmt::format(
        kRow, " " + cell.setting, width, cell.score.n, fmt::format("{:.1f}", 100 * cell.score.mean),
        interval_text(cell.score), difference_text(cell),
        cell.has_speeds ? fmt::format("{:.0f}", cell.tokens_per_second) : "", speedup);
    if (cell.n_right >= 0)
      table +=
          fmt::format("{:>{}.1f} of the chain before the first miss\n", cell.n_right, width + 10);
  }
  return table + speed_notes(cells);
}

std::string to_json_lines(const std::vector<Cell>& cells) {
  std::string lines;
  for (const Cell& cell : cells) {
    Json json;
    json["task"] = cell.task;
    json["length"] = cell.length;
    json["setting"] = cell.setting;
    json["is_exact"] = cell.is_exact;
    json["score"] = to_json(cell.score);
    json["difference"] = to_json(cell.difference);
    json["speedup"] = to_json(cell.speedup);
    json["faster_than"] = cell.faster_than.empty() ? Json(nullptr) : Json(cell.faster_than);
    json["ranks"] = cell.n_ranks > 0 ? Json(cell.n_ranks) : Json(nullptr);
    json["tokens_per_second"] = cell.has_speeds ? number(cell.tokens_per_second) : Json(nullptr);
    json["ms_per_token"] = cell.has_speeds ? number(cell.ms_per_token) : Json(nullptr);
    json["n_right"] = cell.n_right >= 0 ? number(cell.n_right) : Json(nullptr);
    lines += to_line(json) + "\n";
  }
  return lines;
}

}  // namespace starattn
