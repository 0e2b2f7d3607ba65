// SPDX-License-Identifier: Apache-2.0
#include "backend/tensors.h"

#include "backend/backend.h"

namespace starattn {

RowBuffer::RowBuffer(Backend& backend, std::int64_t max_rows, std::int64_t width)
    : max_rows_(max_rows),
      width_(width),
      row_bytes_(static_cast<std::size_t>(width) * size_of(backend.activation_dtype())),
      memory_(backend.allocate(static_cast<std::size_t>(max_rows) * row_bytes_)) {}

PartialBuffer::PartialBuffer(Backend& backend, std::int64_t n_rows, const AttentionShape& shape)
    : n_rows_(n_rows),
      n_heads_(shape.n_heads),
      head_dim_(shape.head_dim),
      memory_(backend.allocate(n_bytes(n_rows, shape))) {}

}  // namespace starattn
