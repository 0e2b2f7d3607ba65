// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <set>

#include "base/text.h"
#include "eval/accuracy_report.h"

namespace starattn {
namespace {

// Colours that differ in lightness too, for print and for eyes that see few hues.
constexpr const char* kColours[] = {"#1b3a57", "#d1495b", "#2e933c", "#edae49",
                                    "#7b5ea7", "#00798c", "#8d5524", "#6c757d",
                                    "#e07ab5", "#5b8def", "#9aae07", "#222222"};

constexpr const char* kStyle = R"(
body { font: 15px/1.45 system-ui, sans-serif; margin: 2rem auto; max-width: 68rem; color: #222; padding: 0 1rem }
h1 { font-size: 1.5rem; margin-bottom: .2rem } h2 { font-size: 1.1rem; margin: 2rem 0 .4rem }
.note, figcaption { color: #555; font-size: .88rem } code { background: #f3f3f3; padding: .1em .3em; overflow-wrap: anywhere }
.pictures { display: flex; flex-wrap: wrap; gap: 1rem } figure { margin: 0 }
table { border-collapse: collapse; font-size: .88rem; font-variant-numeric: tabular-nums; width: 100% }
th, td { padding: .22rem .45rem; text-align: right; border-bottom: 1px solid #e6e6e6; white-space: nowrap }
th { border-bottom: 2px solid #999; font-weight: 600 } th:nth-child(-n+3), td:nth-child(-n+3) { text-align: left }
.legend span { display: inline-block; margin-right: 1.2rem } .legend i { display: inline-block; width: 1.6em; height: .25em; vertical-align: middle; margin-right: .4em }
)";

std::string escaped(const std::string& text) {
  std::string safe;
  for (const char c : text) {
    switch (c) {
      case '&':
        safe += "&amp;";
        break;
      case '<':
        safe += "&lt;";
        break;
      case '>':
        safe += "&gt;";
        break;
      case '"':
        safe += "&quot;";
        break;
      default:
        safe += c;
    }
  }
  return safe;
}

template <typename F>
std::vector<std::string> names_of(const std::vector<Cell>& cells, F name) {
  std::vector<std::string> names;
  for (const Cell& cell : cells) {
    if (std::ranges::find(names, name(cell)) == names.end()) names.push_back(name(cell));
  }
  return names;
}

// Red through white to green over the upper half of the scale, where scores are told apart.
std::string background(double score) {
  const double at = std::clamp(2 * score - 1, 0.0, 1.0);
  return fmt::format("hsl({:.0f} 70% {:.0f}%)", 120 * at, 88 + 4 * std::abs(2 * at - 1));
}

// Score over length (logarithmic) of one task, a line a setting, with its intervals.
class Picture {
 public:
  Picture(const std::vector<Cell>& cells, std::string task) : task_(std::move(task)) {
    std::set<std::int64_t> lengths;
    for (const Cell& cell : cells) {
      if (cell.task == task_) lengths.insert(cell.length);
    }
    lengths_.assign(lengths.begin(), lengths.end());
  }

  std::string svg(const std::vector<Cell>& cells, const std::vector<std::string>& settings) const {
    std::string lines;
    for (std::size_t s = 0; s < settings.size(); ++s) {
      const char* colour = kColours[s % std::size(kColours)];
      std::string points;
      for (const Cell& cell : cells) {
        if (cell.task != task_ || cell.setting != settings[s]) continue;
        // Settings stand a little apart, so that their intervals can be told from each other.
        const double at = x(cell.length) + 4 * (static_cast<double>(s) -
                                                static_cast<double>(settings.size() - 1) / 2);
        points += fmt::format("{:.1f},{:.1f} ", at, y(cell.score.mean));
        lines += fmt::format(
            "<line x1='{0:.1f}' x2='{0:.1f}' y1='{1:.1f}' y2='{2:.1f}' stroke='{3}' "
            "stroke-opacity='.45'/><circle cx='{0:.1f}' cy='{4:.1f}' r='2.6' fill='{3}'/>",
            at, y(cell.score.low), y(cell.score.high), colour, y(cell.score.mean));
      }
      lines += fmt::format("<polyline points='{}' fill='none' stroke='{}' stroke-width='1.6'/>",
                           points, colour);
    }
    return fmt::format(
        "<figure><figcaption>{2}</figcaption><svg width='{0}' height='{1}' viewBox='0 0 {0} {1}' "
        "role='img' "
        "aria-label='Score over length, {2}' font-size='11' fill='#444'>{3}{4}</svg>"
        "</figure>\n",
        kWidth, kHeight, escaped(task_), axes(), lines);
  }

 private:
  static constexpr double kWidth = 320, kHeight = 210, kLeft = 38, kRight = 18, kTop = 10,
                          kBottom = 26;

  double x(std::int64_t length) const {
    const double first = std::log2(static_cast<double>(lengths_.front()));
    const double last = std::log2(static_cast<double>(lengths_.back()));
    const double share =
        last > first ? (std::log2(static_cast<double>(length)) - first) / (last - first) : 0.5;
    return kLeft + 16 + share * (kWidth - kLeft - kRight - 32);
  }
  double y(double score) const { return kTop + (1 - score) * (kHeight - kTop - kBottom); }

  std::string axes() const {
    std::string text;
    for (const int percent : {0, 25, 50, 75, 100}) {
      const double at = y(percent / 100.0);
      text += fmt::format(
          "<line x1='{}' x2='{}' y1='{:.1f}' y2='{:.1f}' stroke='#ddd'/>"
          "<text x='{}' y='{:.1f}' text-anchor='end'>{}</text>",
          kLeft, kWidth - kRight, at, at, kLeft - 5, at + 4, percent);
    }
    for (const std::int64_t length : lengths_)
      text += fmt::format("<text x='{:.1f}' y='{}' text-anchor='middle'>{}</text>", x(length),
                          kHeight - 8, with_commas(length));
    return text;
  }

  std::string task_;
  std::vector<std::int64_t> lengths_;
};

std::string legend(const std::vector<std::string>& settings) {
  std::string text = "<p class='legend'>";
  for (std::size_t s = 0; s < settings.size(); ++s)
    text += fmt::format("<span><i style='background:{}'></i>{}</span>",
                        kColours[s % std::size(kColours)], escaped(settings[s]));
  return text + "</p>\n";
}

// Where ranks shared a device everywhere, no column speaks of speed.
std::string row(const Cell& cell, bool with_speeds) {
  std::string difference = cell.is_exact ? "exact" : "&ndash;";
  if (cell.difference.n > 0)
    difference = fmt::format("{:+.1f} ({:+.1f} .. {:+.1f})", 100 * cell.difference.mean,
                             100 * cell.difference.low, 100 * cell.difference.high);
  std::string speeds;
  if (with_speeds && !cell.has_speeds) speeds = "<td></td><td></td><td></td>";
  if (with_speeds && cell.has_speeds) {
    speeds = fmt::format("<td>{:.0f}</td><td>{}</td><td>{:.2f}</td>", cell.tokens_per_second,
                         cell.speedup.n == 0 ? "" : fmt::format("{:.2f}", cell.speedup.mean),
                         cell.ms_per_token);
  }
  return fmt::format(
      "<tr><td>{}</td><td>{}</td><td>{}</td><td>{}</td><td style='background:{}'>{:.1f}</td>"
      "<td>{:.1f} .. {:.1f}</td><td>{}</td><td>{}</td>{}</tr>\n",
      escaped(cell.task), with_commas(cell.length), escaped(cell.setting), cell.score.n,
      background(cell.score.mean), 100 * cell.score.mean, 100 * cell.score.low,
      100 * cell.score.high, difference,
      cell.n_right < 0 ? "" : fmt::format("{:.1f}", cell.n_right), speeds);
}

}  // namespace

std::string to_html(const std::vector<Cell>& cells, const ReportHead& head) {
  const auto tasks = names_of(cells, [](const Cell& cell) { return cell.task; });
  const auto settings = names_of(cells, [](const Cell& cell) { return cell.setting; });
  std::string pictures;
  for (const std::string& task : tasks) pictures += Picture(cells, task).svg(cells, settings);
  std::string rows;
  const bool with_speeds = std::ranges::any_of(cells, &Cell::has_speeds);
  for (const Cell& cell : cells) rows += row(cell, with_speeds);
  const char* speed_heads = with_speeds ? "<th>tokens/s</th><th>x exact</th><th>ms/token</th>" : "";
  const char* speed_note =
      with_speeds
          ? " tokens/s: context tokens over the seconds of phase 1; x exact: how many times "
            "as fast as exact attention on as many ranks, the same samples. ms/token: phase "
            "2, the question included."
          : "";
  return fmt::format(
      R"(<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>starattn: accuracy of {0}</title><style>{1}</style></head><body>
<h1>Accuracy of {0}</h1>
<p class="note">{2}. Made by <code>{3}</code></p>
<h2>Score over length (tokens), in per cent, with 95 % intervals</h2>
{4}<div class="pictures">{5}</div>
<h2>Every cell</h2>
<table><thead><tr><th>task</th><th>tokens</th><th>setting</th><th>n</th><th>score %</th>
<th>95 % interval</th><th>points against exact</th><th>chain</th>{7}</tr></thead>
<tbody>
{6}</tbody></table>
<p class="note">Points against exact: the same samples in both settings, 95 % interval of the paired difference.
Chain: variables of a chain (vt) that are right before the first miss.{8} {9}</p>
</body></html>
)",
      escaped(head.model), kStyle, escaped(head.version), escaped(head.command), legend(settings),
      pictures, rows, speed_heads, speed_note, escaped(speed_notes(cells)));
}

}  // namespace starattn
