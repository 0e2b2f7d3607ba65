// SPDX-License-Identifier: Apache-2.0
// A device whose operations happen late, too: one by one, when somebody asks whether they have.
#pragma once

#include <deque>
#include <functional>
#include <utility>
#include <vector>

#include "../backend/late_backend.h"

namespace starattn::testing {

class LateOperations : public LateBackend {
 public:
  LateOperations() : LateBackend(make_cpu_backend(1)) {}

  void later(std::function<void()> operation) { operations_.push_back(std::move(operation)); }

  void upload(std::span<const std::byte> host, std::byte* device) override {
    synchronize();
    LateBackend::upload(host, device);
  }
  void upload_later(std::span<const std::byte> host, std::byte* device) override {
    later([this, device, bytes = std::vector(host.begin(), host.end())] {
      LateBackend::upload(bytes, device);
    });
  }
  void synchronize(const std::function<void()>& = {}) override {
    while (!operations_.empty()) next();
  }
  std::uint64_t mark() override { return n_done_ + operations_.size(); }
  bool is_reached(std::uint64_t mark) override {
    if (n_done_ < mark) next();
    return n_done_ >= mark;
  }

 private:
  void next() {
    operations_.front()();
    operations_.pop_front();
    ++n_done_;
  }

  std::deque<std::function<void()>> operations_;
  std::uint64_t n_done_ = 0;
};

}  // namespace starattn::testing
