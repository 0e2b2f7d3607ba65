// SPDX-License-Identifier: Apache-2.0
#include "study/study_report.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <set>

#include "base/text.h"
#include "study/median.h"

namespace starattn {
namespace {

// What a line of a chart has in common.
struct Line {
  std::string operation;
  std::string setting;
  bool is_again = false;
  std::int64_t n_queries = 0;
  auto operator<=>(const Line&) const = default;

  std::string name() const {
    std::string text = setting;
    if (is_again) text += ", anchor again";
    if (n_queries > 0) text += fmt::format(", {} quer{}", n_queries, n_queries == 1 ? "y" : "ies");
    return text;
  }
};

struct Place {
  std::int64_t n_context = 0;
  std::int64_t n_ranks = 0;
  auto operator<=>(const Place&) const = default;
};

using Repeats = std::vector<const Measurement*>;
using Lines = std::map<Line, std::map<Place, Repeats>>;

Lines lines_of(const std::vector<Study>& studies) {
  Lines lines;
  for (const Study& study : studies)
    for (const Measurement& one : study.measurements)
      lines[{one.operation, one.setting, one.anchor == "recompute", one.n_queries}]
           [{one.n_context, one.n_ranks}]
               .push_back(&one);
  return lines;
}

Median median_seconds(const Repeats& repeats) {
  std::vector<double> seconds;
  for (const Measurement* one : repeats) seconds.push_back(one->seconds);
  return median_of(std::move(seconds));
}

ChartPoint point_of(double x, const Repeats& repeats) {
  const Median median = median_seconds(repeats);
  const auto [low, high] = median.interval.value_or(std::pair{median.value, median.value});
  return {x, median.value, low, high};
}

std::string ranks_text(std::int64_t n) {
  return fmt::format("{} rank{}", n, n == 1 ? "" : "s");
}

std::string tokens_text(std::int64_t n) {
  return n % 1024 == 0 ? fmt::format("{}K", n / 1024) : with_commas(n);
}

// Only series that go on for two points make a picture of something that changes.
void keep_lines(Chart& chart) {
  std::erase_if(chart.series, [](const ChartSeries& one) { return one.points.size() < 2; });
}

Chart over_tokens(const Lines& lines, const std::string& operation, const char* title) {
  Chart chart{.title = title, .x_label = "tokens", .y_label = "seconds", .is_y_log = true};
  std::map<std::int64_t, std::string> ticks;
  for (const auto& [line, places] : lines) {
    if (line.operation != operation) continue;
    std::map<std::int64_t, ChartSeries> by_ranks;
    for (const auto& [place, repeats] : places) {
      ChartSeries& series = by_ranks[place.n_ranks];
      series.name = fmt::format("{}, {}", ranks_text(place.n_ranks), line.name());
      series.points.push_back(point_of(static_cast<double>(place.n_context), repeats));
      ticks[place.n_context] = tokens_text(place.n_context);
    }
    for (auto& [ranks, series] : by_ranks) chart.series.push_back(std::move(series));
  }
  for (const auto& [at, text] : ticks) chart.x_ticks.emplace_back(static_cast<double>(at), text);
  keep_lines(chart);
  return chart;
}

// Places of one group (a context, or tokens a rank) over ranks, and the ideal from the fewest on.
template <typename GroupOf, typename Ideal>
Chart over_ranks(const Lines& lines, const std::string& operation, Chart chart,
                 const char* group_name, GroupOf group_of, Ideal ideal) {
  std::set<std::int64_t> ticks;
  std::vector<ChartSeries> ideals;
  for (const auto& [line, places] : lines) {
    if (line.operation != operation) continue;
    std::map<std::int64_t, std::map<std::int64_t, ChartPoint>> groups;
    for (const auto& [place, repeats] : places) {
      if (const std::int64_t group = group_of(place); group > 0)
        groups[group][place.n_ranks] = point_of(static_cast<double>(place.n_ranks), repeats);
    }
    for (const auto& [group, points] : groups) {
      if (points.size() < 2) continue;
      ChartSeries series{.name =
                             fmt::format("{} {}, {}", tokens_text(group), group_name, line.name())};
      // One entry of the legend stands for all ideal lines.
      ChartSeries best{.name = ideals.empty() ? "ideal" : "", .is_ideal = true};
      for (const auto& [n_ranks, point] : points) {
        series.points.push_back(point);
        const double y = ideal(points.begin()->second, static_cast<double>(n_ranks));
        best.points.push_back({point.x, y, y, y});
        ticks.insert(n_ranks);
      }
      chart.series.push_back(std::move(series));
      ideals.push_back(std::move(best));
    }
  }
  chart.series.insert(chart.series.end(), ideals.begin(), ideals.end());
  for (const std::int64_t n : ticks)
    chart.x_ticks.emplace_back(static_cast<double>(n), fmt::format("{}", n));
  return chart;
}

void add_scaling(const Lines& lines, const std::string& operation, const std::string& what,
                 std::vector<Chart>& charts) {
  const auto add = [&](Chart chart) {
    if (!chart.series.empty()) charts.push_back(std::move(chart));
  };
  Chart chart{.title = "Strong scaling of " + what,
              .x_label = "ranks",
              .y_label = "seconds",
              .is_y_log = true};
  add(over_ranks(
      lines, operation, chart, "tokens", [](const Place& place) { return place.n_context; },
      [](const ChartPoint& first, double n_ranks) { return first.y * first.x / n_ranks; }));
  chart.title = "Weak scaling of " + what;
  add(over_ranks(
      lines, operation, chart, "tokens a rank",
      [](const Place& place) {
        return place.n_context % place.n_ranks == 0 ? place.n_context / place.n_ranks : 0;
      },
      [](const ChartPoint& first, double) { return first.y; }));
}

std::string table_of(const Lines& lines) {
  HtmlTable table({"setting", "seconds", "95 % interval", "tokens/s", "% of products", "tokens",
                   "ranks", "moved, MB", "waited, s", "wrong"});
  std::string operation;
  for (const auto& [line, places] : lines) {
    if (std::exchange(operation, line.operation) != line.operation)
      table.heading(line.operation == "step" ? "a step of phase 2" : "phase 1");
    for (const auto& [place, repeats] : places) {
      const Median median = median_seconds(repeats);
      const Measurement& one = *repeats.front();
      const auto tokens = static_cast<double>(line.n_queries > 0 ? line.n_queries : one.n_context);
      const bool has_share = line.n_queries == 0 && one.product_rate >= 1 && one.flop > 0;
      const bool is_compared = one.is_right.has_value();
      table.row(
          {escaped(line.name()), fmt::format("{:.4g}", median.value),
           median.interval
               ? fmt::format("{:.4g} .. {:.4g}", median.interval->first, median.interval->second)
               : "",
           fmt::format("{:.4g}", tokens / median.value),
           has_share ? fmt::format("{:.1f}", 100 * one.flop / median.value / one.product_rate) : "",
           with_commas(place.n_context), fmt::format("{}", place.n_ranks),
           fmt::format("{:.4g}", static_cast<double>(one.moved_bytes) * 1e-6),
           fmt::format("{:.3g}", one.most_wait),
           is_compared ? fmt::format("{}", std::ranges::count_if(repeats,
                                                                 [](const Measurement* m) {
                                                                   return m->is_right == false;
                                                                 }))
                       : ""});
    }
  }
  return table.html();
}

// Of the largest context of each line and number of ranks: each phase's seconds, its least and its
// most over ranks, in the repeat that took the median time.
std::string phases_of(const Lines& lines) {
  HtmlTable table({"phase", "mean, s", "least", "most", "slowest", "share of the whole"});
  for (const auto& [line, places] : lines) {
    std::map<std::int64_t, const Repeats*> largest;  // by ranks; places ascend by context
    for (const auto& [place, repeats] : places) largest[place.n_ranks] = &repeats;
    for (const auto& [n_ranks, all] : largest) {
      Repeats repeats = *all;
      const auto middle = repeats.begin() + std::ssize(repeats) / 2;
      std::ranges::nth_element(repeats, middle, {}, &Measurement::seconds);
      const Measurement& one = **middle;
      const double whole =
          one.seconds * static_cast<double>(std::max<std::int64_t>(1, one.n_new_tokens));
      table.heading(fmt::format("{}, {}, {} tokens, {}", one.operation, line.name(),
                                with_commas(one.n_context), ranks_text(n_ranks)));
      for (const auto& [name, of] : one.phases) {
        if (of.max <= 0.001 * whole) continue;
        table.row({escaped(name), fmt::format("{:.4g}", of.mean), fmt::format("{:.4g}", of.min),
                   fmt::format("{:.4g}", of.max), fmt::format("rank {}", of.slowest),
                   fmt::format("<span class='share' style='width:{:.0f}px'></span> {:.0f} %",
                               std::min(120.0, 120 * of.mean / whole), 100 * of.mean / whole)});
      }
    }
  }
  return table.html() +
         "<p class='note'>Phases lie within each other: phase 1 has layers, and "
         "layers have attention (docs/metrics.md).</p>\n";
}

std::string heads_of(const std::vector<Study>& studies) {
  std::string text;
  for (const Study& study : studies) {
    const auto say = [&](const char* key) { return escaped(study.head[key].get<std::string>()); };
    text += fmt::format("<p class='note'>{}, starattn {}, {}: {}<br><code>{}</code></p>\n",
                        say("date"), say("version"), say("device"), say("model"), say("command"));
  }
  return text;
}

}  // namespace

std::vector<Chart> charts_of(const std::vector<Study>& studies) {
  const Lines lines = lines_of(studies);
  std::vector<Chart> charts;
  const auto over = [&](const char* operation, const char* title) {
    Chart chart = over_tokens(lines, operation, title);
    if (!chart.series.empty()) charts.push_back(std::move(chart));
  };
  over("phase-1", "Phase 1");
  over("step", "A step of phase 2");
  add_scaling(lines, "phase-1", "phase 1", charts);
  add_scaling(lines, "step", "a step", charts);
  return charts;
}

std::vector<PageSection> study_sections(const std::vector<Study>& studies) {
  std::string pictures;
  for (const Chart& chart : charts_of(studies)) pictures += to_svg(chart);
  const Lines lines = lines_of(studies);
  return {{"Seconds, with 95 % intervals of the median",
           heads_of(studies) + "<div class='pictures'>" + pictures + "</div>\n"},
          {"Every point", table_of(lines)},
          {"Where the time goes", phases_of(lines)}};
}

}  // namespace starattn
