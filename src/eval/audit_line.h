// SPDX-License-Identifier: Apache-2.0
// One query of an audit: its exact answer, the one of the settings under audit, and how far the two
// next-token distributions are apart along the exact one. A line of the audit's output.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>

#include "base/json.h"
#include "eval/audit_sheet.h"

namespace starattn {

struct AuditLine {
  std::string id;
  std::string query_id;
  std::int64_t n_context = 0;    // tokens
  std::int64_t n_positions = 0;  // tokens of the exact answer
  double kl_sum = 0;             // nats, over positions
  double kl_max = 0;
  std::int64_t n_same_top = 0;  // positions
  bool is_same_tokens = false;
  bool is_same_text = false;  // white space around them left out
  std::string exact;
  std::string star;
  double exact_seconds = 0;  // phase 1
  double star_seconds = 0;
  TimingBasis exact_basis, star_basis;

  static void fields(auto& line, auto& archive) {
    auto& [id, query_id, n_context, n_positions, kl_sum, kl_max, n_same_top, is_same_tokens,
           is_same_text, exact, star, exact_seconds, star_seconds, exact_basis, star_basis] = line;
    archive(id, query_id, n_context, n_positions, kl_sum, kl_max, n_same_top, is_same_tokens,
            is_same_text, exact, star, exact_seconds, star_seconds, exact_basis, star_basis);
  }
};

std::string to_line(const AuditLine& line);  // JSON, without line end
// Throws Error(bad_data) naming `where` and the key.
AuditLine parse_audit_line(std::string_view text, const std::string& where);
AuditLine audit_line_of(const Json& line, const std::string& where);  // as above

AuditRow row_of(std::span<const AuditLine> lines);  // of one document, one at least

}  // namespace starattn
