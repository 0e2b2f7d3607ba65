// SPDX-License-Identifier: Apache-2.0
#include "tensor_map.h"

#include <cuda_runtime.h>

#include "cuda_check.h"

namespace starattn::kernels {
namespace {

using Encode = decltype(&cuTensorMapEncodeTiled);

// Asked from the runtime, so that nothing links against the driver's library.
Encode find_encode() {
  void* function = nullptr;
  cudaDriverEntryPointQueryResult found{};
  check_cuda(cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &function, 12000,
                                              cudaEnableDefault, &found),
             "cuTensorMapEncodeTiled");
  if (!function) throw CudaFailure("the driver has no cuTensorMapEncodeTiled: it is too old");
  return reinterpret_cast<Encode>(function);
}

struct Element {
  CUtensorMapDataType type;
  const char* name;
  CUtensorMapSwizzle swizzle;
};

// Strides in bytes.
CUtensorMap map_of(const Element& element, const void* data, const TensorSize& size,
                   std::int64_t head_stride, std::int64_t row_stride, const TensorBox& box) {
  static const Encode encode = find_encode();
  const cuuint64_t sizes[3] = {static_cast<cuuint64_t>(size.columns),
                               static_cast<cuuint64_t>(size.heads),
                               static_cast<cuuint64_t>(size.rows)};
  const cuuint64_t strides[2] = {static_cast<cuuint64_t>(head_stride),
                                 static_cast<cuuint64_t>(row_stride)};
  const cuuint32_t boxes[3] = {static_cast<cuuint32_t>(box.columns),
                               static_cast<cuuint32_t>(box.heads),
                               static_cast<cuuint32_t>(box.rows)};
  const cuuint32_t steps[3] = {1, 1, 1};
  CUtensorMap map{};
  const CUresult status =
      encode(&map, element.type, 3, const_cast<void*>(data), sizes, strides, boxes, steps,
             CU_TENSOR_MAP_INTERLEAVE_NONE, element.swizzle, CU_TENSOR_MAP_L2_PROMOTION_L2_256B,
             CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
  if (status != CUDA_SUCCESS)
    throw CudaFailure("cuTensorMapEncodeTiled refused [" + std::to_string(size.rows) + ", " +
                      std::to_string(size.heads) + ", " + std::to_string(size.columns) + "] " +
                      element.name + ", row stride " + std::to_string(row_stride) +
                      " bytes, box [" + std::to_string(box.rows) + ", " +
                      std::to_string(box.heads) + ", " + std::to_string(box.columns) + "]: error " +
                      std::to_string(status));
  return map;
}

}  // namespace

CUtensorMap tensor_map(const void* data, const TensorSize& size, std::int64_t row_stride,
                       const TensorBox& box) {
  return map_of({CU_TENSOR_MAP_DATA_TYPE_BFLOAT16, "bf16", CU_TENSOR_MAP_SWIZZLE_128B}, data, size,
                size.columns * 2, row_stride * 2, box);
}

CUtensorMap byte_map(const void* data, std::int64_t columns, std::int64_t rows,
                     std::int64_t row_stride, int box_columns, int box_rows) {
  const CUtensorMapSwizzle swizzle =
      box_columns == 128 ? CU_TENSOR_MAP_SWIZZLE_128B : CU_TENSOR_MAP_SWIZZLE_64B;
  return map_of({CU_TENSOR_MAP_DATA_TYPE_UINT8, "bytes", swizzle}, data, {columns, 1, rows},
                row_stride, row_stride, {box_columns, 1, box_rows});
}

}  // namespace starattn::kernels
