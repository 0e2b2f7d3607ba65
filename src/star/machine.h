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
struct ByteTime {
  double start_s = 0;
  double bytes_per_s = 0;

  double seconds(double n_bytes) const { return start_s + n_bytes / bytes_per_s; }
};

struct Machine {
  // What parts of a whole layer of phase 1 take over what they take by themselves, where each runs
  // again and again: in a layer they wait for each other, and share a power limit.
  struct InLayer {
    std::int64_t hidden_size = 0;
    double products = 1;  // all but attention
    double attention = 1;
  };
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
    ByteTime line;
  };
  // A mixture's experts, all of them and the router.
  struct Expert {
    std::int64_t expert_size = 0;
    double flops_per_s = 0;  // of chunk_rows rows in phase 1
  };
  struct Experts {
    std::vector<Expert> products;
    std::vector<Thin> thin;  // a layer's in a step: bytes of the experts that some row has chosen
  };
  // A layer with FP8 weights, which are a byte each.
  struct F8Weights {
    std::vector<InLayer> in_layer;  // over parts with weights in the machine's dtype
    std::vector<Thin> thin_layers;
    std::optional<Experts> experts;
  };
  // A layer with keys and values in FP8.
  struct F8Kv {
    std::vector<InLayer> in_layer;  // over parts with keys and values in the machine's dtype
    std::vector<Thin> thin_attention;
  };

  // So many ranks of a node that work on one document, over what a rank takes alone.
  struct Group {
    std::int64_t n_ranks = 0;
    // Weights that they share out: a layer of phase 1, to which the rest of it comes from the other
    // ranks; a layer of a step with all its exchanges, but the context's keys: bytes of a rank's
    // share; and what is in no layer.
    InLayer in_layer;
    std::vector<Thin> thin_layers;
    std::vector<Thin> next_tokens;
    // In a step, each further partial that a rank hands over because its blocks are not neighbours;
    // none where it was not measured.
    std::vector<Thin> parts;
    // What a rank computes later for each byte of keys and values that comes in beside its
    // computation, and for each message of recall that it waits for: bytes of a block's keys and
    // values in a layer.
    double copy_s_a_byte = 0;
    ByteTime recall_wait;
  };

  std::string name;  // Backend::describe
  std::string date;  // of the measurement, 2026-11-28; empty where figures were put together
  Dtype dtype = Dtype::f32;  // of activations, keys and values
  bool has_f8_kv = false;    // with_f8_kv(): of keys and values in FP8
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

  // Absent in files of version 1, and where a kind of model was not measured.
  std::vector<InLayer> in_layer;        // none: parts take what they take by themselves
  std::optional<ByteTime> block_start;  // of phase 1: bytes of the block's table of positions
  std::optional<Experts> experts;
  std::optional<F8Weights> f8_weights;
  std::optional<F8Kv> f8_kv;
  std::vector<Group> groups;  // ascending; none where devices do not reach each other's memory

  // Between two ranks, absent where it was not measured.
  std::optional<ByteTime> message;  // of a channel: from device memory to device memory
  std::optional<ByteTime> step;     // one layer of phase 2: rows of Q out, partials back
  std::optional<ByteTime> peer;     // one exchange of shared weights, from device to device
  // The same between nodes, and between host and device: bytes a second of one rank.
  std::optional<ByteTime> network;
  std::optional<double> bus_bytes_per_s;

  // Rates at other shapes: between measured sizes by the logarithm, beyond them the nearest.
  double product_rate(std::int64_t n_in, std::int64_t n_out) const;
  double attention_rate(std::int64_t head_dim, std::int64_t n_keys) const;
};

// The smallest group of so many ranks or more, else the largest; null where there are none.
const Machine::Group* group_of(const Machine& machine, std::int64_t n_ranks);

double expert_rate(const Machine::Experts& experts, std::int64_t expert_size);

// What parts take in a layer of this width.
Machine::InLayer in_layer_of(const std::vector<Machine::InLayer>& measured,
                             std::int64_t hidden_size);

// The machine where keys and values are kept in FP8. Throws Error(unfit) where that was not
// measured.
Machine with_f8_kv(Machine machine);

// Seconds of an operation of phase 2, between what was measured in the same way.
double seconds_of(const std::vector<Machine::Thin>& measured, std::int64_t n_rows,
                  std::int64_t length, double n_bytes);

// Throws no_input, and bad_data naming file and key.
Machine read_machine(const std::string& path);
std::string to_text(const Machine& machine);  // the file's

}  // namespace starattn
