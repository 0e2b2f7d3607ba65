// SPDX-License-Identifier: Apache-2.0
// The part of bench --calibrate that times the operations of phase 1 by themselves, on as many rows
// as go through it together.
#pragma once

#include "calibrate/inputs.h"
#include "calibrate/timer.h"
#include "star/machine.h"

namespace starattn {

class ChunkOperations {
 public:
  // Arguments outlive this.
  ChunkOperations(const CalibrationInputs& inputs, const CalibrationTimer& timer)
      : inputs_(inputs), timer_(timer) {}

  // Sets products, attention, row_bytes_per_s and what recall does. Collective.
  void measure(Machine& m) const;

 private:
  void measure_products(Machine& m) const;
  void measure_attention(Machine& m) const;
  void measure_rows(Machine& m) const;
  void measure_recall(Machine& m) const;

  Backend& backend() const { return inputs_.backend(); }
  std::int64_t chunk() const { return inputs_.chunk(); }

  const CalibrationInputs& inputs_;
  const CalibrationTimer& timer_;
};

}  // namespace starattn
