// SPDX-License-Identifier: Apache-2.0
#include "eval/audit_line.h"

#include <algorithm>

#include "base/error.h"
#include "base/json.h"

namespace starattn {
namespace {

constexpr std::int64_t kMost = std::int64_t{1} << 40;

double at_least_0(const JsonObject& object, const char* key) {
  const double value = object.get_number(key);
  if (value < 0)
    fail(Exit::bad_data, "{}: key '{}': expected 0 or more, got {}", object.where(), key, value);
  return value;
}

}  // namespace

std::string to_line(const AuditLine& line) {
  Json json;
  json["id"] = line.id;
  json["query_id"] = line.query_id;
  json["n_context"] = line.n_context;
  json["n_positions"] = line.n_positions;
  json["kl_sum"] = line.kl_sum;
  json["kl_max"] = line.kl_max;
  json["n_same_top"] = line.n_same_top;
  json["same_tokens"] = line.is_same_tokens;
  json["same_text"] = line.is_same_text;
  json["exact"] = line.exact;
  json["star"] = line.star;
  json["seconds"] = {{"exact", line.exact_seconds},
                     {"star", line.star_seconds},
                     {"exact_ranks", line.exact_basis.n_ranks},
                     {"star_ranks", line.star_basis.n_ranks},
                     {"shared_device", line.star_basis.shares_device}};
  return to_line(json);
}

AuditLine parse_audit_line(std::string_view text, const std::string& where) {
  return audit_line_of(parse_json(text, where, {std::size_t{1} << 28, 8}), where);
}

AuditLine audit_line_of(const Json& json, const std::string& where) {
  const JsonObject object(json, where);
  AuditLine line;
  line.id = object.get_string("id");
  line.query_id = object.get_string("query_id");
  line.n_context = object.get_int("n_context", 1, kMost);
  line.n_positions = object.get_int("n_positions", 0, kMost);
  line.kl_sum = at_least_0(object, "kl_sum");
  line.kl_max = at_least_0(object, "kl_max");
  line.n_same_top = object.get_int("n_same_top", 0, line.n_positions);
  line.is_same_tokens = object.get_bool("same_tokens");
  line.is_same_text = object.get_bool("same_text");
  line.exact = object.get_string("exact");
  line.star = object.get_string("star");
  const JsonObject seconds = object.get_object("seconds");
  line.exact_seconds = at_least_0(seconds, "exact");
  line.star_seconds = at_least_0(seconds, "star");
  const bool is_shared = seconds.find_bool("shared_device").value_or(false);
  line.exact_basis = {seconds.find_int("exact_ranks", 0, kMost).value_or(0), is_shared};
  line.star_basis = {seconds.find_int("star_ranks", 0, kMost).value_or(0), is_shared};
  return line;
}

AuditRow row_of(std::span<const AuditLine> lines) {
  STARATTN_CHECK(!lines.empty());
  AuditRow row;
  row.id = lines.front().id;
  row.n_context = lines.front().n_context;
  row.exact_seconds = lines.front().exact_seconds;
  row.star_seconds = lines.front().star_seconds;
  row.exact_basis = lines.front().exact_basis;
  row.star_basis = lines.front().star_basis;
  for (const AuditLine& line : lines) {
    ++row.n_queries;
    row.n_positions += line.n_positions;
    row.kl_sum += line.kl_sum;
    row.kl_max = std::max(row.kl_max, line.kl_max);
    row.n_same_top += line.n_same_top;
    row.n_same_tokens += line.is_same_tokens;
    row.n_same_text += line.is_same_text;
  }
  return row;
}

}  // namespace starattn
