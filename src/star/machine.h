// SPDX-License-Identifier: Apache-2.0
// What one rank of a machine takes for each kind of operation, as `bench --calibrate` measured it
// while all ranks of the run worked. star/seconds.h makes times of plans from it; the files are in
// data/machines, and docs/planning.md says what each figure is.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "base/dtype.h"

namespace starattn {

// The time of so many bytes: start_s, and what their number adds.
struct Line {
  double start_s = 0;
  double bytes_per_s = 0;

  double seconds(double n_bytes) const { return start_s + n_bytes / bytes_per_s; }
};

struct Machine {
  // Of rows that go through phase 1 together, chunk_rows of them: y = x W^T.
  struct Product {
    std::int64_t n_in = 0;
    std::int64_t n_out = 0;
    double flops_per_s = 0;
  };
  // Of chunk_rows rows, the last of them seeing n_keys keys.
  struct Attention {
    std::int64_t head_dim = 0;
    std::int64_t n_keys = 0;
    double flops_per_s = 0;
  };
  // An operation of phase 2 on so many rows. length: of its dot products, hidden size or head_dim;
  // 0 where there are none.
  struct Thin {
    std::int64_t n_rows = 0;
    std::int64_t length = 0;
    Line line;
  };

  std::string name;  // Backend::describe
  std::string date;  // of the measurement, 2026-11-28; empty where figures were put together
  Dtype dtype = Dtype::f32;  // of activations, keys and values
  std::int64_t chunk_rows = 0;
  int n_ranks = 1;  // that worked beside each other

  // Operations a second of the product that `bench` prints: what another run is compared by.
  double reference_flops_per_s = 0;
  std::vector<Product> products;
  std::vector<Attention> attention;
  double row_bytes_per_s = 0;        // norms, RoPE, SwiGLU, sums: read and written
  double scoring_flops_per_s = 0;    // recall: asking rows against keys
  double likeness_bytes_per_s = 0;   // recall: a block's keys against their mean
  double best_of_keys_per_s = 0;     // recall: the best of so many scores
  std::vector<Thin> thin_layers;     // all of a layer but the context: bytes of its weights
  std::vector<Thin> thin_products;   // bytes of the matrix
  std::vector<Thin> thin_attention;  // bytes of keys and values of one block
  std::vector<Thin> thin_merges;     // of a further block in the same call: bytes of its partial
  std::vector<Thin> next_tokens;     // from logits to the next step: bytes of fp32 logits

  // Between two ranks, absent where it was not measured.
  std::optional<Line> message;  // of a channel: from device memory to device memory
  std::optional<Line> step;     // one layer of phase 2: rows of Q out, partials back
  std::optional<Line> peer;     // one exchange of shared weights, from device to device
  // The same between nodes, and between host and device: bytes a second of one rank.
  std::optional<Line> network;
  std::optional<double> bus_bytes_per_s;

  // Rates at other shapes: between measured sizes by the logarithm, beyond them the nearest.
  double product_rate(std::int64_t n_in, std::int64_t n_out) const;
  double attention_rate(std::int64_t head_dim, std::int64_t n_keys) const;
};

// Seconds of an operation of phase 2, between what was measured in the same way.
double seconds_of(const std::vector<Machine::Thin>& measured, std::int64_t n_rows,
                  std::int64_t length, double n_bytes);

// Throws no_input, and bad_data naming file and key.
Machine read_machine(const std::string& path);
std::string to_text(const Machine& machine);  // the file's

}  // namespace starattn
