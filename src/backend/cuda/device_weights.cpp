// SPDX-License-Identifier: Apache-2.0
#include "backend/cuda/device_weights.h"

#include <algorithm>
#include <cstring>
#include <span>
#include <utility>

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

kernels::ScaledMatrix scaled(const WeightView& host, const std::byte* values,
                             const std::byte* scales, std::int64_t first_row) {
  return {values,
          host.n_rows,
          host.n_cols,
          reinterpret_cast<const float*>(scales),
          host.scales.block_rows,
          host.scales.block_cols,
          first_row};
}

}  // namespace

// Others are widened: their only new rounding is that of value times scale to bf16.
bool DeviceWeights::stays_f8(const WeightView& host) {
  constexpr std::int64_t kRun = 128;  // columns that need the same scale (thin_linear.h)
  const std::int64_t block_cols = host.scales.block_cols;
  return host.dtype == Dtype::f8 && !host.is_beside_wider && host.n_cols % 16 == 0 &&
         (block_cols % kRun == 0 || block_cols >= host.n_cols);
}

Dtype DeviceWeights::dtype_there(const WeightView& host) {
  return host.is_exact ? Dtype::f32 : stays_f8(host) ? Dtype::f8 : Dtype::bf16;
}

void DeviceWeights::keep_rows(const WeightView& whole, Share rows, std::byte* to) {
  kept_[whole.data] = {whole, rows, to, {}};
}

void DeviceWeights::keep_on_host(const WeightView& whole, std::byte* to) {
  kept_[whole.data] = {whole, {0, whole.n_rows}, to, {}, /*is_on_host=*/true};
}

void DeviceWeights::load(const WeightView& host, const Backend::BytesRead& read) {
  if (!host) return;
  const auto kept = kept_.find(host.data);
  if (kept != kept_.end() && kept->second.whole.n_rows == host.n_rows) {
    Kept& part = kept->second;
    if (stays_f8(host) && !part.scales.data()) part.scales = scales_of(host);
    if (part.is_on_host) {
      if (!std::exchange(part.has_come, true)) bring_to_host(host, part.to, read);
      return;
    }
    const WeightView mine = host.rows(part.rows.first, part.rows.count);
    if (mine.n_rows == 0 || holder_of(mine)) return;
    Buffer scales = bring(mine, part.to, read);
    weights_[mine.data] = {mine, {}, part.to, std::move(scales)};
    return;
  }
  if (holder_of(host)) return;
  Buffer memory = device_->allocate(static_cast<std::size_t>(host.n_rows * host.n_cols) *
                                    size_of(dtype_there(host)));
  std::byte* at = memory.data();
  Buffer scales = bring(host, at, read);
  weights_[host.data] = {host, std::move(memory), at, std::move(scales)};
}

Buffer DeviceWeights::bring(const WeightView& host, std::byte* to, const Backend::BytesRead& read) {
  if (host.is_exact) {
    copy_as_f32(host, to, read);
    return {};
  }
  if (!stays_f8(host)) {
    copy_as_bf16(host, to, read);
    return {};
  }
  copy(host, to, read);
  return scales_of(host);
}

// What is bf16 or stays f8 goes there as it is, other numbers by way of the device.
void DeviceWeights::bring_to_host(const WeightView& host, std::byte* to,
                                  const Backend::BytesRead& read) {
  if (stays_f8(host) || host.dtype == Dtype::bf16) return copy(host, to, read);
  const std::span there(to,
                        static_cast<std::size_t>(host.n_rows * host.n_cols) * size_of(Dtype::bf16));
  const Buffer on_device = device_->allocate(there.size());
  copy_as_bf16(host, on_device.data(), read);
  device_->download(on_device.data(), there);
}

void DeviceWeights::copy_as_bf16(const WeightView& host, std::byte* to,
                                 const Backend::BytesRead& read) {
  if (host.dtype == Dtype::bf16) return copy(host, to, read);
  const Buffer as_it_is = device_->allocate(host.n_bytes());
  copy(host, as_it_is.data(), read);
  convert(host, as_it_is.data(), to);
  // Weights are read before the kernel in front has ended (thin_linear.h).
  check(cudaStreamSynchronize(device_->stream()), "converting weights");
}

// Few numbers.
void DeviceWeights::copy_as_f32(const WeightView& host, std::byte* to,
                                const Backend::BytesRead& read) {
  std::vector<std::byte> bytes(host.data, host.data + host.n_bytes());
  if (read) read(bytes);
  const WeightView there{bytes.data(), host.dtype, host.n_rows, host.n_cols};
  std::vector<float> numbers;
  for (std::int64_t i = 0; i < host.n_rows * host.n_cols; ++i)
    numbers.push_back(value_at(there, i));
  device_->upload(std::as_bytes(std::span(numbers)), to);
}

void DeviceWeights::upload_as_bf16(const WeightView& rows, std::byte* to) {
  const WeightView host = as_kept_on_host(rows);
  const std::span bytes(host.data, host.n_bytes());
  if (host.dtype == Dtype::bf16) return device_->upload(bytes, to);
  const Buffer as_it_is = device_->allocate(bytes.size());
  device_->upload(bytes, as_it_is.data());
  convert(host, as_it_is.data(), to);
}

// What is made of a file's bytes may be nowhere else any more.
WeightView DeviceWeights::as_kept_on_host(const WeightView& rows) const {
  const auto behind = kept_.upper_bound(rows.data);
  if (behind == kept_.begin()) return rows;
  const Kept& kept = std::prev(behind)->second;
  if (!kept.has_come || rows.data + rows.n_bytes() > kept.whole.data + kept.whole.n_bytes())
    return rows;
  WeightView there = kept.whole;
  there.data = kept.to;
  if (!stays_f8(kept.whole)) {
    there.dtype = Dtype::bf16;
    there.scales = {};
  }
  const auto first = static_cast<std::int64_t>(
      static_cast<std::size_t>(rows.data - kept.whole.data) / size_of(kept.whole.dtype));
  return there.rows(first / rows.n_cols, rows.n_rows);
}

void DeviceWeights::convert(const WeightView& host, const std::byte* as_it_is, std::byte* bf16) {
  if (host.dtype == Dtype::f8) return widen(host, as_it_is, bf16);
  kernels::to_bf16(as_it_is, float_of(host.dtype), host.n_rows * host.n_cols, bf16,
                   device_->stream());
}

void DeviceWeights::widen(const WeightView& host, const std::byte* f8, std::byte* bf16) {
  const Buffer scales = scales_of(host);
  kernels::f8_to_bf16(
      scaled(host, f8, scales.data(), host.scales.first_row % host.scales.block_rows), bf16,
      device_->stream());
}

// From the first row of blocks on that the matrix has a part of.
Buffer DeviceWeights::scales_of(const WeightView& host) {
  const float* first = host.scales_of_row(0);
  const float* end = host.scales_of_row(host.n_rows - 1) + host.n_scales_of_row();
  const auto bytes = std::as_bytes(std::span(first, end));
  Buffer there = device_->allocate(bytes.size());
  device_->upload(bytes, there.data());
  return there;
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
    check(
        cudaMemcpyAsync(to + at, staging_[buffer].data(), n, cudaMemcpyDefault, device_->stream()),
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
  STARATTN_CHECK(!host.is_exact);
  if (is_lent(host)) return lent_.at(host.data);
  load(host);
  const Loaded* loaded = holder_of(host);
  STARATTN_CHECK(loaded);  // else a matrix that is kept in part and not lent
  const auto n_before =
      static_cast<std::size_t>(host.data - loaded->host.data) / size_of(host.dtype);
  STARATTN_CHECK(!loaded->scales.data());
  return loaded->values + n_before * size_of(Dtype::bf16);
}

const float* DeviceWeights::find_exact(const WeightView& host) {
  if (!host) return nullptr;
  STARATTN_CHECK(host.is_exact);
  load(host);
  return reinterpret_cast<const float*>(holder_of(host)->values);
}

bool DeviceWeights::is_f8(const WeightView& host) {
  if (!stays_f8(host) || is_lent(host)) return stays_f8(host);
  load(host);
  const Loaded* loaded = holder_of(host);
  STARATTN_CHECK(loaded);  // as in find()
  return loaded->scales.data() != nullptr;
}

kernels::ScaledMatrix DeviceWeights::find_f8(const WeightView& host) {
  // Rows before the view, from the first row of blocks that is there.
  const auto rows_before = [&](const WeightView& there) {
    const WeightScales& scales = there.scales;
    return host.scales.first_row - scales.first_row / scales.block_rows * scales.block_rows;
  };
  if (is_lent(host)) {
    const Kept& kept = kept_.at(host.data);
    return scaled(host, lent_.at(host.data), kept.scales.data(), rows_before(kept.whole));
  }
  const Loaded& loaded = *holder_of(host);
  return scaled(host, loaded.values + (host.data - loaded.host.data), loaded.scales.data(),
                rows_before(loaded.host));
}

DeviceWeights::Parts DeviceWeights::find_parts(const WeightView& host) {
  const auto parts = parts_.find(host.data);
  if (parts != parts_.end()) return parts->second;
  return {{0, find(host)}};
}

}  // namespace starattn::cuda
