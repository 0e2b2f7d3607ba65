// SPDX-License-Identifier: Apache-2.0
#include "study/measurement.h"

#include <fmt/format.h>

#include "base/error.h"
#include "io/line_reader.h"

namespace starattn {
namespace {

constexpr std::int64_t kMost = std::int64_t{1} << 62;
constexpr double kLeastSeconds = 1e-12, kMostFigure = 1e30;
constexpr JsonLimits kLimits{.max_bytes = std::size_t{1} << 22, .max_depth = 8};

// Name and member of all that every file has, in the order of the CSV's columns.
template <typename M, typename Visit>
void visit_members(M& one, const Visit& visit) {
  visit("ranks", one.n_ranks);
  visit("tokens", one.n_context);
  visit("setting", one.setting);
  visit("anchor", one.anchor);
  visit("block_size", one.block_size);
  visit("anchor_size", one.anchor_size);
  visit("reach", one.reach);
  visit("recall", one.recall);
  visit("recall_rows", one.recall_rows);
  visit("operation", one.operation);
  visit("queries", one.n_queries);
  visit("new_tokens", one.n_new_tokens);
  visit("repeat", one.repeat);
  visit("seconds", one.seconds);
  visit("flop", one.flop);
  visit("slowest_rank_flop", one.slowest_flop);
  visit("read_bytes", one.read_bytes);
  visit("moved_bytes", one.moved_bytes);
  visit("least_wait_seconds", one.least_wait);
  visit("most_wait_seconds", one.most_wait);
  visit("peak_bytes", one.peak_bytes);
  visit("product_flop_per_second", one.product_rate);
  visit("digest", one.digest);
  visit("right", one.is_right);
}

struct Reader {
  const JsonObject& line;

  void operator()(const char* key, std::int64_t& to) const { to = line.get_int(key, 0, kMost); }
  void operator()(const char* key, std::string& to) const { to = line.get_string(key); }
  void operator()(const char* key, std::optional<bool>& to) const { to = line.find_bool(key); }
  void operator()(const char* key, double& to) const {
    to = line.get_number(key);
    if (to < 0 || to > kMostFigure)
      fail(Exit::bad_data, "{}: key '{}': expected 0 to {}, got {}", line.where(), key, kMostFigure,
           to);
  }
};

Measurement measurement_of(const JsonObject& line) {
  Measurement one;
  visit_members(one, Reader{line});
  for (const char* key : {"ranks", "tokens"}) line.get_int(key, 1, kMost);
  if (one.seconds < kLeastSeconds)
    fail(Exit::bad_data, "{}: key 'seconds': expected more than 0, got {}", line.where(),
         one.seconds);
  const JsonObject phases = line.get_object("phases");
  for (const auto& [name, value] : phases.json().items()) {
    const JsonObject seconds(value, phases.where() + ": " + name);
    const Reader read{seconds};
    RankSeconds& of = one.phases[name];
    read("min", of.min);
    read("mean", of.mean);
    read("max", of.max);
    of.slowest = static_cast<int>(seconds.get_int("slowest", 0, 1 << 20));
  }
  return one;
}

std::string csv_text(const std::string& text) {
  std::string quoted = "\"";
  for (const char c : text) quoted += c == '"' ? "\"\"" : std::string(1, c);
  return quoted + "\"";
}

}  // namespace

std::string Measurement::result_key() const {
  return fmt::format("{} {} {} {} {} {} {} {} {} {}", n_context, block_size, anchor_size, reach,
                     recall, recall_rows, anchor, operation, n_queries, n_new_tokens);
}

std::string to_line(const Measurement& one) {
  Json json;
  visit_members(one, [&](const char* key, const auto& value) {
    if constexpr (std::is_same_v<decltype(value), const std::optional<bool>&>) {
      json[key] = value ? Json(*value) : Json(nullptr);
    } else {
      json[key] = value;
    }
  });
  json["phases"] = Json::object();
  for (const auto& [name, of] : one.phases)
    json["phases"][name] = {
        {"min", of.min}, {"mean", of.mean}, {"max", of.max}, {"slowest", of.slowest}};
  if (one.profile) json["profile"] = to_json(*one.profile, one.ceilings);
  return to_line(json);
}

std::string csv_head() {
  std::string names = "schema";
  Measurement one;
  visit_members(one, [&](const char* key, const auto&) { names += fmt::format(",{}", key); });
  return names;
}

std::string to_csv_line(const Measurement& one) {
  std::string line = kStudySchema;
  visit_members(one, [&](const char*, const auto& value) {
    if constexpr (std::is_same_v<decltype(value), const std::string&>) {
      line += "," + csv_text(value);
    } else if constexpr (std::is_same_v<decltype(value), const std::optional<bool>&>) {
      line += value ? fmt::format(",{:d}", *value) : ",";
    } else {
      line += fmt::format(",{}", value);
    }
  });
  return line;
}

bool is_study(std::string_view first_line) {
  return first_line.starts_with(fmt::format("{{\"schema\":\"{}\"", kStudySchema));
}

Study read_study(const std::string& path) {
  Study study;
  LineReader reader(path);
  while (const auto line = reader.next()) {
    const std::string where = fmt::format("{}:{}", path, line->number);
    Json json = parse_json(line->text, where, kLimits);
    const JsonObject object(json, where);
    if (!study.head.is_null()) {
      study.measurements.push_back(measurement_of(object));
      continue;
    }
    const std::string schema = object.get_string("schema");
    if (schema != kStudySchema)
      fail(Exit::bad_data,
           "{}: expected a study of schema '{}', which 'bench --json' writes, got '{}'", where,
           kStudySchema, schema);
    for (const char* key : {"date", "version", "command", "model", "device"})
      object.get_string(key);
    study.head = std::move(json);
  }
  if (study.head.is_null()) fail(Exit::bad_data, "{}: no line in it", path);
  return study;
}

}  // namespace starattn
