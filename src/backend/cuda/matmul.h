// SPDX-License-Identifier: Apache-2.0
// Large products through cuBLASLt: bf16 in and out, fp32 accumulation. One algorithm a shape,
// chosen once, so that the same rows always give the same bits.
#pragma once

#include <cublasLt.h>

#include <cstdint>
#include <map>
#include <tuple>

#include "backend/cuda/device.h"

namespace starattn::cuda {

class Matmul {
 public:
  explicit Matmul(Device& device);
  ~Matmul();
  Matmul(const Matmul&) = delete;
  Matmul& operator=(const Matmul&) = delete;

  // y = x w^T + bias, or y += with `add`. x [n_rows, n_in], w [n_out, n_in], bias [n_out] or null,
  // y [n_rows, n_out]; all bf16 device memory.
  void operator()(const void* x, const void* w, const void* bias, void* y, std::int64_t n_rows,
                  std::int64_t n_out, std::int64_t n_in, bool add);
  // y = x w^T in fp32.
  void to_f32(const void* x, const void* w, float* y, std::int64_t n_rows, std::int64_t n_out,
              std::int64_t n_in);

 private:
  struct Plan;
  // n_rows, n_out, n_in, whether there is a bias, whether to add, whether y is fp32
  using Key = std::tuple<std::int64_t, std::int64_t, std::int64_t, bool, bool, bool>;
  const Plan& plan_for(const Key& key);
  void multiply(const Key& key, const void* x, const void* w, const void* bias, void* y);

  Device* device_;
  cublasLtHandle_t handle_ = nullptr;
  Buffer workspace_;
  std::map<Key, Plan> plans_;
};

}  // namespace starattn::cuda
