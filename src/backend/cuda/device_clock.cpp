// SPDX-License-Identifier: Apache-2.0
#include "backend/cuda/device_clock.h"

#include <utility>
#include <vector>

namespace starattn::cuda {
namespace {

// A difference of two events is an fp32 number of milliseconds: it stays exact to half a
// microsecond where the earlier of them is not older than this.
constexpr double kOldestSeconds = 4;

class EventClock : public trace::DeviceClock {
 public:
  explicit EventClock(Device& device) : device_(device) {
    double shortest = 1e9;
    for (int round = 0; round < 10; ++round) {
      cudaEvent_t event = make_event();
      check(cudaStreamSynchronize(device_.stream()), "setting the clock of the GPU");
      const double before = trace::now();
      check(cudaEventRecord(event, device_.stream()), "setting the clock of the GPU");
      check(cudaEventSynchronize(event), "setting the clock of the GPU");
      const double after = trace::now();
      if (after - before < shortest) {
        shortest = after - before;
        std::swap(event, anchor_);
        anchor_seconds_ = (before + after) / 2;
      }
      if (event) spare_.push_back(event);
    }
  }
  ~EventClock() override {
    cudaEventDestroy(anchor_);
    for (const cudaEvent_t event : spare_) cudaEventDestroy(event);
    for (const cudaEvent_t event : marks_)
      if (event) cudaEventDestroy(event);
  }

  // 0 where CUDA refuses: then there is no such point, and its span has no length.
  std::uint64_t mark(trace::Lane lane) override {
    cudaEvent_t event = nullptr;
    if (!spare_.empty()) {
      event = spare_.back();
      spare_.pop_back();
    } else if (cudaEventCreate(&event) != cudaSuccess) {
      return 0;
    }
    if (cudaEventRecord(event, stream_of(lane)) != cudaSuccess) {
      spare_.push_back(event);
      return 0;
    }
    if (free_.empty()) {
      marks_.push_back(event);
      return marks_.size();
    }
    const std::uint64_t place = free_.back();
    free_.pop_back();
    marks_[place - 1] = event;
    return place;
  }

  std::optional<double> reached(std::uint64_t mark) override {
    if (mark == 0) return anchor_seconds_;
    cudaEvent_t& there = marks_[mark - 1];
    cudaEvent_t event = there;
    const cudaError_t status = cudaEventQuery(event);
    if (status == cudaErrorNotReady) return std::nullopt;
    float milliseconds = 0;
    if (status != cudaSuccess ||
        cudaEventElapsedTime(&milliseconds, anchor_, event) != cudaSuccess) {
      cudaGetLastError();  // the operation's own check says it
    }
    const double seconds = anchor_seconds_ + static_cast<double>(milliseconds) * 1e-3;
    if (seconds - anchor_seconds_ > kOldestSeconds) {
      std::swap(event, anchor_);
      anchor_seconds_ = seconds;
    }
    there = nullptr;
    spare_.push_back(event);
    free_.push_back(mark);
    return seconds;
  }

 private:
  static cudaEvent_t make_event() {
    cudaEvent_t event = nullptr;
    check(cudaEventCreate(&event), "creating a CUDA event");
    return event;
  }
  cudaStream_t stream_of(trace::Lane lane) {
    if (lane == trace::Lane::to_device) return device_.copy_stream(CopyDirection::to_device);
    if (lane == trace::Lane::to_host) return device_.copy_stream(CopyDirection::to_host);
    return device_.stream();
  }

  Device& device_;
  cudaEvent_t anchor_ = nullptr;
  double anchor_seconds_ = 0;        // of trace::now(), when the device came to the anchor
  std::vector<cudaEvent_t> marks_;   // mark i is in place i - 1
  std::vector<std::uint64_t> free_;  // marks without an event
  std::vector<cudaEvent_t> spare_;
};

}  // namespace

std::unique_ptr<trace::DeviceClock> make_device_clock(Device& device) {
  return std::make_unique<EventClock>(device);
}

}  // namespace starattn::cuda
