// SPDX-License-Identifier: Apache-2.0
// The part of bench --calibrate that times whole layers (calibrate/small_model.h), where operations
// follow each other, and models of other kinds: with FP8, and mixtures of experts.
#pragma once

#include <memory>
#include <vector>

#include "calibrate/inputs.h"
#include "calibrate/small_model.h"
#include "calibrate/timer.h"
#include "star/machine.h"

namespace starattn {

// What parts take in a layer of phase 1 over what m says that they take alone: through a short and
// a long block, which tell attention from the rest.
Machine::InLayer in_layer_through(const Machine& m, const ModelConfig& config, std::int64_t n_few,
                                  double few, std::int64_t n_many, double many);
// The same of such layers on several ranks: both parts take more by one factor than m has for a
// layer of one rank, that of a block of n_rows. It should be long: in a short one a part of the
// time goes to a layer that has not come in yet, and would be taken for products.
Machine::InLayer in_layer_like(const Machine& m, const ModelConfig& config, std::int64_t n_rows,
                               double layer);

class LayerCalibration {
 public:
  // f8_kv: the same device, keeping keys and values in FP8. self: of this rank alone. Backends and
  // the timer outlive this.
  LayerCalibration(Backend& backend, Backend& f8_kv, Communicator self,
                   const CalibrationTimer& timer)
      : backend_(backend), f8_kv_(f8_kv), self_(std::move(self)), timer_(timer) {}

  // Machine: single operations have been timed. Sets what layers take beside them, corrects what
  // differs where operations follow each other, and adds FP8 and experts.
  void measure(Machine& m);

 private:
  struct Sizes {
    std::int64_t hidden, head_dim, narrow, wide;  // narrow, wide: feed forward
  };
  const Sizes& sizes(std::size_t i) const;
  ModelConfig config_of(const Sizes& sizes, std::int64_t inter) const;
  SmallModel& model(const ModelConfig& config, Backend& backend);

  void measure_encoding(Machine& m, const ModelConfig& config, SmallModel& model);
  void correct_attention(Machine& m, const ModelConfig& config, SmallModel& model);
  void correct_next_tokens(Machine& m, const ModelConfig& config, SmallModel& model);
  std::vector<Machine::Thin> thin_layers(const Machine& m, const ModelConfig& narrow_config,
                                         const ModelConfig& wide_config, SmallModel& narrow,
                                         SmallModel& wide);
  double beside_context(const Machine& m, const ModelConfig& config, SmallModel& model,
                        std::int64_t n_rows);
  void measure_f8_weights(Machine& m, ModelConfig narrow_config, ModelConfig wide_config);
  Machine::Experts experts(const Machine& m, Fp8Config::Scales scales);
  void measure_f8_kv(Machine& m);

  SmallModel::Timer over(std::size_t n_bundles) const;
  std::int64_t chunk() const { return backend_.chunk_rows(); }
  std::int64_t n_long_rows() const;  // of a long block
  double kv_bytes(const ModelConfig& config, std::int64_t n_tokens, Dtype dtype) const;

  Backend& backend_;
  Backend& f8_kv_;
  Communicator self_;
  const CalibrationTimer& timer_;
  std::vector<std::unique_ptr<SmallModel>> models_;  // their weights stay on the device
};

}  // namespace starattn
