// SPDX-License-Identifier: Apache-2.0
// A few layers of random weights that work as those of a document do, through the encoder and the
// answerer: what a whole layer takes, where its operations follow each other. On this rank alone.
#pragma once

#include <functional>
#include <memory>

#include "model/decoder.h"
#include "model/weights.h"
#include "mpi/communicator.h"
#include "star/answer.h"
#include "star/encode.h"

namespace starattn {

class SmallModel {
 public:
  // Seconds of one call of an operation, as the caller times it.
  using Timer = std::function<double(const std::function<void()>&)>;

  // config.n_layers does not matter. self: of this rank alone. As long as the backend is there, so
  // must this be: a device finds weights by their addresses. Arguments must outlive it.
  SmallModel(const ModelConfig& config, Backend& backend, const Communicator& self);

  // Phase 1 of a single block.
  struct Encoding {
    double layer = 0;  // that attends
    double rest = 0;   // the last layer, which makes keys and values alone, and what is in no layer
  };
  Encoding encode(std::int64_t n_rows, const Timer& timer);

  // Steps of phase 2 on a context of so many tokens in a single block, n_rows queries at once.
  struct Step {
    double layer = 0;
    double rest = 0;
  };
  Step step(std::int64_t n_rows, std::int64_t n_keys, const Timer& timer);

 private:
  struct Depth {  // the first layers of the model
    Depth(const ModelConfig& config, std::int64_t n_layers, const ModelWeights& weights,
          Backend& backend, const Communicator& self);
    ModelConfig config;
    Decoder decoder;
    Encoder encoder;
    QueryExchange exchange;
  };
  double seconds_of_step(Depth& depth, std::int64_t n_rows, std::int64_t n_keys,
                         const Timer& timer) const;

  double n_between() const;  // layers that one depth has more than the other

  Backend* backend_;
  ModelWeights weights_;
  std::unique_ptr<Depth> few_, more_;
};

}  // namespace starattn
