// SPDX-License-Identifier: Apache-2.0
#include "report/page.h"

#include <fmt/format.h>

#include "report/chart.h"

namespace starattn {
namespace {

constexpr const char* kStyle = R"(
body { font: 15px/1.45 system-ui, sans-serif; margin: 1.5rem auto; max-width: 72rem; padding: 0 1rem;
  color: var(--ink); background: var(--paper) }
h1 { font-size: 1.5rem; margin-bottom: .2rem } h2 { font-size: 1.1rem; margin: 2rem 0 .4rem }
.note { color: var(--grey); font-size: .88rem }
code { background: var(--faint); padding: .1em .3em; overflow-wrap: anywhere }
.pictures { display: flex; flex-wrap: wrap; gap: 1rem; align-items: flex-start } .chart { max-width: 100%; height: auto }
.scroll { overflow-x: auto; max-width: 100% }
table { border-collapse: separate; border-spacing: 0; font-size: .88rem; font-variant-numeric: tabular-nums }
th, td { padding: .22rem .6rem; text-align: right; border-bottom: 1px solid var(--faint); white-space: nowrap }
th { border-bottom: 2px solid var(--grey); font-weight: 600 }
th:first-child, td:first-child { text-align: left; position: sticky; left: 0; background: var(--paper) }
td.heading { font-weight: 600; padding-top: .8rem }
.share { display: inline-block; height: .7em; background: #4a8fc0; vertical-align: middle }
)";

}  // namespace

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
      case '\'':
        safe += "&#39;";
        break;
      default:  // neither a page nor a picture may have other control characters
        safe += static_cast<unsigned char>(c) < 0x20 && c != '\n' && c != '\t' ? "\xef\xbf\xbd"
                                                                               : std::string(1, c);
    }
  }
  return safe;
}

std::string to_page(const ReportHead& head, const std::vector<PageSection>& sections) {
  std::string body;
  for (const PageSection& section : sections)
    body += fmt::format("<h2>{}</h2>\n{}", escaped(section.title), section.body);
  return fmt::format(
      R"(<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>starattn: {0}</title><style>{1}{2}</style></head><body>
<h1>{0}</h1>
<p class="note">{3}. Made by <code>{4}</code></p>
{5}</body></html>
)",
      escaped(head.about), chart_style(), kStyle, escaped(head.version), escaped(head.command),
      body);
}

HtmlTable::HtmlTable(const std::vector<std::string>& head) : n_columns_(head.size()) {
  rows_ = "<thead><tr>";
  for (const std::string& name : head) rows_ += fmt::format("<th>{}</th>", escaped(name));
  rows_ += "</tr></thead>\n";
}

void HtmlTable::heading(const std::string& text) {
  rows_ +=
      fmt::format("<tr><td class='heading' colspan='{}'>{}</td></tr>\n", n_columns_, escaped(text));
}

void HtmlTable::row(const std::vector<std::string>& cells) {
  rows_ += "<tr>";
  for (const std::string& cell : cells) rows_ += fmt::format("<td>{}</td>", cell);
  rows_ += "</tr>\n";
}

std::string HtmlTable::html() const {
  return fmt::format("<div class='scroll'><table>{}</table></div>\n", rows_);
}

}  // namespace starattn
