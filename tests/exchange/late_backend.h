// SPDX-License-Identifier: Apache-2.0
// A device with memory of its own whose operations and copies happen late, one by one, when
// somebody asks whether they have: what comes too early, or does not wait, is seen.
#pragma once

#include <deque>
#include <functional>
#include <memory>
#include <vector>

#include "backend/backend.h"
#include "base/error.h"

namespace starattn::testing {

class LateBackend : public Backend {
 public:
  std::string describe() const override { return "late"; }
  Dtype activation_dtype() const override { return Dtype::f32; }
  std::uint64_t memory_bytes() const override { return std::uint64_t{1} << 40; }

  void later(std::function<void()> operation) { operations_.push_back(std::move(operation)); }

  Buffer allocate(std::size_t n_bytes) override { return cpu_->allocate(n_bytes); }
  void upload(std::span<const std::byte> host, std::byte* device) override {
    synchronize();
    cpu_->upload(host, device);
  }
  void upload_later(std::span<const std::byte> host, std::byte* device) override {
    later([this, device, bytes = std::vector(host.begin(), host.end())] {
      cpu_->upload(bytes, device);
    });
  }
  void download(const std::byte* device, std::span<std::byte> host) override {
    synchronize();
    cpu_->download(device, host);
  }
  void copy_after_operations(CopyDirection, std::span<const std::byte>, std::byte*) override {
    STARATTN_CHECK(false);
  }
  void order_after_copies(CopyDirection direction) override {
    later([this, direction] {
      while (!copies_done(direction)) {
      }
    });
  }
  void copy_now(CopyDirection direction, std::span<const std::byte> from, std::byte* to) override {
    lane(direction).push_back([this, from, to] { cpu_->upload(from, to); });
  }
  bool copies_done(CopyDirection direction) override {
    if (!lane(direction).empty()) next_of(lane(direction));
    return lane(direction).empty();
  }
  std::uint64_t mark() override { return n_done_ + operations_.size(); }
  bool is_reached(std::uint64_t mark) override {
    if (n_done_ < mark) next_operation();
    return n_done_ >= mark;
  }
  void synchronize(const std::function<void()>& = {}) override {
    while (!operations_.empty()) next_operation();
  }

  // What computes is not asked of it.
  void embed(std::span<const Token>, const WeightView&, Rows) override { none(); }
  void rms_norm(Rows, const WeightView&, double, Rows) override { none(); }
  void linear(Rows, const Projection&, Product) override { none(); }
  void linear_to_host(Rows, const WeightView&, std::span<float>) override { none(); }
  void next_tokens(Rows, const WeightView&, std::span<const Draw>, std::span<Token>) override {
    none();
  }
  void rope(Rows, std::int64_t, const float*, const float*) override { none(); }
  void attend(Rows, std::span<const KvSegment>, const AttentionShape&, Product, Partial) override {
    none();
  }
  void attend_own(Rows, Rows, Rows, std::span<const OwnTokens>, const AttentionShape&, Partial,
                  Rows) override {
    none();
  }
  void clear(Partial, const AttentionShape&) override { none(); }
  void merge(Partial, Partial, const AttentionShape&) override { none(); }
  void finish(Partial, const AttentionShape&, Rows) override { none(); }
  void add(Rows, Rows) override { none(); }
  void swiglu(Rows, Rows, Rows) override { none(); }
  void choose_asking_rows(const KvSegment&, const AttentionShape&, std::int64_t,
                          std::int32_t*) override {
    none();
  }
  void gather_rows(std::span<const Rows>, const std::int32_t*, Rows) override { none(); }
  void log_sum_exp(Rows, const KvSegment&, const KvSegment&, const AttentionShape&,
                   float*) override {
    none();
  }
  void score_keys(Rows, const float*, const KvSegment&, const AttentionShape&, float*) override {
    none();
  }
  void choose_best(const float*, std::int64_t, std::int64_t, std::int32_t*, float*) override {
    none();
  }
  void find_not_finite(Rows, std::int64_t*) override { none(); }
  std::int64_t first_not_finite(const WeightView&, std::int64_t, std::int64_t) override {
    none();
    return -1;
  }

 private:
  using Queue = std::deque<std::function<void()>>;
  static void none() { STARATTN_CHECK(false); }
  static void next_of(Queue& queue) {
    const std::function<void()> next = std::move(queue.front());
    queue.pop_front();
    next();
  }
  void next_operation() {
    next_of(operations_);
    ++n_done_;
  }
  Queue& lane(CopyDirection direction) { return lanes_[static_cast<int>(direction)]; }

  std::unique_ptr<Backend> cpu_ = make_cpu_backend(1);
  Queue operations_;
  std::uint64_t n_done_ = 0;
  Queue lanes_[2];
};

}  // namespace starattn::testing
