// SPDX-License-Identifier: Apache-2.0
#include "trace/recorder.h"

#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <cstring>
#include <map>
#include <nlohmann/json.hpp>
#include <tuple>

#include "base/clock.h"

namespace starattn::trace {
namespace {

constexpr std::size_t kLate = 64;  // more spans than that wait before the clock is asked

bool is_same(const char* a, const char* b) {
  return a == b || std::strcmp(a, b) == 0;
}

}  // namespace

Recorder& recorder() {
  static Recorder instance;
  return instance;
}

double now() {
  static const Stopwatch clock;
  return clock.seconds();
}

std::int64_t document(std::string_view id) {
  return is_recording() ? recorder().document(id) : -1;
}

void message(const char* kind, std::uint64_t n_bytes) {
  if (is_recording()) recorder().take_message(kind, n_bytes);
}

void set_marker(Marker marker) {
  recorder().set_marker(marker);
}

// --- spans

void Span::begin(const char* name, Lane lane, const Work& work, DeviceClock* clock, Starts starts) {
  name_ = name;
  lane_ = lane;
  work_ = work;
  clock_ = clock;
  Recorder& to = recorder();
  to.mark_open(name);
  is_timed_ = to.has_readers() && (!clock || to.times_devices());
  if (!is_timed_) return;
  if (!clock_) {
    start_ = now();
    return;
  }
  start_mark_ = clock_->mark(lane);
  if (starts == Starts::behind_operations) behind_mark_ = clock_->mark(Lane::compute);
}

void Span::end() {
  Recorder& to = recorder();
  to.mark_close();
  if (!is_timed_) return to.count(name_, lane_, work_);
  if (!clock_) return to.take({name_, lane_, start_, now(), work_, here});
  to.take_later({{name_, lane_, 0, 0, work_, here},
                 clock_,
                 start_mark_,
                 behind_mark_,
                 clock_->mark(lane_),
                 nullptr});
}

Step::Step(std::int64_t number)
    : outer_(recorder().set_times_devices(number < 2 || number % kStride == 0)) {}
Step::~Step() {
  recorder().set_times_devices(outer_);
}

// --- the recorder

void Recorder::start(bool for_profile, bool for_trace) {
  now();
  for_profile_ = for_profile;
  for_trace_ = for_trace;
  if (for_trace_) make_room();
  recording = for_profile_ || for_trace_ || marker_.open;
}

void Recorder::stop() {
  settle();
  start(false, false);
  forget_counts();
  events_ = {};
}

void Recorder::set_marker(Marker marker) {
  marker_ = marker;
  n_marked_ = 0;
  start(for_profile_, for_trace_);
}

void Recorder::open(const char* name, bool is_phase) {
  if (is_phase) phase_ = name;
  mark_open(name);
}

void Recorder::close(const Event& range) {
  mark_close();
  if (for_trace_) keep(range);
}

std::size_t Recorder::HashOfKey::operator()(const Key& key) const {
  std::size_t hash = reinterpret_cast<std::uintptr_t>(key.name);
  for (const auto part :
       {reinterpret_cast<std::uintptr_t>(key.phase), static_cast<std::uintptr_t>(key.n_in),
        static_cast<std::uintptr_t>(key.n_out), static_cast<std::uintptr_t>(key.rows_log2)})
    hash = (hash ^ part) * 0x9e3779b97f4a7c15U;
  return hash;
}

Recorder::Cell& Recorder::cell(const char* phase, const char* name, Lane lane, const Work& work) {
  const Key key{phase,
                name,
                work.n_in,
                work.n_out,
                static_cast<int>(std::bit_width(static_cast<std::uint64_t>(work.n_rows))),
                lane};
  // Layers are alike: mostly it is the one that came after the last one before.
  KeptCell* next = last_ ? last_->second.next : nullptr;
  if (!next || next->first != key) {
    next = &*cells_.try_emplace(key).first;
    if (last_) last_->second.next = next;
  }
  last_ = next;
  return next->second;
}

void Recorder::count(const char* name, Lane lane, const Work& work) {
  if (!for_profile_) return;
  Cell& to = cell(phase_, name, lane, work);
  ++to.n_calls;
  to.flop += work.flop;
  to.n_bytes += work.n_bytes;
}

void Recorder::take(const Event& event) {
  put(event, phase_);
}

void Recorder::put(const Event& event, const char* phase) {
  if (for_trace_) keep(event);
  if (!for_profile_) return;
  Cell& to = cell(phase, event.name, event.lane, event.work);
  ++to.n_calls;
  ++to.n_timed;
  to.seconds += event.end - event.begin;
  to.flop += event.work.flop;
  to.n_bytes += event.work.n_bytes;
}

void Recorder::take_message(const char* kind, std::uint64_t n_bytes) {
  if (for_trace_) {
    const double time = now();
    keep({kind, Lane::messages, time, time, {.n_bytes = static_cast<double>(n_bytes)}, here});
  }
  if (!for_profile_) return;
  auto found = std::ranges::find_if(messages_,
                                    [&](const auto& entry) { return is_same(entry.first, kind); });
  if (found == messages_.end()) found = messages_.insert(messages_.end(), {kind, {}});
  ++found->second.n_calls;
  found->second.n_bytes += static_cast<double>(n_bytes);
}

void Recorder::take_later(const Late& late) {
  std::deque<Late>& queue = late_[static_cast<std::size_t>(late.event.lane)];
  queue.push_back(late);
  queue.back().phase = phase_;
  if (queue.size() < std::max(kLate, look_at_)) return;
  while (!queue.empty() && settle_first(queue)) {
  }
  look_at_ = queue.size() + kLate;
}

bool Recorder::settle_first(std::deque<Late>& queue) {
  Late& late = queue.front();
  const std::optional<double> end = late.clock->reached(late.end);
  if (!end) return false;
  const auto time_of = [&](std::uint64_t mark) {
    return mark == 0 ? 0 : late.clock->reached(mark).value_or(0);
  };
  late.event.begin = std::min(*end, std::max(time_of(late.begin), time_of(late.behind)));
  late.event.end = *end;
  put(late.event, late.phase);
  queue.pop_front();
  return true;
}

void Recorder::settle() {
  for (std::deque<Late>& queue : late_)
    while (!queue.empty()) settle_first(queue);
}

std::vector<Operation> Recorder::operations() {
  settle();
  using Name = std::tuple<std::string, std::string, Lane, std::int64_t, std::int64_t>;
  std::map<Name, Operation> all;
  for (const auto& [key, from] : cells_) {
    const Name name{key.phase, key.name, key.lane, key.n_in, key.n_out};
    Operation& to =
        all.try_emplace(name, Operation{key.phase, key.name, key.lane, key.n_in, key.n_out})
            .first->second;
    to.n_calls += from.n_calls;
    to.n_timed += from.n_timed;
    to.flop += from.flop;
    to.n_bytes += from.n_bytes;
    if (from.n_timed > 0)
      to.seconds +=
          from.seconds / static_cast<double>(from.n_timed) * static_cast<double>(from.n_calls);
  }
  std::vector<Operation> list;
  for (auto& [name, operation] : all) list.push_back(std::move(operation));
  return list;
}

std::vector<MessageCount> Recorder::messages() const {
  std::vector<MessageCount> all;
  for (const auto& [kind, cell] : messages_)
    all.push_back({kind, cell.n_calls, static_cast<std::uint64_t>(cell.n_bytes)});
  return all;
}

void Recorder::forget_counts() {
  settle();
  cells_.clear();
  last_ = nullptr;
  messages_.clear();
}

// At once, and touched: a vector that grows would copy megabytes between two operations, and the
// system find their pages then.
void Recorder::make_room() {
  if (events_.capacity() >= kMostEvents) return;
  const std::size_t n = events_.size();
  events_.resize(kMostEvents);
  events_.resize(n);
}

void Recorder::keep(const Event& event) {
  if (events_.size() < kMostEvents) {
    events_.push_back(event);
  } else {
    ++n_lost_;
  }
}

std::int64_t Recorder::document(std::string_view id) {
  if (!for_trace_ || documents_.size() >= kMostEvents) return -1;
  if (documents_.empty() || documents_.back() != id) documents_.emplace_back(id);
  return std::ssize(documents_) - 1;
}

std::string Recorder::trace_events(int rank, const std::function<double(double)>& to_common) {
  settle();
  constexpr std::array<const char*, kLanes> kNames = {
      "phases", "compute", "copies to the device", "copies to the host", "messages", "files"};
  std::string lines =
      fmt::format(R"({{"name":"process_name","ph":"M","pid":{0},"args":{{"name":"rank {0}"}}}},)"
                  "\n",
                  rank);
  // No two ranks' lanes have one number, which viewers would take for one thread.
  const auto thread_of = [&](std::size_t lane) {
    return static_cast<std::size_t>(rank) * 10 + lane + 1;
  };
  for (std::size_t lane = 0; lane < kLanes; ++lane) {
    lines += fmt::format(
        R"({{"name":"thread_name","ph":"M","pid":{0},"tid":{1},"args":{{"name":"{2}"}}}},)"
        "\n"
        R"({{"name":"thread_sort_index","ph":"M","pid":{0},"tid":{1},"args":{{"sort_index":{1}}}}},)"
        "\n",
        rank, thread_of(lane), kNames[lane]);
  }
  for (const Event& event : events_) {
    const double begin = to_common(event.begin) * 1e6;
    const double length = to_common(event.end) * 1e6 - begin;
    lines += fmt::format(R"({{"name":"{}","pid":{},"tid":{},"ts":{:.3f},)", event.name, rank,
                         thread_of(static_cast<std::size_t>(event.lane)), begin);
    lines += event.begin == event.end && event.lane == Lane::messages
                 ? R"("ph":"i","s":"t",)"
                 : fmt::format(R"("ph":"X","dur":{:.3f},)", length);
    lines += fmt::format(R"("args":{{"rank":{})", rank);
    if (event.place.document >= 0)
      lines += ",\"document\":" +
               nlohmann::json(documents_[static_cast<std::size_t>(event.place.document)])
                   .dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
    const auto put = [&](const char* key, std::int64_t value, std::int64_t least) {
      if (value >= least) lines += fmt::format(R"(,"{}":{})", key, value);
    };
    put("block", event.place.block, 0);
    put("layer", event.place.layer, 0);
    put("rows", event.work.n_rows, 1);
    put("in", event.work.n_in, 1);
    put("out", event.work.n_out, 1);
    put("keys", event.work.n_keys, 1);
    put("flop", static_cast<std::int64_t>(event.work.flop), 1);
    put("bytes", static_cast<std::int64_t>(event.work.n_bytes), 1);
    lines += "}},\n";
  }
  return lines;
}

}  // namespace starattn::trace
