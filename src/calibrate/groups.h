// SPDX-License-Identifier: Apache-2.0
// The part of bench --calibrate that times what ranks of a node do together: whole layers of a few
// random ones, whose weights they share out, through the encoder and the answerer as for a
// document.
#pragma once

#include <optional>
#include <vector>

#include "run/loaded_model.h"
#include "star/machine.h"

namespace starattn {

// What such layers are: on a GPU of the width of an 8B model.
struct GroupSizes {
  ModelConfig narrow, wide;            // the same but for feed forward and vocabulary
  std::int64_t n_few = 0, n_many = 0;  // tokens of a rank
  std::vector<std::int64_t> n_rows;    // of steps
  // More than the two layers for which a device that keeps a part of each has room: the rest of
  // every layer comes from the other ranks, as in a model of many.
  std::int64_t few_layers = 4, more_layers = 8;
};

// Sets m.groups, of 2, 4, ... ranks as far as they share the run's out without a rest. Nothing
// where devices do not reach each other's memory. Machine: all else has been measured. Collective.
void measure_groups(Machine& m, const DeviceOptions& options, const Ranks& ranks);

// Of all ranks of the group; nothing where they do not share out the weights. Collective over it.
std::optional<Machine::Group> measure_group(const Machine& m, const Options& options,
                                            const Ranks& ranks, const GroupSizes& sizes);

}  // namespace starattn
