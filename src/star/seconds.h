// SPDX-License-Identifier: Apache-2.0
// Seconds of one rank's operations, from its model's sizes and a machine's rates. Nothing here
// waits for another rank: src/simulate puts these pieces together in the order in which ranks work.
//
// A product takes its operations (2 a weight and row) over the rate of its shape; attention its
// operations (4 a pair and number of a head) over the rate at so many keys; what goes over rows
// alone, and every operation of phase 2, its bytes over a bandwidth. In a layer of phase 1 each
// takes in_layer times as long. docs/planning.md has the formulas in words.
#pragma once

#include "model/config.h"
#include "star/machine.h"

namespace starattn {

// Experts of a layer that n rows choose together, where each row takes any with the same chance.
double n_chosen_experts(const MixtureConfig& mixture, std::int64_t n_rows);

class Seconds {
 public:
  // n_shares: ranks that share the weights. Throws Error(unfit) for a mixture of experts and for
  // FP8 weights where the machine file has no rates of them.
  Seconds(const ModelConfig& config, const Machine& machine, int n_shares = 1);

  // --- phase 1 -----------------------------------------------------------------------------------
  double start_block(std::int64_t n_rows) const;  // its tokens' rows, positions and memory

  // One layer, n_rows of one block.
  double project(std::int64_t n_rows) const;     // norm, products to q, k and v, RoPE
  double project_kv(std::int64_t n_rows) const;  // the last layer
  double output(std::int64_t n_rows) const;      // output projection and norm
  // Both and the feed forward.
  double feed_forward(std::int64_t n_rows, bool is_mixture) const;
  // Of the rows to n_before keys, and causally to each other; of each to the last `window` alone.
  double attend(std::int64_t n_rows, std::int64_t n_before, std::int64_t window = kNoWindow) const;
  // Of the rows to n_keys keys, merged into what they have already. n_between: tokens between the
  // last of these keys and the rows, which the window spans, too.
  double attend_and_merge(std::int64_t n_rows, std::int64_t n_keys, std::int64_t n_between = 0,
                          std::int64_t window = kNoWindow) const;
  // Rows that attend to one block after another: their partials before the first and behind the
  // last, and causal attention among themselves, merged.
  double attend_own_and_merge(std::int64_t n_rows, std::int64_t window = kNoWindow) const;

  // Recall (docs/recall.md): which rows ask; what a rank's n_keys are worth to n_asking rows, and
  // the best of them; keys and values brought together.
  double ask(std::int64_t n_rows, std::int64_t n_asking, std::int64_t n_anchor) const;
  double score(std::int64_t n_asking, std::int64_t n_keys) const;
  double gather(std::int64_t n_tokens) const;

  // --- phase 2, one layer, n_rows of a step ------------------------------------------------------
  // What the query rank does beside the attention to the context; with shared weights that of each
  // of the ranks, and what they exchange where groups of them were measured.
  double step_layer(std::int64_t n_rows, bool is_mixture) const;
  // Attention to n_keys keys in n_blocks blocks; from host memory: they come over the bus.
  double step_attention(std::int64_t n_rows, std::int64_t n_blocks, std::int64_t n_keys,
                        bool from_host = false) const;
  // At a step's end: the next tokens of so many rows.
  double next_tokens(std::int64_t n_rows) const;
  // Of so many partials into another.
  double merge_step(std::int64_t n_rows, std::int64_t n_partials) const;

  // --- bytes that travel -------------------------------------------------------------------------
  double kv_bytes(std::int64_t n_tokens) const;  // of one layer
  double q_bytes(std::int64_t n_rows) const;
  double partial_bytes(std::int64_t n_rows) const;
  double ask_bytes(std::int64_t n_asking) const;  // q, and a number a row and head

  const Machine& machine() const { return *machine_; }

 private:
  double product(double n_rows, std::int64_t n_in, std::int64_t n_out) const;
  double rows(double n_bytes) const { return n_bytes / machine_->row_bytes_per_s; }
  double attention(std::int64_t n_rows, double n_pairs, std::int64_t n_keys) const;
  const Machine::Experts& experts() const;  // as the model's weights are
  double add_bytes() const;                 // of a residual's number when a sum is added to it
  // f(rows, first row) over the chunks in which rows go through a layer.
  template <typename F>
  double over_chunks(std::int64_t n_rows, const F& f) const;

  const ModelConfig* config_;
  const Machine* machine_;
  int n_shares_;
  const Machine::Group* group_;  // that shares the weights; null: none was measured, or none does
  Machine::InLayer in_layer_;
  double element_;  // bytes of an activation
  double weight_;   // bytes of a weight, of a layer's matrices in phase 2
  std::int64_t hidden_, inter_, q_, kv_;
};

}  // namespace starattn
