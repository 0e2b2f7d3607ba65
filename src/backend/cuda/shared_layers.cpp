// SPDX-License-Identifier: Apache-2.0
// Each rank's rows lie in one piece of GPU memory that the others map (CUDA IPC), in the order of
// the model, so that every rank knows where another's are. Fetching is plain copies, which ask
// nothing of the device that is read from. Rows that are FP8 travel so; their scales, which are
// few, every rank has.
#include "backend/cuda/shared_layers.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "backend/cuda/peer_memory.h"
#include "base/error.h"
#include "base/text.h"

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

class IpcLayers : public SharedLayers {
 public:
  IpcLayers(Device& device, DeviceWeights& weights, SharedModel model, int rank)
      : device_(&device), weights_(&weights), model_(std::move(model)), rank_(rank) {
    const std::size_t n_bytes = lay_out(rank, [](const SharedMatrix&, std::size_t) {});
    own_ = PeerMemory(n_bytes, "this GPU's share of the weights");
    device_->count_outside_pool(n_bytes);
    lay_out(rank, [&](const SharedMatrix& matrix, std::size_t at) {
      weights_->keep_rows(matrix.whole, matrix.rows[index(rank_)], own_.data() + at);
    });
    std::size_t largest = 0;
    for (const auto& layer : model_.layers) {
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
  ~IpcLayers() override {
    cudaStreamSynchronize(stream_);
    cudaStreamSynchronize(device_->stream());
    cudaStreamDestroy(stream_);
    for (const Slot& slot : slots_) cudaEventDestroy(slot.arrived);
    cudaEventDestroy(is_free_);
    weights_->lend({});
  }

  PeerAddress address() const override { return own_.address(); }

  void connect(std::span<const PeerAddress> all) override {
    for (std::size_t rank = 0; rank < all.size(); ++rank) {
      const bool is_mine = rank == index(rank_);
      others_.push_back(is_mine ? PeerView() : PeerView(all[rank], own_.address()));
      memory_of_.push_back(is_mine ? own_.data() : others_.back().data());
    }
    for (std::size_t rank = 0; rank < all.size(); ++rank) {
      lay_out(static_cast<int>(rank), [&](const SharedMatrix& matrix, std::size_t at) {
        place_[matrix.whole.data].push_back(memory_of_[rank] + at);
      });
    }
    DeviceWeights::Parts embedding;
    for (std::size_t rank = 0; rank < all.size(); ++rank)
      embedding.emplace_back(model_.embedding.rows[rank].first,
                             place_.at(model_.embedding.whole.data)[rank]);
    weights_->set_parts(model_.embedding.whole, std::move(embedding));
  }

  void use(std::int64_t layer) override {
    if (layer == current_) return;
    int slot = slots_[0].layer == layer ? 0 : slots_[1].layer == layer ? 1 : -1;
    if (slot < 0) {
      slot = current_ >= 0 && slots_[0].layer == current_ ? 1 : 0;
      fetch(layer, slot);
    }
    check(cudaStreamWaitEvent(device_->stream(), slots_[slot].arrived), "waiting for a layer");
    current_ = layer;
    weights_->lend(slots_[slot].at);
    if (layer + 1 < std::ssize(model_.layers)) fetch(layer + 1, 1 - slot);
  }

 private:
  struct Slot {
    Buffer memory;
    std::int64_t layer = -1;
    cudaEvent_t arrived = nullptr;
    std::map<const std::byte*, const std::byte*> at;  // on the device, by the whole matrix's data
  };
  static std::size_t index(int rank) { return static_cast<std::size_t>(rank); }

  // Calls place(matrix, offset) for each of a rank's rows; returns the bytes of all.
  template <typename Place>
  std::size_t lay_out(int rank, const Place& place) const {
    std::size_t at = 0;
    const auto add = [&](const SharedMatrix& matrix) {
      place(matrix, at);
      at += rows_bytes(matrix, matrix.rows[index(rank)].count);
    };
    for (const auto& layer : model_.layers)
      for (const SharedMatrix& matrix : layer) add(matrix);
    add(model_.lm_head);
    if (model_.embedding.whole.data != model_.lm_head.whole.data) add(model_.embedding);
    return at;
  }

  // Behind the operations so far, which may read what the slot holds.
  void fetch(std::int64_t layer, int number) {
    Slot& slot = slots_[number];
    check(cudaEventRecord(is_free_, device_->stream()), "fetching a layer");
    check(cudaStreamWaitEvent(stream_, is_free_), "fetching a layer");
    slot.layer = layer;
    slot.at.clear();
    std::byte* to = slot.memory.data();
    const std::vector<SharedMatrix>& layer_of = model_.layers[static_cast<std::size_t>(layer)];
    for (auto next = layer_of.begin(); next != layer_of.end();) {
      const auto first = next;
      while (next != layer_of.end() && are_alike(*first, *next)) {
        slot.at[next->whole.data] =
            to + static_cast<std::size_t>(next - first) * rows_bytes(*first, first->whole.n_rows);
        ++next;
      }
      fetch_alike({first, next}, to);
      to += static_cast<std::size_t>(next - first) * rows_bytes(*first, first->whole.n_rows);
    }
    check(cudaEventRecord(slot.arrived, stream_), "fetching a layer");
  }

  // Matrices that are alike and lie one behind the other, on every rank as in the slot.
  void fetch_alike(std::span<const SharedMatrix> matrices, std::byte* to) {
    const SharedMatrix& one = matrices.front();
    const std::size_t a_row = row_bytes(one);
    std::int64_t n_done = 0;
    for (std::size_t rank = 0; rank < one.rows.size(); ++rank) {
      const Share rows = one.rows[rank];
      if (rows.end() <= n_done) continue;  // another rank has the same
      STARATTN_CHECK(rows.first == n_done);
      check(cudaMemcpy2DAsync(to + static_cast<std::size_t>(rows.first) * a_row,
                              rows_bytes(one, one.whole.n_rows), place_.at(one.whole.data)[rank],
                              rows_bytes(one, rows.count),
                              static_cast<std::size_t>(rows.count) * a_row, matrices.size(),
                              cudaMemcpyDeviceToDevice, stream_),
            "fetching a layer");
      n_done = rows.end();
    }
    STARATTN_CHECK(n_done == one.whole.n_rows);
  }

  Device* device_;
  DeviceWeights* weights_;
  SharedModel model_;
  int rank_;
  PeerMemory own_;
  std::vector<PeerView> others_;
  std::vector<std::byte*> memory_of_;                          // by rank
  std::map<const std::byte*, std::vector<std::byte*>> place_;  // of a matrix's rows, by rank
  Slot slots_[2];
  std::int64_t current_ = -1;
  cudaEvent_t is_free_ = nullptr;
  cudaStream_t stream_ = nullptr;
};

}  // namespace

std::unique_ptr<SharedLayers> share_layers(Device& device, DeviceWeights& weights,
                                           SharedModel model, int rank) {
  return std::make_unique<IpcLayers>(device, weights, std::move(model), rank);
}

}  // namespace starattn::cuda
