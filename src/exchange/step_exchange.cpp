// SPDX-License-Identifier: Apache-2.0
#include "exchange/step_exchange.h"

namespace starattn {

void download(Backend& backend, Partial rows, const AttentionShape& shape,
              std::span<std::byte> host) {
  const auto laid_out = [&](std::byte* at) {
    return PartialBuffer::over(at, rows.n_rows, shape.n_heads, shape.head_dim);
  };
  const Partial as_one = laid_out(reinterpret_cast<std::byte*>(rows.o));
  if (rows.m == as_one.m && rows.l == as_one.l)
    return backend.download(reinterpret_cast<const std::byte*>(rows.o), host);
  const Partial to = laid_out(host.data());
  const auto copy = [&](const float* from, float* first, float* last) {
    backend.download(reinterpret_cast<const std::byte*>(from),
                     std::as_writable_bytes(std::span(first, last)));
  };
  copy(rows.o, to.o, to.m);
  copy(rows.m, to.m, to.l);
  copy(rows.l, to.l, to.l + (to.l - to.m));
}

}  // namespace starattn
