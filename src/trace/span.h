// SPDX-License-Identifier: Apache-2.0
// What a rank does, piece by piece: operations, copies, messages, files. A Span is one of them,
// from its begin to its end, and all go one way: to the recorder (trace/recorder.h), which a
// profile and a trace read. While nobody records, a span costs one look at a flag.
//
// Everything here belongs to the rank's main thread.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string_view>

namespace starattn::trace {

// Where a span is shown, and whose time it has: host, messages and files are the main thread's;
// the others are the device's, where it has a clock.
enum class Lane : std::uint8_t { host, compute, to_device, to_host, messages, files };
inline constexpr std::size_t kLanes = 6;

// What an operation does, as far as that is known.
struct Work {
  std::int64_t n_rows = 0;
  std::int64_t n_in = 0, n_out = 0;  // of a product: columns in and out
  std::int64_t n_keys = 0;           // of attention
  double flop = 0;
  double n_bytes = 0;  // read and written
};

// What the main thread is at. Below 0: nothing of the kind.
struct Place {
  std::int64_t document = -1;  // of document()
  std::int64_t block = -1;
  std::int64_t layer = -1;
};
inline Place here;

// The given parts of the place, while this lives.
class At {
 public:
  explicit At(const Place& place) : outer_(here) {
    if (place.document >= 0) here.document = place.document;
    if (place.block >= 0) here.block = place.block;
    if (place.layer >= 0) here.layer = place.layer;
  }
  ~At() { here = outer_; }
  At(const At&) = delete;
  At& operator=(const At&) = delete;

 private:
  Place outer_;
};
std::int64_t document(std::string_view id);  // its number for a Place

// The clock of a device that works behind the host's back. Neither function waits, neither throws.
class DeviceClock {
 public:
  virtual ~DeviceClock() = default;
  // A point in the order of a lane's work, behind what was begun so far.
  virtual std::uint64_t mark(Lane lane) = 0;
  // When the device came there, in seconds of now(); nothing before it did. Then the mark is gone.
  virtual std::optional<double> reached(std::uint64_t mark) = 0;
};

double now();  // seconds, on a clock of this process

inline bool recording = false;
inline bool is_recording() {
  return recording;
}

class Span {
 public:
  enum class Starts { at_once, behind_operations };
  // name: a string literal. starts: of a copy beside the operations.
  Span(const char* name, Lane lane, const Work& work = {}, DeviceClock* clock = nullptr,
       Starts starts = Starts::at_once) {
    if (is_recording()) begin(name, lane, work, clock, starts);
  }
  ~Span() {
    if (name_) end();
  }
  Span(const Span&) = delete;
  Span& operator=(const Span&) = delete;

 private:
  void begin(const char* name, Lane lane, const Work& work, DeviceClock* clock, Starts starts);
  void end();

  const char* name_ = nullptr;
  Lane lane_ = Lane::host;
  bool is_timed_ = false;
  Work work_;
  DeviceClock* clock_ = nullptr;
  double start_ = 0;
  std::uint64_t start_mark_ = 0;
  std::uint64_t behind_mark_ = 0;  // in the operations' order
};

// A message that this rank sends or takes.
void message(const char* kind, std::uint64_t n_bytes);

// Steps of phase 2 are short and many. All of them count, but a device times the spans of one in
// kStride: marks keep it from overlapping its operations.
class Step {
 public:
  static constexpr std::int64_t kStride = 32;
  explicit Step(std::int64_t number);  // from 0, of a batch of queries
  ~Step();
  Step(const Step&) = delete;
  Step& operator=(const Step&) = delete;

 private:
  bool outer_;
};

// Ranges and spans by name, for a profiler of the device's vendor.
struct Marker {
  void (*open)(const char* name) = nullptr;
  void (*close)() = nullptr;
};
void set_marker(Marker marker);

}  // namespace starattn::trace
