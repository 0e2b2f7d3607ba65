// SPDX-License-Identifier: Apache-2.0
// The part of bench --calibrate that times the operations of phase 2 by themselves, on as many rows
// as a step may have.
#pragma once

#include "calibrate/inputs.h"
#include "calibrate/timer.h"
#include "star/machine.h"

namespace starattn {

class ThinOperations {
 public:
  // Arguments outlive this.
  ThinOperations(const CalibrationInputs& inputs, const CalibrationTimer& timer)
      : inputs_(inputs), timer_(timer) {}

  // Sets thin_products, thin_attention, thin_merges and next_tokens. Collective.
  void measure(Machine& m) const;

 private:
  // Of one block. kv [8 chunks, keys and values]
  ByteTime attention(std::int64_t n, std::int64_t head_dim, const RowBuffer& q,
                     const RowBuffer& kv) const;
  // What a block costs beside its keys where a call attends to several: eight beside one.
  ByteTime merges(std::int64_t n, const RowBuffer& q, const RowBuffer& kv) const;
  // From logits to tokens on the host.
  ByteTime draws(std::int64_t n) const;

  Backend& backend() const { return inputs_.backend(); }
  std::int64_t chunk() const { return inputs_.chunk(); }

  const CalibrationInputs& inputs_;
  const CalibrationTimer& timer_;
};

}  // namespace starattn
