// SPDX-License-Identifier: Apache-2.0
// What the run cost, by phase and over ranks. docs/metrics.md defines every row.
#include <algorithm>
#include <map>

#include "base/json.h"
#include "base/text.h"
#include "run/loaded_model.h"
#include "trace/range.h"

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

std::string totals_as_json(std::int64_t n_context_tokens) {
  Json phases = Json::object();
  for (const trace::Total& total : trace::totals())
    phases[total.name] = {total.seconds, total.n_bytes};
  return Json{{"phases", phases},
              {"peak_memory", trace::peak_memory_bytes()},
              {"context_tokens", n_context_tokens}}
      .dump();
}

}  // namespace

void print_phase_table(const Ranks& ranks, double total_seconds, std::int64_t n_context_tokens) {
  const std::vector<std::string> texts =
      ranks.world.gather_texts(totals_as_json(n_context_tokens), 0);
  if (!ranks.is_first()) return;
  std::vector<std::string> names;
  std::map<std::string, Row> rows;
  std::uint64_t peak_memory = 0;
  std::int64_t n_tokens = 0;
  for (std::size_t rank = 0; rank < texts.size(); ++rank) {
    const Json json = parse_json(texts[rank], "phase totals");
    peak_memory = std::max(peak_memory, json["peak_memory"].get<std::uint64_t>());
    n_tokens += json["context_tokens"].get<std::int64_t>();
    for (const auto& [name, value] : json["phases"].items()) {
      const auto seconds = value[0].get<double>();
      const auto n_bytes = value[1].get<std::uint64_t>();
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
    const double mean = row.sum / static_cast<double>(texts.size());
    log::event("phase",
               {{"phase", name},
                {"min_seconds", row.min},
                {"mean_seconds", mean},
                {"max_seconds", row.max},
                {"slowest_rank", row.slowest},
                {"moved_bytes", row.n_bytes}},
               fmt::format("{:<22} {:>9.3f} {:>9.3f} {:>9.3f}  {:>7}  {:>11}", name, row.min, mean,
                           row.max, fmt::format("rank {}", row.slowest),
                           row.n_bytes ? human_bytes(row.n_bytes) : ""));
  }
  const auto rate = static_cast<std::int64_t>(static_cast<double>(n_tokens) / total_seconds);
  log::event("total",
             {{"seconds", total_seconds},
              {"context_tokens", n_tokens},
              {"peak_memory_bytes", peak_memory}},
             fmt::format("total {}; {} context tokens, {} a second; peak memory of a rank {}",
                         human_seconds(total_seconds), with_commas(n_tokens), with_commas(rate),
                         human_bytes(peak_memory)));
}

}  // namespace starattn
