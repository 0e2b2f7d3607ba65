// SPDX-License-Identifier: Apache-2.0
#include "report/chart.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "report/page.h"

namespace starattn {
namespace {

constexpr double kWidth = 360, kPlotBottom = 216, kLeft = 48, kRight = 14, kTop = 26;
constexpr double kLegendTop = kPlotBottom + 44, kLegendRow = 16;

constexpr std::size_t kColours = 7;  // of chart_style()
constexpr const char* kDashes[] = {"", "7 3", "2 3", "9 3 2 3"};
// Outlines around (0, 0).
constexpr const char* kMarkers[] = {"M-3 0a3 3 0 1 0 6 0a3 3 0 1 0 -6 0z", "M-3 -3h6v6h-6z",
                                    "M0 -4l4 7h-8z", "M0 -4l4 4l-4 4l-4 -4z",
                                    "M-1 -4h2v3h3v2h-3v3h-2v-3h-3v-2h3z"};

struct Axis {
  double first = 0, last = 1;  // values
  double from = 0, to = 1;     // of the picture
  bool is_log = false;

  double at(double value) const {
    const auto scale = [&](double x) { return is_log ? std::log2(x) : x; };
    const double whole = scale(last) - scale(first);
    const double share = whole > 0 ? (scale(value) - scale(first)) / whole : 0.5;
    return from + share * (to - from);
  }
};

// 1, 2, 5, 10, 20 ... that lie between, of a linear axis multiples of such a step.
std::vector<double> round_numbers(const Axis& axis) {
  std::vector<double> all;
  if (axis.is_log) {
    const auto power = [](double value) { return static_cast<int>(std::floor(std::log10(value))); };
    const int first = power(axis.first);
    const int last = power(axis.last);
    const int step = 1 + (last - first) / 8;  // of many powers of ten only some
    for (int at = first; at <= last; at += step)
      for (const double one : {1.0, 2.0, 5.0}) {
        const double value = one * std::pow(10, at);
        if (value >= axis.first && value <= axis.last && (one == 1 || step == 1))
          all.push_back(value);
      }
    if (all.size() >= 2) return all;
    return {axis.first, axis.last};
  }
  const double ten = std::pow(10, std::floor(std::log10(axis.last - axis.first)));
  double step = ten;
  for (const double one : {0.2, 0.5, 1.0})
    if ((axis.last - axis.first) / (one * ten) <= 6) {
      step = one * ten;
      break;
    }
  const double begin = std::ceil(axis.first / step) * step;
  for (int i = 0; i <= 10 && begin + i * step <= axis.last * (1 + 1e-9); ++i)
    all.push_back(begin + i * step);
  return all;
}

// Of what is measured nothing lies beyond; what a file makes up must not break the axes.
constexpr double kLeast = 1e-30, kMost = 1e30;

bool is_shown(const Chart& chart, const ChartPoint& point) {
  return point.x > 0 && std::abs(point.low) < kMost && std::abs(point.high) < kMost &&
         (!chart.is_y_log || (point.y > kLeast && point.low > kLeast));
}

std::pair<Axis, Axis> axes_of(const Chart& chart) {
  Axis x{1e300, 0, kLeft + 12, kWidth - kRight - 12, true};
  Axis y{1e300, -1e300, kPlotBottom, kTop, chart.is_y_log};
  for (const auto& [at, label] : chart.x_ticks) {
    x.first = std::min(x.first, at);
    x.last = std::max(x.last, at);
  }
  for (const ChartSeries& series : chart.series) {
    for (const ChartPoint& point : series.points) {
      if (!is_shown(chart, point)) continue;
      x.first = std::min(x.first, point.x);
      x.last = std::max(x.last, point.x);
      y.first = std::min(y.first, point.low);
      y.last = std::max(y.last, point.high);
    }
  }
  if (!chart.is_y_log && chart.has_zero) y.first = std::min(0.0, y.first);
  if (chart.is_y_log) {
    y.first /= 1.15;
    y.last *= 1.15;
  } else if (y.last <= y.first) {
    y.last = y.first + 1;
  }
  return {x, y};
}

std::string grid(const Chart& chart, const Axis& x, const Axis& y) {
  std::string text;
  for (const double value : round_numbers(y))
    text += fmt::format(
        "<path class='grid' d='M{} {:.1f}H{}'/><text x='{}' y='{:.1f}' text-anchor='end'>{:.4g}"
        "</text>",
        kLeft, y.at(value), kWidth - kRight, kLeft - 5, y.at(value) + 4, value);
  auto ticks = chart.x_ticks;
  if (ticks.empty()) {
    for (const double value : round_numbers(x))
      ticks.emplace_back(value, fmt::format("{:.3g}", value));
  }
  for (const auto& [value, label] : ticks)
    text += fmt::format(
        "<path class='grid' d='M{0:.1f} {1}V{2}'/><text x='{0:.1f}' y='{3}' "
        "text-anchor='middle'>{4}</text>",
        x.at(value), kTop, kPlotBottom, kPlotBottom + 14, escaped(label));
  return text + fmt::format(
                    "<text x='{}' y='14' class='title'>{}</text>"
                    "<text x='{}' y='{}' text-anchor='middle'>{} &#8594;</text>"
                    "<text x='{}' y='14' text-anchor='end'>{} &#8593;</text>",
                    kLeft, escaped(chart.title), (kLeft + kWidth) / 2, kPlotBottom + 28,
                    escaped(chart.x_label), kWidth - kRight, escaped(chart.y_label));
}

// Number i of those with a look of their own.
struct Look {
  std::size_t i = 0;
  std::string colour() const { return fmt::format("c{}", i % kColours); }
  const char* dashes() const { return kDashes[i % std::size(kDashes)]; }
  std::string marker(double x, double y) const {
    return fmt::format("<path class='mark {}' transform='translate({:.1f} {:.1f})' d='{}'/>",
                       colour(), x, y, kMarkers[i % std::size(kMarkers)]);
  }
};

std::string line(const ChartSeries& series, const Look& look, const std::string& way) {
  if (series.is_scatter || way.empty()) return "";
  if (series.is_ideal) return fmt::format("<path class='ideal' d='M{}'/>", way);
  return fmt::format("<path class='line {}' stroke-dasharray='{}' d='M{}'/>", look.colour(),
                     look.dashes(), way);
}

double height_of(const Chart& chart) {
  const auto n_unnamed = std::ranges::count(chart.series, "", &ChartSeries::name);
  return kLegendTop + kLegendRow * static_cast<double>(std::ssize(chart.series) - n_unnamed);
}

}  // namespace

std::string to_svg(const Chart& chart) {
  const auto [x, y] = axes_of(chart);
  std::string lines;
  std::string legend;
  std::size_t n_looks = 0;
  double row = kLegendTop;
  for (const ChartSeries& series : chart.series) {
    const Look look{n_looks};
    if (!series.is_ideal) ++n_looks;
    const double apart = chart.stands_apart ? 4 : 0;
    const double shift =
        apart * (static_cast<double>(look.i) - static_cast<double>(chart.series.size() - 1) / 2);
    std::string way;
    std::string marks;
    for (const ChartPoint& point : series.points) {
      if (!is_shown(chart, point)) continue;
      way += fmt::format("{}{:.1f} {:.1f}", way.empty() ? "" : "L", x.at(point.x) + shift,
                         y.at(point.y));
      if (series.is_ideal) continue;
      if (point.high > point.low)
        marks += fmt::format("<path class='bar {}' d='M{:.1f} {:.1f}V{:.1f}'/>", look.colour(),
                             x.at(point.x) + shift, y.at(point.low), y.at(point.high));
      marks += look.marker(x.at(point.x) + shift, y.at(point.y));
    }
    lines += line(series, look, way) + marks;
    if (series.name.empty()) continue;
    legend += line(series, look, fmt::format("{} {}H{}", kLeft, row, kLeft + 44));
    if (!series.is_ideal) legend += look.marker(kLeft + 22, row);
    legend +=
        fmt::format("<text x='{}' y='{}'>{}</text>", kLeft + 52, row + 4, escaped(series.name));
    row += kLegendRow;
  }
  return fmt::format(
      "<svg class='chart' width='{0}' height='{1:.0f}' "
      "viewBox='0 "
      "0 {0} {1:.0f}' role='img' aria-label='{2}'>{3}{4}{5}</svg>\n",
      kWidth, height_of(chart), escaped(chart.title), grid(chart, x, y), lines, legend);
}

std::string to_svg_file(std::span<const Chart> charts) {
  constexpr std::size_t kColumns = 2;
  std::string all;
  double top = 0;
  for (std::size_t first = 0; first < charts.size(); first += kColumns) {
    double height = 0;
    for (std::size_t i = first; i < std::min(first + kColumns, charts.size()); ++i) {
      all += fmt::format("<g transform='translate({} {})'>{}</g>",
                         kWidth * static_cast<double>(i - first), top, to_svg(charts[i]));
      height = std::max(height, height_of(charts[i]));
    }
    top += height + 20;
  }
  const double width = kWidth * static_cast<double>(std::min(kColumns, charts.size()));
  return fmt::format(
      "<svg xmlns='http://www.w3.org/2000/svg' width='{0}' height='{1}' viewBox='0 0 {0} {1}'>"
      "<style>{2}svg {{ background: var(--paper) }}</style>{3}</svg>\n",
      width, top, chart_style(), all);
}

// Colours of Okabe and Ito, which differ for eyes that see few hues; lighter on a dark page.
const char* chart_style() {
  return R"(
:root { --paper: #fff; --ink: #222; --faint: #e3e3e3; --grey: #777; color-scheme: light dark }
.c0 { --line: #0072b2 } .c1 { --line: #d55e00 } .c2 { --line: #009e73 } .c3 { --line: #aa4a82 }
.c4 { --line: #b87a00 } .c5 { --line: #3a8fc4 } .c6 { --line: #333 }
@media (prefers-color-scheme: dark) {
  :root { --paper: #16181b; --ink: #e4e4e4; --faint: #33373c; --grey: #999 }
  .c0 { --line: #4aa8e0 } .c1 { --line: #ff8a3d } .c2 { --line: #2fcf9f } .c3 { --line: #e59ac6 }
  .c4 { --line: #f0b73a } .c5 { --line: #8fd0f5 } .c6 { --line: #ddd }
}
.chart text { font: 11px system-ui, sans-serif; fill: var(--ink) }
.chart .title { font-weight: 600 }
.chart .grid { stroke: var(--faint); fill: none }
.chart .ideal { stroke: var(--grey); stroke-width: 1; fill: none }
.chart .line { stroke: var(--line); stroke-width: 1.7; fill: none }
.chart .bar { stroke: var(--line); stroke-width: 1; stroke-opacity: .6; fill: none }
.chart .mark { fill: var(--line) }
)";
}

}  // namespace starattn
