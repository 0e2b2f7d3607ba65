// SPDX-License-Identifier: Apache-2.0
// Line charts as SVG. Lines differ in colour, dashes and markers, so that they can be told apart in
// print and by eyes that see few hues; the legend shows all three.
#pragma once

#include <span>
#include <string>
#include <utility>
#include <vector>

namespace starattn {

struct ChartPoint {
  double x = 0;
  double y = 0;
  double low = 0;  // of an interval; both equal to y where there is none
  double high = 0;
};

struct ChartSeries {
  std::string name = {};  // any text, which is escaped; "": not in the legend
  std::vector<ChartPoint> points = {};
  bool is_ideal = false;    // a thin grey line without markers
  bool is_scatter = false;  // markers without a line
};

struct Chart {
  std::string title = {};
  std::string x_label = {};
  std::string y_label = {};
  std::vector<std::pair<double, std::string>> x_ticks = {};  // none: round numbers
  bool is_y_log = false;      // x always is; what is not positive is then left out
  bool has_zero = true;       // of a linear y: the axis begins there
  bool stands_apart = false;  // series a little beside each other, where many have equal values
  std::vector<ChartSeries> series = {};
};

// An <svg> element of class "chart"; the page has chart_style().
std::string to_svg(const Chart& chart);
// A file of its own, light or dark as its reader is: two charts in a row.
std::string to_svg_file(std::span<const Chart> charts);

const char* chart_style();

}  // namespace starattn
