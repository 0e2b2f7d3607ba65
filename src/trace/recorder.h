// SPDX-License-Identifier: Apache-2.0
// The one place where ranges and spans are recorded, and what two readers make of them: a profile
// counts each operation (how often, how long, how much), a trace keeps each event.
#pragma once

#include <array>
#include <cstdint>
#include <deque>
#include <functional>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include "trace/span.h"

namespace starattn::trace {

struct Event {
  const char* name = nullptr;
  Lane lane = Lane::host;
  double begin = 0, end = 0;  // seconds of now(); of a message both are one
  Work work;
  Place place;
};

// All spans of one name and shape in one phase.
struct Operation {
  std::string phase;  // the outermost range: "phase 1"
  std::string name;
  Lane lane = Lane::host;
  std::int64_t n_in = 0, n_out = 0;
  std::int64_t n_calls = 0;
  std::int64_t n_timed = 0;  // calls of them; `seconds` is scaled up to all
  double seconds = 0;
  double flop = 0, n_bytes = 0;
};
struct MessageCount {
  std::string kind;
  std::int64_t n_calls = 0;
  std::uint64_t n_bytes = 0;
};

class Recorder {
 public:
  static constexpr std::size_t kMostEvents = 400'000;  // a longer run keeps its beginning

  // Outside of any range.
  void start(bool for_profile, bool for_trace);
  void stop();
  void set_marker(Marker marker);

  // Names for the marker, those of what is open in each other.
  void mark_open(const char* name) {
    if (!marker_.open) return;
    marker_.open(name);
    ++n_marked_;
  }
  void mark_close() {
    if (n_marked_ == 0) return;  // it came when that was open already
    marker_.close();
    --n_marked_;
  }
  // Of ranges: open() and, at the end, close().
  void open(const char* name, bool is_phase);
  void close(const Event& range);

  void count(const char* name, Lane lane, const Work& work);  // a span that is not timed
  void take(const Event& event);                              // one that is
  void take_message(const char* kind, std::uint64_t n_bytes);
  // One whose times the device's clock will know.
  struct Late {
    Event event;
    DeviceClock* clock = nullptr;
    std::uint64_t begin = 0, behind = 0, end = 0;  // marks; 0: none
    const char* phase = nullptr;
  };
  void take_later(const Late& late);
  // Waits for what has not come; the device has been told to finish. Clocks may go afterwards.
  void settle();

  bool has_readers() const { return for_profile_ || for_trace_; }
  bool times_devices() const { return times_devices_; }
  bool set_times_devices(bool times) { return std::exchange(times_devices_, times); }

  // What a profile counted since the last forget_counts().
  std::vector<Operation> operations();
  std::vector<MessageCount> messages() const;
  void forget_counts();

  // Chrome trace events, one JSON object and a comma a line; `rank` becomes the process. to_common:
  // from now() to the seconds of the trace.
  std::string trace_events(int rank, const std::function<double(double)>& to_common);
  std::uint64_t n_lost_events() const { return n_lost_; }
  std::int64_t document(std::string_view id);

 private:
  struct Key {
    const char* phase;
    const char* name;
    std::int64_t n_in, n_out;
    int rows_log2;  // times of calls are scaled up among their like
    Lane lane;
    bool operator==(const Key&) const = default;
  };
  struct HashOfKey {
    std::size_t operator()(const Key& key) const;
  };
  struct Cell {
    std::int64_t n_calls = 0, n_timed = 0;
    double seconds = 0, flop = 0, n_bytes = 0;
    std::pair<const Key, Cell>* next = nullptr;  // that was counted after this one
  };
  using KeptCell = std::pair<const Key, Cell>;
  Cell& cell(const char* phase, const char* name, Lane lane, const Work& work);
  void put(const Event& event, const char* phase);
  void keep(const Event& event);
  void make_room();
  bool settle_first(std::deque<Late>& queue);

  bool for_profile_ = false, for_trace_ = false;
  bool times_devices_ = true;
  Marker marker_;
  int n_marked_ = 0;
  const char* phase_ = "";
  std::unordered_map<Key, Cell, HashOfKey> cells_;
  KeptCell* last_ = nullptr;  // of cells_
  std::vector<std::pair<const char*, Cell>> messages_;
  std::array<std::deque<Late>, kLanes> late_;
  std::size_t look_at_ = 0;  // when so many are late
  std::vector<Event> events_;
  std::uint64_t n_lost_ = 0;
  std::vector<std::string> documents_;
};

Recorder& recorder();

}  // namespace starattn::trace
