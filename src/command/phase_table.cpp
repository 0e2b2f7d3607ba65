// SPDX-License-Identifier: Apache-2.0
// What the run cost, by phase and over ranks. docs/metrics.md defines every row.
#include <algorithm>
#include <map>

#include "base/file.h"
#include "base/json.h"
#include "base/text.h"
#include "command/session.h"
#include "obs/range.h"

namespace starattn {
namespace {

struct Row {
  double min = 0;
  double sum = 0;
  double max = 0;
  int slowest = 0;
  std::uint64_t n_bytes = 0;
  std::size_t n_ranks = 0;  // that were in this phase at all
};

std::string totals_as_json() {
  Json json = Json::object();
  for (const obs::Total& total : obs::totals()) json[total.name] = {total.seconds, total.n_bytes};
  json["peak memory"] = {0.0, obs::peak_memory_bytes()};
  return json.dump();
}

}  // namespace

void print_phase_table(const Ranks& ranks, double total_seconds) {
  const std::vector<std::string> texts = ranks.world.gather_texts(totals_as_json(), 0);
  if (!ranks.is_first()) return;
  std::vector<std::string> names;
  std::map<std::string, Row> rows;
  std::uint64_t peak_memory = 0;
  for (std::size_t rank = 0; rank < texts.size(); ++rank) {
    const Json json = parse_json(texts[rank], "phase totals");
    for (const auto& [name, value] : json.items()) {
      const auto seconds = value[0].get<double>();
      const auto n_bytes = value[1].get<std::uint64_t>();
      if (name == "peak memory") {
        peak_memory = std::max(peak_memory, n_bytes);
        continue;
      }
      const auto [it, is_new] = rows.try_emplace(name);
      Row& row = it->second;
      if (is_new) names.push_back(name);
      if (seconds > row.max) row.slowest = static_cast<int>(rank);
      row.min = is_new ? seconds : std::min(row.min, seconds);
      ++row.n_ranks;
      row.max = std::max(row.max, seconds);
      row.sum += seconds;
      row.n_bytes += n_bytes;
    }
  }
  log::info("{:<22} {:>9} {:>9} {:>9}  {:>7}  {:>11}", "phase, seconds", "min", "mean", "max",
            "slowest", "moved");
  for (const std::string& name : names) {
    Row& row = rows[name];
    if (row.n_ranks < texts.size()) row.min = 0;
    log::info("{:<22} {:>9.3f} {:>9.3f} {:>9.3f}  {:>7}  {:>11}", name, row.min,
              row.sum / static_cast<double>(texts.size()), row.max,
              fmt::format("rank {}", row.slowest), row.n_bytes ? human_bytes(row.n_bytes) : "");
  }
  log::info("total {}; peak memory of a rank {}", human_seconds(total_seconds),
            human_bytes(peak_memory));
}

void write_trace(const Options& options, const Ranks& ranks) {
  if (options.trace.empty()) return;
  const std::vector<std::string> events =
      ranks.world.gather_texts(obs::trace_events(ranks.world.rank()), 0);
  collectively(ranks.world, [&] {
    if (!ranks.is_first()) return;
    std::string all = "[\n";
    for (const std::string& text : events) all += text;
    all.resize(all.rfind(','));
    write_file_durably(options.trace, all + "\n]\n");
    log::info("trace: {} (open it in chrome://tracing or Perfetto)", options.trace);
  });
}

}  // namespace starattn
