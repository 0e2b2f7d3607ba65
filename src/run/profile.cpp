// SPDX-License-Identifier: Apache-2.0
#include "run/profile.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <numeric>
#include <tuple>

#include "base/text.h"
#include "trace/range.h"

namespace starattn {
namespace {

// What a rank waits in for messages of a kind.
constexpr std::pair<const char*, const char*> kWaits[] = {
    {"anchor broadcast", "wait for anchor"}, {"segment exchange", "wait for segments"},
    {"recall", "wait for recall"},           {"meet", "wait for a step"},
    {"share queries", "wait for queries"},   {"gather and merge", "wait for partials"},
    {"gather columns", "wait for shares"},   {"halo exchange", "wait for halo"},
};

constexpr double kLeastShare = 0.0005;  // of its phase: less is not shown

// Operations of fewer floating-point operations a byte are bound by bytes on every machine.
constexpr double kBoundByBytes = 64;

Json counts_of_this_rank() {
  Json phases = Json::array();
  for (const trace::Total& total : trace::totals())
    if (total.n_calls > 0) phases.push_back({total.name, total.seconds});
  Json operations = Json::array();
  for (const trace::Operation& one : trace::recorder().operations()) {
    operations.push_back({one.phase, one.name, static_cast<int>(one.lane), one.n_in, one.n_out,
                          one.n_calls, one.n_timed, one.seconds, one.flop, one.n_bytes});
  }
  Json messages = Json::array();
  for (const trace::MessageCount& one : trace::recorder().messages())
    messages.push_back({one.kind, one.n_calls, one.n_bytes});
  return {{"phases", phases}, {"operations", operations}, {"messages", messages}};
}

// Places by key, in order of first use.
template <typename Key, typename Value>
class InOrder {
 public:
  Value& operator[](const Key& key) {
    const auto [at, is_new] = places_.try_emplace(key, values_.size());
    if (is_new) values_.emplace_back();
    return values_[at->second];
  }
  std::vector<Value>& values() { return values_; }

 private:
  std::map<Key, std::size_t> places_;
  std::vector<Value> values_;
};

using Seconds = std::vector<double>;  // [rank]

OverRanks over_ranks(const Seconds& seconds) {
  const auto [least, most] = std::ranges::minmax_element(seconds);
  return {
      *least,
      std::accumulate(seconds.begin(), seconds.end(), 0.0) / static_cast<double>(seconds.size()),
      *most, static_cast<int>(most - seconds.begin())};
}

Json to_json(const OverRanks& seconds) {
  return {{"min", seconds.min},
          {"mean", seconds.mean},
          {"max", seconds.max},
          {"slowest", seconds.slowest}};
}

std::string slowest_text(const OverRanks& seconds, int n_ranks) {
  return n_ranks == 1 ? "" : fmt::format("rank {} {:.4g}", seconds.slowest, seconds.max);
}

bool is_operation(const Profile::Operation& one) {
  return one.all.lane != trace::Lane::messages && one.all.lane != trace::Lane::host;
}

const char* name_of(trace::Lane lane) {
  constexpr const char* kNames[trace::kLanes] = {"host",    "compute",  "to device",
                                                 "to host", "messages", "files"};
  return kNames[static_cast<std::size_t>(lane)];
}

}  // namespace

double Profile::seconds_of(const std::string& phase) const {
  const auto found = std::ranges::find(phases, phase, &Phase::name);
  return found == phases.end() ? 0 : found->seconds.mean;
}

Profile gather_profile(const Communicator& world, bool has_device_times) {
  const std::vector<std::string> texts = world.gather_texts(to_line(counts_of_this_rank()), 0);
  Profile profile;
  profile.n_ranks = world.size();
  profile.has_device_times = has_device_times;
  const auto n_ranks = static_cast<std::size_t>(world.size());
  struct Phase {
    std::string name;
    Seconds seconds;
  };
  struct Operation {
    trace::Operation all;
    Seconds seconds;
  };
  InOrder<std::string, Phase> phases;
  InOrder<std::tuple<std::string, std::string, int, std::int64_t, std::int64_t>, Operation>
      operations;
  InOrder<std::string, Profile::Message> messages;
  for (std::size_t rank = 0; rank < texts.size(); ++rank) {
    const Json counts = parse_json(texts[rank], "the profile of a rank");
    for (const Json& one : counts["phases"]) {
      Phase& phase = phases[one[0].get<std::string>()];
      phase.name = one[0].get<std::string>();
      phase.seconds.resize(n_ranks);
      phase.seconds[rank] = one[1].get<double>();
    }
    for (const Json& one : counts["operations"]) {
      Operation& to =
          operations[{one[0].get<std::string>(), one[1].get<std::string>(), one[2].get<int>(),
                      one[3].get<std::int64_t>(), one[4].get<std::int64_t>()}];
      to.all.phase = one[0].get<std::string>();
      to.all.name = one[1].get<std::string>();
      to.all.lane = static_cast<trace::Lane>(one[2].get<int>());
      to.all.n_in = one[3].get<std::int64_t>();
      to.all.n_out = one[4].get<std::int64_t>();
      to.all.n_calls += one[5].get<std::int64_t>();
      to.all.n_timed += one[6].get<std::int64_t>();
      to.all.seconds += one[7].get<double>();
      to.all.flop += one[8].get<double>();
      to.all.n_bytes += one[9].get<double>();
      to.seconds.resize(n_ranks);
      to.seconds[rank] = one[7].get<double>();
    }
    for (const Json& one : counts["messages"]) {
      Profile::Message& to = messages[one[0].get<std::string>()];
      to.kind = one[0].get<std::string>();
      to.n_calls += one[1].get<std::int64_t>();
      to.n_bytes += one[2].get<std::uint64_t>();
    }
  }
  if (texts.empty()) return profile;
  for (Phase& phase : phases.values())
    profile.phases.push_back({phase.name, over_ranks(phase.seconds)});
  for (Operation& one : operations.values())
    profile.operations.push_back({one.all, over_ranks(one.seconds)});
  std::ranges::stable_sort(profile.operations, std::greater<>(),
                           [](const Profile::Operation& one) { return one.seconds.mean; });
  for (Profile::Message& message : messages.values()) {
    Seconds waits(n_ranks);
    for (const auto& [kind, wait] : kWaits) {
      if (message.kind != kind) continue;
      for (const Phase& phase : phases.values())
        for (std::size_t rank = 0; phase.name == wait && rank < n_ranks; ++rank)
          waits[rank] += phase.seconds[rank];
      for (const Operation& one : operations.values())
        for (std::size_t rank = 0; one.all.name == wait && rank < n_ranks; ++rank)
          waits[rank] += one.seconds[rank];
    }
    message.waits = over_ranks(waits);
    profile.messages.push_back(message);
  }
  return profile;
}

double share_of_ceiling(const Profile::Operation& operation, const Ceilings& ceilings) {
  if (operation.all.seconds <= 0) return 0;
  if (ceilings.bytes_per_s == 0 && operation.all.flop < kBoundByBytes * operation.all.n_bytes)
    return 0;
  double least = 0;
  if (ceilings.flop_per_s > 0) least = operation.all.flop / ceilings.flop_per_s;
  if (ceilings.bytes_per_s > 0)
    least = std::max(least, operation.all.n_bytes / ceilings.bytes_per_s);
  return least / operation.all.seconds;
}

std::vector<std::string> to_table(const Profile& profile, const Ceilings& ceilings) {
  std::vector<std::string> lines;
  std::vector<std::string> phases;
  for (const Profile::Operation& one : profile.operations)
    if (is_operation(one) && std::ranges::count(phases, one.all.phase) == 0)
      phases.push_back(one.all.phase);
  const auto number = [](double value) {
    return value > 0 ? fmt::format("{:.3g}", value) : std::string();
  };
  for (const std::string& phase : phases) {
    const double whole = profile.seconds_of(phase);
    lines.push_back(fmt::format("{}, {:.4g} s a rank, by operation ({})", phase, whole,
                                profile.has_device_times
                                    ? "times of the device, marked in its stream"
                                    : "times of the rank's main thread"));
    lines.push_back(fmt::format("{:<24} {:>15} {:>9} {:>10} {:>6} {:>8} {:>8} {:>7}  {}",
                                "operation", "shape", "calls", "mean, s", "share", "TFLOP/s",
                                "GB/s", "ceiling", profile.n_ranks > 1 ? "slowest, s" : ""));
    double known = 0;
    double left_out = 0;
    for (const Profile::Operation& one : profile.operations) {
      if (one.all.phase != phase || !is_operation(one)) continue;
      if (one.all.lane == trace::Lane::compute) known += one.seconds.mean;
      if (one.seconds.mean < kLeastShare * whole) {
        left_out += one.seconds.mean;
        continue;
      }
      const double share = share_of_ceiling(one, ceilings);
      lines.push_back(
          fmt::format("{:<24} {:>15} {:>9} {:>10.4g} {:>6} {:>8} {:>8} {:>7}  {}", one.all.name,
                      one.all.n_out > 0 ? fmt::format("{} to {}", one.all.n_in, one.all.n_out) : "",
                      one.all.n_calls / profile.n_ranks, one.seconds.mean,
                      whole > 0 ? fmt::format("{:.1f} %", 100 * one.seconds.mean / whole) : "",
                      number(one.all.flop / one.all.seconds * 1e-12),
                      number(one.all.n_bytes / one.all.seconds * 1e-9),
                      share > 0 ? fmt::format("{:.0f} %", 100 * share) : "",
                      slowest_text(one.seconds, profile.n_ranks)));
    }
    const auto say_rest = [&](const char* what, double seconds) {
      if (whole > 0 && seconds >= kLeastShare * whole)
        lines.push_back(fmt::format("{:<24} {:>15} {:>9} {:>10.4g} {:>6}", what, "", "", seconds,
                                    fmt::format("{:.1f} %", 100 * seconds / whole)));
    };
    say_rest("smaller ones", left_out);
    say_rest(profile.has_device_times ? "device without work" : "beside operations", whole - known);
  }
  if (ceilings.flop_per_s > 0) {
    lines.push_back(fmt::format(
        "ceiling: {:.4g} TFLOP/s{} of a rank, as measured of {}; whichever is nearer",
        ceilings.flop_per_s * 1e-12,
        ceilings.bytes_per_s > 0 ? fmt::format(" or {:.4g} GB/s", ceilings.bytes_per_s * 1e-9) : "",
        ceilings.of));
  }
  if (profile.messages.empty()) return lines;
  lines.push_back(fmt::format("{:<24} {:>9} {:>12} {:>10} {:>10} {:>10}  {}", "messages", "calls",
                              "bytes", "min wait", "mean, s", "max, s", "slowest"));
  for (const Profile::Message& one : profile.messages) {
    lines.push_back(fmt::format("{:<24} {:>9} {:>12} {:>10.4g} {:>10.4g} {:>10.4g}  rank {}",
                                one.kind, one.n_calls, human_bytes(one.n_bytes), one.waits.min,
                                one.waits.mean, one.waits.max, one.waits.slowest));
  }
  return lines;
}

Json to_json(const Profile& profile, const Ceilings& ceilings) {
  Json json = {{"schema", kProfileSchema},
               {"ranks", profile.n_ranks},
               {"device_times", profile.has_device_times}};
  if (ceilings.flop_per_s > 0) {
    json["ceilings"] = {{"flop_per_second", ceilings.flop_per_s}};
    if (ceilings.bytes_per_s > 0) json["ceilings"]["bytes_per_second"] = ceilings.bytes_per_s;
    json["ceilings"]["of"] = ceilings.of;
  }
  json["phases"] = Json::array();
  for (const Profile::Phase& phase : profile.phases)
    json["phases"].push_back({{"name", phase.name}, {"seconds", to_json(phase.seconds)}});
  json["operations"] = Json::array();
  for (const Profile::Operation& one : profile.operations) {
    Json entry = {{"phase", one.all.phase},         {"name", one.all.name},
                  {"lane", name_of(one.all.lane)},  {"calls", one.all.n_calls},
                  {"timed_calls", one.all.n_timed}, {"seconds", to_json(one.seconds)},
                  {"flop", one.all.flop},           {"bytes", one.all.n_bytes}};
    if (one.all.n_out > 0) {
      entry["in"] = one.all.n_in;
      entry["out"] = one.all.n_out;
    }
    if (const double share = share_of_ceiling(one, ceilings); share > 0)
      entry["share_of_ceiling"] = share;
    json["operations"].push_back(std::move(entry));
  }
  json["messages"] = Json::array();
  for (const Profile::Message& one : profile.messages)
    json["messages"].push_back({{"kind", one.kind},
                                {"calls", one.n_calls},
                                {"bytes", one.n_bytes},
                                {"wait_seconds", to_json(one.waits)}});
  return json;
}

}  // namespace starattn
