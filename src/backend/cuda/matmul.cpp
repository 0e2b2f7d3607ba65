// SPDX-License-Identifier: Apache-2.0
#include "backend/cuda/matmul.h"

#include "base/error.h"

namespace starattn::cuda {
namespace {

constexpr std::size_t kWorkspaceBytes = std::size_t{64} << 20;

void check_blas(cublasStatus_t status, const char* what) {
  if (status != CUBLAS_STATUS_SUCCESS) {
    fail(Exit::unfit, "cuBLASLt: {}: {}", what, cublasLtGetStatusString(status));
  }
}

template <typename T>
void set(cublasLtMatmulDesc_t description, cublasLtMatmulDescAttributes_t attribute, T value) {
  check_blas(cublasLtMatmulDescSetAttribute(description, attribute, &value, sizeof(value)),
             "describing a product");
}

template <typename T>
void prefer(cublasLtMatmulPreference_t preference, cublasLtMatmulPreferenceAttributes_t attribute,
            T value) {
  check_blas(cublasLtMatmulPreferenceSetAttribute(preference, attribute, &value, sizeof(value)),
             "choosing an algorithm");
}

// Row-major [n_rows, n_cols] is column-major [n_cols, n_rows].
cublasLtMatrixLayout_t layout(std::int64_t n_rows, std::int64_t n_cols,
                              cudaDataType_t type = CUDA_R_16BF) {
  cublasLtMatrixLayout_t result = nullptr;
  check_blas(cublasLtMatrixLayoutCreate(&result, type, static_cast<std::uint64_t>(n_cols),
                                        static_cast<std::uint64_t>(n_rows), n_cols),
             "describing a matrix");
  return result;
}

}  // namespace

// y^T [n_out, n_rows] = w^T' x^T in cuBLAS's column-major words.
struct Matmul::Plan {
  Plan() = default;
  Plan(const Plan&) = delete;
  Plan& operator=(const Plan&) = delete;
  ~Plan() {
    cublasLtMatmulDescDestroy(product);
    for (cublasLtMatrixLayout_t matrix : {w, x, y}) cublasLtMatrixLayoutDestroy(matrix);
  }

  cublasLtMatmulDesc_t product = nullptr;
  cublasLtMatrixLayout_t w = nullptr, x = nullptr, y = nullptr;
  cublasLtMatmulAlgo_t algorithm{};
};

Matmul::Matmul(Device& device) : device_(&device), workspace_(device.allocate(kWorkspaceBytes)) {
  check_blas(cublasLtCreate(&handle_), "starting");
}

Matmul::~Matmul() {
  plans_.clear();
  cublasLtDestroy(handle_);
}

const Matmul::Plan& Matmul::plan_for(const Key& key) {
  const auto found = plans_.find(key);
  if (found != plans_.end()) return found->second;
  const auto& [n_rows, n_out, n_in, has_bias, add, is_f32] = key;
  Plan& plan = plans_[key];
  check_blas(cublasLtMatmulDescCreate(&plan.product, CUBLAS_COMPUTE_32F, CUDA_R_32F),
             "describing a product");
  set(plan.product, CUBLASLT_MATMUL_DESC_TRANSA, CUBLAS_OP_T);
  if (has_bias) {
    set(plan.product, CUBLASLT_MATMUL_DESC_EPILOGUE, CUBLASLT_EPILOGUE_BIAS);
    set(plan.product, CUBLASLT_MATMUL_DESC_BIAS_DATA_TYPE, CUDA_R_16BF);
  }
  plan.w = layout(n_out, n_in);
  plan.x = layout(n_rows, n_in);
  plan.y = layout(n_rows, n_out, is_f32 ? CUDA_R_32F : CUDA_R_16BF);

  cublasLtMatmulPreference_t preference = nullptr;
  check_blas(cublasLtMatmulPreferenceCreate(&preference), "choosing an algorithm");
  prefer(preference, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, kWorkspaceBytes);
  // Parts of a sum, where an algorithm splits it, stay fp32.
  prefer(preference, CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK,
         std::uint32_t{CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE});
  cublasLtMatmulHeuristicResult_t result{};
  int n_found = 0;
  const cublasStatus_t status = cublasLtMatmulAlgoGetHeuristic(
      handle_, plan.product, plan.w, plan.x, plan.y, plan.y, preference, 1, &result, &n_found);
  cublasLtMatmulPreferenceDestroy(preference);
  check_blas(status, "choosing an algorithm");
  if (n_found == 0) {
    fail(Exit::unfit, "cuBLASLt has no algorithm for [{}, {}] x [{}, {}]^T in bf16", n_rows, n_in,
         n_out, n_in);
  }
  plan.algorithm = result.algo;
  return plan;
}

void Matmul::operator()(const void* x, const void* w, const void* bias, void* y,
                        std::int64_t n_rows, std::int64_t n_out, std::int64_t n_in, bool add) {
  multiply({n_rows, n_out, n_in, bias != nullptr, add, /*is_f32=*/false}, x, w, bias, y);
}

void Matmul::to_f32(const void* x, const void* w, float* y, std::int64_t n_rows, std::int64_t n_out,
                    std::int64_t n_in) {
  multiply({n_rows, n_out, n_in, /*has_bias=*/false, /*add=*/false, /*is_f32=*/true}, x, w, nullptr,
           y);
}

void Matmul::multiply(const Key& key, const void* x, const void* w, const void* bias, void* y) {
  if (std::get<0>(key) == 0) return;
  const Plan& plan = plan_for(key);
  if (bias) set(plan.product, CUBLASLT_MATMUL_DESC_BIAS_POINTER, bias);
  const float alpha = 1, beta = std::get<4>(key) ? 1 : 0;
  check_blas(cublasLtMatmul(handle_, plan.product, &alpha, w, plan.w, x, plan.x, &beta, y, plan.y,
                            y, plan.y, &plan.algorithm, workspace_.data(), kWorkspaceBytes,
                            device_->stream()),
             "multiplying");
}

}  // namespace starattn::cuda
