// SPDX-License-Identifier: Apache-2.0
#include "eval/audit_report.h"

#include <fmt/format.h>

#include "base/text.h"

namespace starattn {
namespace {

double percent(std::int64_t part, std::int64_t whole) {
  return whole == 0 ? 0 : 100.0 * static_cast<double>(part) / static_cast<double>(whole);
}

}  // namespace

PageSection audit_section(const std::vector<AuditRow>& documents) {
  HtmlTable table({"document", "same answers, %", "same likeliest token, %", "mean KL, nats",
                   "largest KL", "tokens", "answers", "exact, s", "star, s"});
  for (const AuditRow& row : documents)
    table.row({escaped(one_line(row.id)),
               fmt::format("{:.1f}", percent(row.n_same_tokens, row.n_queries)),
               fmt::format("{:.1f}", percent(row.n_same_top, row.n_positions)),
               fmt::format("{:.2g}", row.kl_mean()), fmt::format("{:.2g}", row.kl_max),
               with_commas(row.n_context), fmt::format("{}", row.n_queries),
               fmt::format("{:.3g}", row.exact_seconds), fmt::format("{:.3g}", row.star_seconds)});
  return {"Audit: the same queries, answered exactly and not",
          "<div class='scroll'><pre>" + escaped(to_table(summarise(documents))) + "</pre></div>\n" +
              table.html()};
}

}  // namespace starattn
