// SPDX-License-Identifier: Apache-2.0
// The CPU backend as a device with memory of its own whose copies complete late: what the rules of
// backend/backend.h leave open goes wrong here. A copy reads its source when it completes, its
// target holds rubbish until then, and it completes when the operations are ordered behind it, or
// after copies_done() has said "no" a few times. So code that uses a buffer again too early, or
// reads one too early, computes other bits. Memory that a copy still needs must not be freed, and
// pinned memory that was uploaded for later must not change: both end the process. So does what
// repeated operations must not do: wait, or copy beside them.
#pragma once

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <map>
#include <memory>
#include <vector>

#include "backend/backend.h"

namespace starattn::testing {

class LateBackend : public Backend {
 public:
  explicit LateBackend(std::unique_ptr<Backend> backend) : backend_(std::move(backend)) {}
  ~LateBackend() override {
    for (const auto& queue : copies_) require(queue.empty(), "no copy is left at the end");
    require(downloads_.empty(), "no download is left at the end");
  }

  std::string describe() const override { return backend_->describe() + ", late copies"; }
  Dtype activation_dtype() const override { return backend_->activation_dtype(); }
  std::int64_t chunk_rows() const override { return backend_->chunk_rows(); }
  void check_model(const ModelShape& model) const override { backend_->check_model(model); }
  std::uint64_t memory_bytes() const override { return kMemoryBytes; }
  std::uint64_t free_bytes() const override { return kMemoryBytes; }

  Buffer allocate(std::size_t n_bytes) override { return guarded(backend_->allocate(n_bytes)); }
  Buffer allocate_pinned(std::size_t n_bytes) override {
    Buffer buffer = guarded(backend_->allocate(n_bytes));
    pinned_[buffer.data()] = n_bytes;
    return buffer;
  }
  Buffer pin(std::span<std::byte> memory) override {
    pinned_[memory.data()] = memory.size();
    return {new Guard{this, {}, memory.data()}, memory.size(), let_go};
  }

  void upload(std::span<const std::byte> host, std::byte* device) override {
    require_alone();
    backend_->upload(host, device);
  }
  void download(const std::byte* device, std::span<std::byte> host) override {
    require_alone();
    backend_->download(device, host);
    check_uploads();
  }
  void upload_later(std::span<const std::byte> host, std::byte* device) override {
    backend_->upload(host, device);
    if (is_pinned(host.data())) uploads_.push_back({host, {host.begin(), host.end()}});
  }
  void download_rows(Rows x, std::span<float> host) override {
    require_alone();
    backend_->download_rows(x, host);
    check_uploads();
  }
  void synchronize(const std::function<void()>& poll = {}) override {
    require_alone();
    if (poll) poll();
    backend_->synchronize(poll);
    await(n_marks_);
    check_uploads();
  }

  void copy_after_operations(CopyDirection direction, std::span<const std::byte> from,
                             std::byte* to) override {
    begin(direction, from, to);
  }
  void copy_now(CopyDirection direction, std::span<const std::byte> from, std::byte* to) override {
    begin(direction, from, to);
  }
  void order_after_copies(CopyDirection direction) override {
    require_alone();
    while (!queue(direction).empty()) complete_first(direction);
  }
  bool copies_done(CopyDirection direction) override {
    if (!queue(direction).empty() && --n_polls_left_[index(direction)] <= 0)
      complete_first(direction);
    if (!queue(direction).empty()) ++n_not_done_;
    return queue(direction).empty();
  }
  // Operations have finished when they return, but are not known to have until a few questions
  // later.
  std::uint64_t mark() override {
    require_alone();
    return ++n_marks_;
  }
  bool is_reached(std::uint64_t mark) override {
    if (mark <= reached_) return true;
    if (++n_asked_ % 3 == 0) reached_ = mark;
    return mark <= reached_;
  }
  std::int64_t n_embedded() const { return n_embedded_; }  // rows
  std::int64_t n_not_done() const { return n_not_done_; }  // times that copies_done() was false

  // What is downloaded for later is rubbish until somebody has waited for it.
  void download_later(const std::byte* device, std::span<std::byte> host) override {
    require_alone();
    Download later{host, std::vector<std::byte>(host.size()), n_marks_ + 1};
    backend_->download(device, later.bytes);
    std::memset(host.data(), 0x7f, host.size());
    downloads_.push_back(std::move(later));
  }
  void await(std::uint64_t mark) override {
    require_alone();
    while (!downloads_.empty() && downloads_.front().mark <= mark) {
      std::ranges::copy(downloads_.front().bytes, downloads_.front().host.begin());
      downloads_.pop_front();
    }
  }
  bool works_behind_host() const override { return true; }
  std::unique_ptr<Repeated> make_repeated() override { return std::make_unique<Watched>(this); }
  std::int64_t n_repeated() const { return n_repeated_; }  // times that operations were

  void embed(const Token* tokens, const WeightView& table, Rows x) override {
    n_embedded_ += x.n_rows;
    backend_->embed(tokens, table, x);
  }
  void rms_norm(Rows x, const WeightView& weight, double eps, Rows y, Reader reader) override {
    backend_->rms_norm(x, weight, eps, y, reader);
  }
  void linear(Rows x, const Projection& to, Product product) override {
    backend_->linear(x, to, product);
  }
  void linear_f32(Rows x, const WeightView& w, float* y) override { backend_->linear_f32(x, w, y); }
  void draw_tokens(float* logits, std::int64_t n_values, std::span<const Draw> draws,
                   Token* tokens) override {
    backend_->draw_tokens(logits, n_values, draws, tokens);
  }
  void find_highest(const float* logits, std::int64_t n_values, Token first,
                    std::span<const Draw> draws, Highest* to) override {
    backend_->find_highest(logits, n_values, first, draws, to);
  }
  void choose_highest(const Highest* parts, std::int64_t n_rows, std::int64_t n_parts,
                      Token* tokens) override {
    backend_->choose_highest(parts, n_rows, n_parts, tokens);
  }
  void copy_columns(Rows x, std::int64_t first, Rows to) override {
    backend_->copy_columns(x, first, to);
  }
  void rope(Rows x, const HeadSplit& head, const float* cos, const float* sin) override {
    backend_->rope(x, head, cos, sin);
  }
  void attend(Rows q, std::span<const KvSegment> segments, const AttentionShape& shape,
              Product product, Partial partial) override {
    backend_->attend(q, segments, shape, product, partial);
  }
  void attend_own(Rows q, Rows k, Rows v, std::span<const OwnTokens> own,
                  const AttentionShape& shape, Partial context, Rows out) override {
    backend_->attend_own(q, k, v, own, shape, context, out);
  }
  void clear(Partial partial, const AttentionShape& shape) override {
    backend_->clear(partial, shape);
  }
  void merge(Partial into, Partial from, const AttentionShape& shape) override {
    backend_->merge(into, from, shape);
  }
  void finish(Partial partial, const AttentionShape& shape, Rows out) override {
    backend_->finish(partial, shape, out);
  }
  void add(Rows x, Rows y) override { backend_->add(x, y); }
  void scale(Rows x, float factor) override { backend_->scale(x, factor); }
  void swiglu(Rows gate, Rows up, Rows y) override { backend_->swiglu(gate, up, y); }
  void narrow(Rows x, std::int64_t head_dim, RawRows to) override {
    backend_->narrow(x, head_dim, to);
  }
  void find_not_finite(Rows x, std::int64_t first, std::int64_t* place) override {
    backend_->find_not_finite(x, first, place);
  }
  std::int64_t first_not_finite(const WeightView& w, std::int64_t first_row,
                                std::int64_t n_rows) override {
    return backend_->first_not_finite(w, first_row, n_rows);
  }
  void merge_sinks(Partial partial, const WeightView& sinks, const AttentionShape& shape) override {
    backend_->merge_sinks(partial, sinks, shape);
  }
  void scale_by_gate(Rows x, Rows by, const WeightView& gate) override {
    backend_->scale_by_gate(x, by, gate);
  }
  void choose_experts(Rows x, const Router& router, Product product,
                      const ExpertChoice& choice) override {
    backend_->choose_experts(x, router, product, choice);
  }
  void gate_experts(Rows normed, std::span<const Expert> experts, const GatedUnit& unit,
                    const ExpertChoice& choice, Product product, Rows gated) override {
    backend_->gate_experts(normed, experts, unit, choice, product, gated);
  }
  void add_gated_experts(Rows x, Rows gated, std::span<const Expert> experts,
                         const ExpertChoice& choice, Product product) override {
    backend_->add_gated_experts(x, gated, experts, choice, product);
  }
  void choose_asking_rows(const KvSegment& block, const AttentionShape& shape, std::int64_t n_rows,
                          std::int32_t* rows) override {
    backend_->choose_asking_rows(block, shape, n_rows, rows);
  }
  void gather_rows(std::span<const RawRows> from, const std::int32_t* rows, RawRows to) override {
    backend_->gather_rows(from, rows, to);
  }
  void log_sum_exp(Rows q, const KvSegment& first, const KvSegment& second,
                   const AttentionShape& shape, float* z) override {
    backend_->log_sum_exp(q, first, second, shape, z);
  }
  void score_keys(Rows q, const float* z, const KvSegment& keys, const AttentionShape& shape,
                  float* scores) override {
    backend_->score_keys(q, z, keys, shape, scores);
  }
  void choose_best(const float* scores, std::int64_t n_scores, std::int64_t n_best,
                   std::int32_t* best, float* best_scores) override {
    backend_->choose_best(scores, n_scores, n_best, best, best_scores);
  }

 private:
  static constexpr std::uint64_t kMemoryBytes = std::uint64_t{1} << 40;
  struct Copy {
    std::span<const std::byte> from;
    std::byte* to;
  };
  struct Upload {
    std::span<const std::byte> host;
    std::vector<std::byte> bytes;
  };
  struct Download {
    std::span<std::byte> host;
    std::vector<std::byte> bytes;
    std::uint64_t mark;  // the first behind it
  };
  struct Guard {
    LateBackend* backend;
    Buffer memory;                // ours to free, or
    std::byte* pinned = nullptr;  // somebody else's
  };

  class Watched : public Repeated {
   public:
    explicit Watched(LateBackend* backend) : backend_(backend) {}
    void run(const std::function<void()>& operations) override {
      ++backend_->n_repeated_;
      backend_->is_repeating_ = true;
      try {
        operations();
      } catch (...) {
        backend_->is_repeating_ = false;
        throw;
      }
      backend_->is_repeating_ = false;
    }

   private:
    LateBackend* backend_;
  };
  void require_alone() const {
    require(!is_repeating_, "repeated operations neither wait nor copy beside them");
  }

  static void require(bool condition, const char* what) {
    if (condition) return;
    std::fprintf(stderr, "late backend: not so: %s\n", what);
    std::abort();
  }
  static bool overlap(const std::byte* a, std::size_t n_a, const std::byte* b, std::size_t n_b) {
    return a < b + n_b && b < a + n_a;
  }

  // The buffer's address must be the memory's own, so that its guard is found by it.
  Buffer guarded(Buffer memory) {
    std::byte* data = memory.data();
    const std::size_t n_bytes = memory.n_bytes();
    return {data, n_bytes, let_go_memory, new Guard{this, std::move(memory)}};
  }
  static void let_go_memory(void* data, void* context) {
    const std::unique_ptr<Guard> guard(static_cast<Guard*>(context));
    guard->backend->forget(static_cast<std::byte*>(data), guard->memory.n_bytes());
  }
  static void let_go(void* data, void*) {
    const std::unique_ptr<Guard> guard(static_cast<Guard*>(data));
    guard->backend->forget(guard->pinned, guard->backend->pinned_.at(guard->pinned));
  }
  void forget(const std::byte* data, std::size_t n_bytes) {
    for (const auto& queue : copies_) {
      for (const Copy& copy : queue) {
        require(!overlap(data, n_bytes, copy.from.data(), copy.from.size()) &&
                    !overlap(data, n_bytes, copy.to, copy.from.size()),
                "memory is freed behind the copies that need it");
      }
    }
    for (const Download& download : downloads_)
      require(!overlap(data, n_bytes, download.host.data(), download.host.size()),
              "memory is freed behind the downloads that need it");
    std::erase_if(uploads_, [&](const Upload& upload) {
      return overlap(data, n_bytes, upload.host.data(), upload.host.size());
    });
    pinned_.erase(data);
  }
  bool is_pinned(const std::byte* data) const {
    auto at = pinned_.upper_bound(data);
    if (at == pinned_.begin()) return false;
    --at;
    return data < at->first + at->second;
  }

  static std::size_t index(CopyDirection direction) {
    return direction == CopyDirection::to_host ? 1 : 0;
  }
  std::deque<Copy>& queue(CopyDirection direction) { return copies_[index(direction)]; }

  void begin(CopyDirection direction, std::span<const std::byte> from, std::byte* to) {
    require_alone();
    if (from.empty()) return;
    std::memset(to, 0xa5, from.size());
    queue(direction).push_back({from, to});
    n_polls_left_[index(direction)] = 1 + static_cast<int>(++n_begun_ % 4);
  }
  void complete_first(CopyDirection direction) {
    const Copy copy = queue(direction).front();
    queue(direction).pop_front();
    std::memcpy(copy.to, copy.from.data(), copy.from.size());
    n_polls_left_[index(direction)] = 1 + static_cast<int>(++n_begun_ % 4);
  }
  void check_uploads() {
    for (const Upload& upload : uploads_) {
      require(std::memcmp(upload.host.data(), upload.bytes.data(), upload.bytes.size()) == 0,
              "pinned memory stays as it is until what was uploaded has arrived");
    }
    uploads_.clear();
  }

  std::unique_ptr<Backend> backend_;
  std::deque<Copy> copies_[2];
  int n_polls_left_[2] = {};
  std::uint64_t n_begun_ = 0;
  std::int64_t n_not_done_ = 0;
  std::int64_t n_embedded_ = 0;
  std::int64_t n_repeated_ = 0;
  bool is_repeating_ = false;
  std::uint64_t n_marks_ = 0;
  std::uint64_t reached_ = 0;
  std::uint64_t n_asked_ = 0;
  std::vector<Upload> uploads_;
  std::deque<Download> downloads_;
  std::map<const std::byte*, std::size_t> pinned_;
};

}  // namespace starattn::testing
