// SPDX-License-Identifier: Apache-2.0
// A page that needs nothing else: no network, no script; light or dark as its reader is, and
// readable on a narrow screen, where tables scroll within themselves.
#pragma once

#include <string>
#include <vector>

namespace starattn {

std::string escaped(const std::string& text);  // for HTML and SVG

struct PageSection {
  std::string title;  // any text
  std::string body;   // HTML
};

// What stands above the sections.
struct ReportHead {
  std::string about;    // "Accuracy of MODEL"
  std::string command;  // that makes it again
  std::string version;
};

std::string to_page(const ReportHead& head, const std::vector<PageSection>& sections);

// A table that scrolls within itself; its first column stays in sight.
class HtmlTable {
 public:
  explicit HtmlTable(const std::vector<std::string>& head);  // any text
  void heading(const std::string& text);                     // a row of one cell; any text
  void row(const std::vector<std::string>& cells);           // HTML
  std::string html() const;

 private:
  std::size_t n_columns_;
  std::string rows_;
};

}  // namespace starattn
