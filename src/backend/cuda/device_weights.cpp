// SPDX-License-Identifier: Apache-2.0
#include "backend/cuda/device_weights.h"

#include <algorithm>
#include <cstring>
#include <span>

#include "backend/cuda/pinned_memory.h"
#include "elementwise.h"

namespace starattn::cuda {
namespace {

constexpr std::size_t kStagingBytes = std::size_t{32} << 20;
constexpr std::size_t kPartBytes = std::size_t{512} << 10;  // stays in a core's cache

kernels::Float float_of(Dtype dtype) {
  switch (dtype) {
    case Dtype::f16:
      return kernels::Float::f16;
    case Dtype::f32:
      return kernels::Float::f32;
    default:
      return kernels::Float::bf16;
  }
}

}  // namespace

void DeviceWeights::load(const WeightView& host, const Backend::BytesRead& read) {
  if (!host || holder_of(host)) return;
  const auto n_values = static_cast<std::size_t>(host.n_rows * host.n_cols);
  Buffer bf16 = device_->allocate(n_values * 2);
  if (host.dtype == Dtype::bf16) {
    copy(host, bf16.data(), read);
  } else {
    const Buffer as_it_is = device_->allocate(host.n_bytes());
    copy(host, as_it_is.data(), read);
    kernels::to_bf16(as_it_is.data(), float_of(host.dtype), static_cast<std::int64_t>(n_values),
                     bf16.data(), device_->stream());
    // Weights are read before the kernel in front has ended (thin_linear.h).
    check(cudaStreamSynchronize(device_->stream()), "converting weights");
  }
  weights_[host.data] = {host, std::move(bf16)};
}

// Through two pinned buffers: one is read from the file while the other goes to the device.
void DeviceWeights::copy(const WeightView& host, std::byte* to, const Backend::BytesRead& read) {
  const std::size_t n_bytes = host.n_bytes();
  cudaEvent_t sent[2];
  for (int i = 0; i < 2; ++i) {
    if (!staging_[i].data()) staging_[i] = pinned_memory(kStagingBytes);
    check(cudaEventCreateWithFlags(&sent[i], cudaEventDisableTiming), "creating a CUDA event");
  }
  int buffer = 0;
  for (std::size_t at = 0; at < n_bytes; at += kStagingBytes, buffer ^= 1) {
    const std::size_t n = std::min(kStagingBytes, n_bytes - at);
    check(cudaEventSynchronize(sent[buffer]), "copying weights to the GPU");
    for (std::size_t part = 0; part < n; part += kPartBytes) {
      const std::span to_read(staging_[buffer].data() + part, std::min(kPartBytes, n - part));
      std::memcpy(to_read.data(), host.data + at + part, to_read.size());
      if (read) read(to_read);
    }
    check(cudaMemcpyAsync(to + at, staging_[buffer].data(), n, cudaMemcpyHostToDevice,
                          device_->stream()),
          "copying weights to the GPU");
    check(cudaEventRecord(sent[buffer], device_->stream()), "copying weights to the GPU");
  }
  check(cudaStreamSynchronize(device_->stream()), "copying weights to the GPU");
  for (cudaEvent_t event : sent) cudaEventDestroy(event);
}

const DeviceWeights::Loaded* DeviceWeights::holder_of(const WeightView& host) const {
  const auto behind = weights_.upper_bound(host.data);
  if (behind == weights_.begin()) return nullptr;
  const Loaded& loaded = std::prev(behind)->second;
  const std::byte* end = loaded.host.data + loaded.host.n_bytes();
  return host.data + host.n_bytes() <= end ? &loaded : nullptr;
}

const void* DeviceWeights::find(const WeightView& host) {
  if (!host) return nullptr;
  load(host);
  const Loaded& loaded = *holder_of(host);
  const auto n_before = static_cast<std::size_t>(host.data - loaded.host.data) / size_of(host.dtype);
  return loaded.bf16.data() + n_before * 2;
}

}  // namespace starattn::cuda
