// SPDX-License-Identifier: Apache-2.0
// Each rank's rows lie in one piece of GPU memory that the others map (CUDA IPC), in the order of
// the model, so that every rank knows where another's are; or all rows lie in host memory. Fetching
// is plain copies, which ask nothing of the device that is read from. Rows that are FP8 travel so;
// their scales, which are few, every rank has.
#include "backend/cuda/shared_layers.h"

#include <algorithm>
#include <map>
#include <optional>
#include <utility>

#include "backend/cuda/peer_memory.h"
#include "backend/cuda/pinned_memory.h"
#include "base/error.h"

namespace starattn::cuda {
namespace {

constexpr std::size_t kAlignment = 256;

std::size_t row_bytes(const SharedMatrix& matrix) {
  const Dtype dtype = DeviceWeights::stays_f8(matrix.whole) ? Dtype::f8 : Dtype::bf16;
  return static_cast<std::size_t>(matrix.whole.n_cols) * size_of(dtype);
}

std::size_t rows_bytes(const SharedMatrix& matrix, std::int64_t n_rows) {
  const std::size_t n_bytes = static_cast<std::size_t>(n_rows) * row_bytes(matrix);
  return (n_bytes + kAlignment - 1) / kAlignment * kAlignment;
}

// Whether matrices and shares of both have the same sizes, so that one copy fetches rows of both.
bool are_alike(const SharedMatrix& a, const SharedMatrix& b) {
  return a.whole.n_rows == b.whole.n_rows && row_bytes(a) == row_bytes(b) &&
         std::ranges::equal(a.rows, b.rows, [](const Share& x, const Share& y) {
           return x.first == y.first && x.count == y.count;
         });
}

// Calls place(matrix, offset) for each of a rank's rows; returns the bytes of all.
template <typename Place>
std::size_t lay_out(const SharedModel& model, std::size_t rank, const Place& place) {
  std::size_t at = 0;
  const auto add = [&](const SharedMatrix& matrix) {
    if (!matrix.whole) return;
    place(matrix, at);
    at += rows_bytes(matrix, matrix.rows[rank].count);
  };
  for (const auto& layer : model.layers)
    for (const SharedMatrix& matrix : layer) add(matrix);
  add(model.lm_head);
  if (model.embedding.whole.data != model.lm_head.whole.data) add(model.embedding);
  return at;
}

using Places = std::map<const std::byte*, std::vector<std::byte*>>;  // of a matrix's rows, by rank

// Two layers of the device's memory, and what brings others there.
class LayerSlots {
 public:
  // goes_round: the first layer comes behind the last.
  LayerSlots(Device& device, DeviceWeights& weights, const SharedModel& model, bool goes_round)
      : device_(&device), weights_(&weights), model_(&model), goes_round_(goes_round) {
    std::size_t largest = 0;
    for (const auto& layer : model.layers) {
      std::size_t n = 0;
      for (const SharedMatrix& matrix : layer) n += rows_bytes(matrix, matrix.whole.n_rows);
      largest = std::max(largest, n);
    }
    for (Slot& slot : slots_) {
      slot.memory = device_->allocate(largest);
      check(cudaEventCreateWithFlags(&slot.arrived, cudaEventDisableTiming),
            "creating a CUDA event");
    }
    check(cudaEventCreateWithFlags(&is_free_, cudaEventDisableTiming), "creating a CUDA event");
    check(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking), "creating a CUDA stream");
  }
  LayerSlots(const LayerSlots&) = delete;
  LayerSlots& operator=(const LayerSlots&) = delete;
  ~LayerSlots() {
    cudaStreamSynchronize(stream_);
    cudaStreamSynchronize(device_->stream());
    cudaStreamDestroy(stream_);
    for (const Slot& slot : slots_) cudaEventDestroy(slot.arrived);
    cudaEventDestroy(is_free_);
    weights_->lend({});
  }

  // places: where rows are.
  void use(std::int64_t layer, const Places& places) {
    if (layer == current_) return;
    int slot = slots_[0].layer == layer ? 0 : slots_[1].layer == layer ? 1 : -1;
    if (slot < 0) {
      slot = current_ >= 0 && slots_[0].layer == current_ ? 1 : 0;
      fetch(layer, slot, places);
    }
    check(cudaStreamWaitEvent(device_->stream(), slots_[slot].arrived), "waiting for a layer");
    current_ = layer;
    weights_->lend(slots_[slot].at);
    std::int64_t next = layer + 1;
    if (goes_round_) next %= std::ssize(model_->layers);
    const bool is_there = next == layer || slots_[1 - slot].layer == next;
    if (next < std::ssize(model_->layers) && !is_there) fetch(next, 1 - slot, places);
  }

 private:
  struct Slot {
    Buffer memory;
    std::int64_t layer = -1;
    cudaEvent_t arrived = nullptr;
    std::map<const std::byte*, const std::byte*> at;  // on the device, by the whole matrix's data
  };

  // Behind the operations so far, which may read what the slot holds.
  void fetch(std::int64_t layer, int number, const Places& places) {
    Slot& slot = slots_[number];
    check(cudaEventRecord(is_free_, device_->stream()), "fetching a layer");
    check(cudaStreamWaitEvent(stream_, is_free_), "fetching a layer");
    slot.layer = layer;
    slot.at.clear();
    std::byte* to = slot.memory.data();
    const std::vector<SharedMatrix>& layer_of = model_->layers[static_cast<std::size_t>(layer)];
    for (auto next = layer_of.begin(); next != layer_of.end();) {
      const auto first = next;
      while (next != layer_of.end() && are_alike(*first, *next)) {
        slot.at[next->whole.data] =
            to + static_cast<std::size_t>(next - first) * rows_bytes(*first, first->whole.n_rows);
        ++next;
      }
      fetch_alike({first, next}, places.at(first->whole.data), to);
      to += static_cast<std::size_t>(next - first) * rows_bytes(*first, first->whole.n_rows);
    }
    check(cudaEventRecord(slot.arrived, stream_), "fetching a layer");
  }

  // Matrices that are alike and lie one behind the other, on every rank as in the slot.
  void fetch_alike(std::span<const SharedMatrix> matrices, const std::vector<std::byte*>& from,
                   std::byte* to) {
    const SharedMatrix& one = matrices.front();
    const std::size_t a_row = row_bytes(one);
    std::int64_t n_done = 0;
    for (std::size_t rank = 0; rank < one.rows.size(); ++rank) {
      const Share rows = one.rows[rank];
      if (rows.end() <= n_done) continue;  // another rank has the same
      STARATTN_CHECK(rows.first == n_done);
      check(cudaMemcpy2DAsync(to + static_cast<std::size_t>(rows.first) * a_row,
                              rows_bytes(one, one.whole.n_rows), from[rank],
                              rows_bytes(one, rows.count),
                              static_cast<std::size_t>(rows.count) * a_row, matrices.size(),
                              cudaMemcpyDefault, stream_),
            "fetching a layer");
      n_done = rows.end();
    }
    STARATTN_CHECK(n_done == one.whole.n_rows);
  }

  Device* device_;
  DeviceWeights* weights_;
  const SharedModel* model_;
  bool goes_round_;
  Slot slots_[2];
  std::int64_t current_ = -1;
  cudaEvent_t is_free_ = nullptr;
  cudaStream_t stream_ = nullptr;
};

class IpcLayers : public SharedLayers {
 public:
  IpcLayers(Device& device, DeviceWeights& weights, SharedModel model, int rank)
      : weights_(&weights), model_(std::move(model)), rank_(static_cast<std::size_t>(rank)) {
    const std::size_t n_bytes = lay_out(model_, rank_, [](const SharedMatrix&, std::size_t) {});
    own_ = PeerMemory(n_bytes, "this GPU's share of the weights");
    device.count_outside_pool(n_bytes);
    lay_out(model_, rank_, [&](const SharedMatrix& matrix, std::size_t at) {
      weights_->keep_rows(matrix.whole, matrix.rows[rank_], own_.data() + at);
    });
    slots_.emplace(device, weights, model_, /*goes_round=*/false);
  }

  PeerAddress address() const override { return own_.address(); }

  void connect(std::span<const PeerAddress> all) override {
    DeviceWeights::Parts embedding;
    for (std::size_t rank = 0; rank < all.size(); ++rank) {
      const bool is_mine = rank == rank_;
      others_.push_back(is_mine ? PeerView() : PeerView(all[rank], own_.address()));
      std::byte* memory = is_mine ? own_.data() : others_.back().data();
      lay_out(model_, rank, [&](const SharedMatrix& matrix, std::size_t at) {
        places_[matrix.whole.data].push_back(memory + at);
      });
      embedding.emplace_back(model_.embedding.rows[rank].first,
                             places_.at(model_.embedding.whole.data)[rank]);
    }
    weights_->set_parts(model_.embedding.whole, std::move(embedding));
  }

  void use(std::int64_t layer) override { slots_->use(layer, places_); }

 private:
  DeviceWeights* weights_;
  SharedModel model_;
  std::size_t rank_;
  PeerMemory own_;
  std::vector<PeerView> others_;
  Places places_;
  std::optional<LayerSlots> slots_;
};

class HostLayers : public FetchedLayers {
 public:
  HostLayers(Device& device, DeviceWeights& weights, const Backend::LayerMatrices& layers) {
    for (const std::vector<WeightView>& layer : layers) {
      auto& matrices = model_.layers.emplace_back();
      for (const WeightView& w : layer) matrices.push_back({w, {{0, w.n_rows}}});
    }
    memory_ = pinned_memory(lay_out(model_, 0, [](const SharedMatrix&, std::size_t) {}));
    lay_out(model_, 0, [&](const SharedMatrix& matrix, std::size_t at) {
      places_[matrix.whole.data].push_back(memory_.data() + at);
      weights.keep_on_host(matrix.whole, memory_.data() + at);
    });
    slots_.emplace(device, weights, model_, /*goes_round=*/true);
  }

  void use(std::int64_t layer) override { slots_->use(layer, places_); }

 private:
  SharedModel model_;
  Buffer memory_;
  Places places_;
  std::optional<LayerSlots> slots_;
};

}  // namespace

std::unique_ptr<SharedLayers> share_layers(Device& device, DeviceWeights& weights,
                                           SharedModel model, int rank) {
  return std::make_unique<IpcLayers>(device, weights, std::move(model), rank);
}

std::unique_ptr<FetchedLayers> stream_layers(Device& device, DeviceWeights& weights,
                                             const Backend::LayerMatrices& layers) {
  return std::make_unique<HostLayers>(device, weights, layers);
}

}  // namespace starattn::cuda
