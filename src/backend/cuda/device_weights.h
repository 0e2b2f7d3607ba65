// SPDX-License-Identifier: Apache-2.0
// The model's weights in GPU memory, each tensor once: as bf16, but FP8 matrices as they are where
// the thin products take them, and as fp32 where nothing may be rounded. Rows of a tensor that is
// there are found in it. Of matrices that devices share out only this one's rows are kept, in bf16,
// and a layer's are whole while they are lent (shared_layers.h).
#pragma once

#include <map>
#include <utility>
#include <vector>

#include "backend/backend.h"
#include "backend/cuda/device.h"
#include "backend/tensors.h"
#include "elementwise.h"

namespace starattn::cuda {

class DeviceWeights {
 public:
  explicit DeviceWeights(Device& device) : device_(&device) {}

  // load() of the whole matrix brings these rows to `to`, which outlives this, and all its scales
  // to memory of its own.
  void keep_rows(const WeightView& whole, Share rows, std::byte* to);

  // load() of the whole matrix brings it to this host memory, which is pinned and outlives this,
  // and its scales to the device. Operations find it where it is lent.
  void keep_on_host(const WeightView& whole, std::byte* to);

  // read: gets the bytes as they went to the device, unless they are there already.
  void load(const WeightView& host, const Backend::BytesRead& read = {});
  // bf16; null for an absent weight. Loads what is missing. Not of what is exact.
  const void* find(const WeightView& host);
  // Whether a matrix, which is loaded if it is missing, is there as FP8; and where.
  bool is_f8(const WeightView& host);
  kernels::ScaledMatrix find_f8(const WeightView& host);
  const float* find_exact(const WeightView& host);  // fp32, alike
  // Whether load() leaves it so; and as what it lies there.
  static bool stays_f8(const WeightView& host);
  static Dtype dtype_there(const WeightView& host);
  // The same of a matrix whose rows lie in several places: the first row of each, and where.
  using Parts = std::vector<std::pair<std::int64_t, const void*>>;
  Parts find_parts(const WeightView& host);
  void set_parts(const WeightView& whole, Parts parts) { parts_[whole.data] = std::move(parts); }
  // Whole matrices that are kept in part: found there from now on, in place of those lent before.
  void lend(std::map<const std::byte*, const std::byte*> at) { lent_ = std::move(at); }

  // Whether it is a whole matrix that was lent, which lies elsewhere once others are.
  bool is_lent(const WeightView& host) const {
    return lent_.contains(host.data) && kept_.at(host.data).whole.n_rows == host.n_rows;
  }

  bool is_here(const WeightView& host) const { return holder_of(host) != nullptr; }

  // Host memory, in its dtype, as bf16 to the device. In stream order; the host's may be used again
  // at once.
  void upload_as_bf16(const WeightView& host, std::byte* to);

 private:
  struct Loaded {
    WeightView host;
    Buffer memory;                // nothing where the memory is another's
    std::byte* values = nullptr;  // bf16, or f8 where there are
    Buffer scales;
  };
  struct Kept {
    WeightView whole;
    Share rows;
    std::byte* to = nullptr;
    Buffer scales;  // of the whole matrix, where it stays f8
    bool is_on_host = false;
    bool has_come = false;  // there
  };
  WeightView as_kept_on_host(const WeightView& rows) const;  // or as it is
  const Loaded* holder_of(const WeightView& host) const;     // null: not there
  // To `to`, which has room for it as stays_f8() says; its scales, if it has any then.
  Buffer bring(const WeightView& host, std::byte* to, const Backend::BytesRead& read);
  void bring_to_host(const WeightView& host, std::byte* to, const Backend::BytesRead& read);
  void copy_as_bf16(const WeightView& host, std::byte* to, const Backend::BytesRead& read);
  void copy_as_f32(const WeightView& host, std::byte* to, const Backend::BytesRead& read);
  void copy(const WeightView& host, std::byte* to, const Backend::BytesRead& read);
  void convert(const WeightView& host, const std::byte* as_it_is, std::byte* bf16);
  void widen(const WeightView& host, const std::byte* f8, std::byte* bf16);
  Buffer scales_of(const WeightView& host);

  Device* device_;
  std::map<const std::byte*, Loaded> weights_;         // by host address
  std::map<const std::byte*, Kept> kept_;              // by the whole matrix's
  std::map<const std::byte*, const std::byte*> lent_;  // the same, on the device
  std::map<const std::byte*, Parts> parts_;
  Buffer staging_[2];  // pinned, filled in turns
};

}  // namespace starattn::cuda
