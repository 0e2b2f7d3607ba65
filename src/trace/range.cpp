// SPDX-License-Identifier: Apache-2.0
#include "trace/range.h"

#include <fmt/format.h>
#include <sys/resource.h>

#include <atomic>

namespace starattn::trace {
namespace {

struct Event {
  const char* name;
  double start;
  double seconds;
};

struct Registry {
  Stopwatch clock;
  std::vector<Total> totals;
  std::vector<Event> events;
  bool tracing = false;

  Total& of(const char* name) {
    for (Total& total : totals) {
      if (total.name == name) return total;
    }
    return totals.emplace_back(Total{name});
  }
};

Registry& registry() {
  static Registry instance;
  return instance;
}

std::atomic<const char*> innermost = nullptr;  // open range
std::atomic<const char*> last_closed = "start";
std::atomic<std::uint64_t> moves = 0;

constexpr std::size_t kMaxEvents = 1'000'000;  // about 24 MB; a longer run keeps its beginning

}  // namespace

Range::Range(const char* name)
    : name_(name), start_(registry().clock.seconds()), outer_(innermost) {
  innermost = name;
  ++moves;
}

Range::~Range() {
  innermost = outer_;
  last_closed = name_;
  ++moves;
  Registry& all = registry();
  const double seconds = all.clock.seconds() - start_;
  Total& total = all.of(name_);
  total.seconds += seconds;
  ++total.n_calls;
  if (all.tracing && all.events.size() < kMaxEvents) all.events.push_back({name_, start_, seconds});
}

std::string where_now() {
  const char* open = innermost;
  return fmt::format("{} '{}'", open ? "in" : "after", open ? open : last_closed.load());
}
std::uint64_t n_moves() {
  return moves;
}

void count_bytes(const char* name, std::uint64_t n_bytes) {
  registry().of(name).n_bytes += n_bytes;
}

std::vector<Total> totals() {
  return registry().totals;
}

void reset() {
  registry().totals.clear();
  registry().events.clear();
}

void start_trace() {
  registry().clock = Stopwatch();
  registry().tracing = true;
}

std::string trace_events(int rank) {
  std::string lines = fmt::format(
      R"({{"name":"process_name","ph":"M","pid":{0},"args":{{"name":"rank {0}"}}}},)", rank);
  lines += '\n';
  for (const Event& event : registry().events) {
    lines += fmt::format(R"({{"name":"{}","ph":"X","pid":{},"tid":0,"ts":{:.3f},"dur":{:.3f}}},)",
                         event.name, rank, event.start * 1e6, event.seconds * 1e6);
    lines += '\n';
  }
  return lines;
}

std::uint64_t peak_memory_bytes() {
  struct rusage usage {};
  ::getrusage(RUSAGE_SELF, &usage);
  return static_cast<std::uint64_t>(usage.ru_maxrss) * 1024;
}

}  // namespace starattn::trace
