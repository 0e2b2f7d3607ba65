// SPDX-License-Identifier: Apache-2.0
// The short list of operations that a device offers. backend/cpu is the specification; backend/cuda
// is checked against it operation by operation. Nothing here knows of blocks, ranks or files.
//
// Memory belongs to the backend: a Buffer is device memory, and only upload/download cross over.
// Activations are fp32 on the CPU and bf16 on CUDA (activation_dtype), and so are K and V, unless a
// context's are kept in FP8 (kv_dtype); partials are fp32 everywhere.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>

#include "backend/peer_links.h"
#include "backend/repeated.h"
#include "backend/shared_layers.h"
#include "backend/tensors.h"
#include "base/dtype.h"
#include "base/next_token.h"
#include "trace/span.h"

namespace starattn {

// The values of a head, of which the first `rotary` make pairs with each other, and the others too.
struct HeadSplit {
  std::int64_t size = 0;
  std::int64_t rotary = size;

  bool operator==(const HeadSplit&) const = default;
};

// The sizes of a model that decide whether the operations take it.
struct ModelShape {
  AttentionShape attention;
  std::int64_t hidden_size = 0;
  std::int64_t intermediate_size = 0;
  std::int64_t expert_size = 0;  // the same of one expert; 0: no layer is a mixture
  std::int64_t shared_size = 0;  // of the expert that every row takes; 0: there is none
  HeadSplit head = {};
};

class Backend {
 public:
  virtual ~Backend() = default;

  virtual std::string describe() const = 0;  // "cpu, 4 threads, AVX-512", for the banner
  virtual Dtype activation_dtype() const = 0;
  // Rows that phase 1 sends through a layer together: a constant of the backend, so that the plan
  // alone decides the shape, and with it the bits, of every product.
  virtual std::int64_t chunk_rows() const { return 512; }
  // Of a context's K and V: the activations' dtype, or f8 from keep_kv_in_f8() on, which comes
  // before anything is made of them.
  Dtype kv_dtype() const { return has_f8_kv_ ? Dtype::f8 : activation_dtype(); }
  void keep_kv_in_f8() { has_f8_kv_ = true; }
  // From round_rows_to_f8() on, products of chunks with FP8 matrices round the rows to FP8 first:
  // each row's numbers share a power of two (to_f8() in base/dtype.h), and what is not finite
  // becomes NaN. Experts take their rows as they are.
  bool rounds_rows() const { return rounds_rows_; }
  void round_rows_to_f8() { rounds_rows_ = true; }
  KvLayout kv_layout(const AttentionShape& shape) const {
    return {kv_dtype(), shape.n_kv_heads, shape.head_dim};
  }
  RawRows raw(Rows x) const {
    return {x.data, x.n_rows, static_cast<std::size_t>(x.width) * size_of(activation_dtype())};
  }
  // Throws Error(unfit) where no operation takes the model's shapes.
  virtual void check_model(const ModelShape&) const {}

  // Memory of the device; 0 where that is the node's own.
  virtual std::uint64_t memory_bytes() const { return 0; }
  virtual std::uint64_t free_bytes() const { return 0; }  // of it
  virtual std::uint64_t peak_bytes() const { return 0; }  // of it that was ever taken
  // That the device has taken since some time before, in joules, where it says so.
  virtual std::optional<double> energy_joules() const { return std::nullopt; }
  bool is_host_memory() const { return memory_bytes() == 0; }  // MPI may read and write it

  // Throws Error(unfit): asked for, free, what would fit.
  virtual Buffer allocate(std::size_t n_bytes) = 0;
  // Host memory that moves to and from the device fast (pinned).
  virtual Buffer allocate_pinned(std::size_t n_bytes) { return allocate(n_bytes); }
  // Host memory of somebody else moves fast, too, while the result lives.
  virtual Buffer pin(std::span<std::byte>) { return {}; }
  // The weight will be used: a device with memory of its own fetches it now, and `read` gets the
  // very bytes that went there, in order.
  using BytesRead = std::function<void(std::span<const std::byte>)>;
  virtual void load(const WeightView&, const BytesRead& /*read*/ = {}) {}
  // That a weight takes there.
  virtual std::uint64_t bytes_in_memory(const WeightView& weight) const { return weight.n_bytes(); }
  virtual void upload(std::span<const std::byte> host, std::byte* device) = 0;
  virtual void download(const std::byte* device, std::span<std::byte> host) = 0;
  // For later operations, which wait for it; no copy aside may touch it yet. Pinned host memory has
  // to stay as it is until the next download() or synchronize(); other may be reused at once.
  virtual void upload_later(std::span<const std::byte> host, std::byte* device) {
    upload(host, device);
  }
  // Begins to copy between pinned host memory (allocate_pinned) and the device once the operations
  // called so far have finished, while later ones go on.
  virtual void copy_after_operations(CopyDirection, std::span<const std::byte> from,
                                     std::byte* to) {
    upload(from, to);  // right where the device's memory is the host's
  }
  // Operations called from here on, synchronize() among them, wait for the copies started so far.
  virtual void order_after_copies(CopyDirection) {}
  // Begins to copy at once, behind the copies started so far: earlier operations have finished with
  // both sides, and later ones do not write `from` nor touch `to` before copies_done().
  virtual void copy_now(CopyDirection, std::span<const std::byte> from, std::byte* to) {
    upload(from, to);
  }
  virtual bool copies_done(CopyDirection) { return true; }  // those started so far
  // A point in the order of operations, behind those called so far. is_reached() once they have
  // finished.
  virtual std::uint64_t mark() { return 0; }
  virtual bool is_reached(std::uint64_t) { return true; }
  virtual void await(std::uint64_t /*mark*/) {}  // returns when it is reached
  // In the order of operations, to pinned host memory: there once a mark() behind it is reached.
  virtual void download_later(const std::byte* device, std::span<std::byte> host) {
    download(device, host);
  }
  // Whether operations may have to be done yet when they return, so that calling the next ones
  // early keeps the device at work.
  virtual bool works_behind_host() const { return false; }
  // For operations that come again and again.
  virtual std::unique_ptr<Repeated> make_repeated() { return std::make_unique<Repeated>(); }
  // x as fp32 on the host. [n_rows, width]
  virtual void download_rows(Rows x, std::span<float> host) {
    download(x.data, std::as_writable_bytes(host));  // right where activations are fp32
  }
  // To the devices of other ranks on the node, this rank among n_ranks, each with a device of its
  // own; nothing where devices have no such links. Throws Error(unfit).
  virtual std::unique_ptr<PeerLinks> make_peer_links(int /*n_ranks*/) { return nullptr; }
  // Before the weights are loaded: this device keeps its rank's rows alone. Nothing where there are
  // no links. Throws Error(unfit).
  virtual std::unique_ptr<SharedLayers> share_layers(SharedModel, int /*rank*/) { return nullptr; }
  // The same where these matrices of each layer are to be kept in pinned host memory. Nothing where
  // the device's memory is the host's. Throws Error(unfit).
  using LayerMatrices = std::vector<std::vector<WeightView>>;
  virtual std::unique_ptr<FetchedLayers> stream_layers(const LayerMatrices&) { return nullptr; }
  // Of the device, which must outlive it; nothing where operations have finished when they return.
  virtual std::unique_ptr<trace::DeviceClock> make_clock() { return nullptr; }
  // Returns when all earlier operations have finished; calls poll now and then meanwhile.
  virtual void synchronize(const std::function<void()>& poll = {}) = 0;

  // --- the decoder layer, in the order of use -------------------------------------------------
  // x[i] = table[tokens[i]]; table [vocab, hidden]; tokens [n_rows], on the device, are checked by
  // the caller. kNoToken, where drawing found none, gives any row.
  virtual void embed(const Token* tokens, const WeightView& table, Rows x) = 0;
  void embed_tokens(std::span<const Token> tokens, const WeightView& table, Rows x);
  // y = x / sqrt(mean(x^2) + eps) * weight, over width = weight.n_cols. For q/k norms pass the rows
  // as [n_rows * n_heads, head_dim]. y may be x. A row whose mean is beyond fp32 becomes NaN, so
  // that what overflows is found behind it. reader: of y.
  virtual void rms_norm(Rows x, const WeightView& weight, double eps, Rows y,
                        Reader reader = Reader::any) = 0;
  virtual void linear(Rows x, const Projection& to, Product product) = 0;
  // At most three projections of the same rows.
  virtual void linear_all(Rows x, std::span<const Projection> to, Product product) {
    for (const Projection& projection : to) linear(x, projection, product);
  }
  // gate.y = silu(the first product) * (the second); up.y is free to use.
  virtual void linear_gated(Rows x, const Projection& gate, const Projection& up, Product product) {
    const Projection both[] = {gate, up};
    linear_all(x, both, product);
    swiglu(gate.y, up.y, gate.y);
  }
  // x += a W^T + bias; scratch: rows like x, free to use.
  virtual void add_linear(Rows x, Rows a, const WeightView& w, const WeightView& bias,
                          Product product, Rows scratch) {
    linear(a, {w, bias, scratch}, product);
    add(x, scratch);
  }
  // y [n_rows, n_out] = x W^T in fp32, batch-invariant: the logits.
  virtual void linear_f32(Rows x, const WeightView& w, float* y) = 0;
  // The token that each row's draw finds in logits [n_rows, n_values], which may be overwritten;
  // kNoToken where one is not finite. draws [n_rows]; tokens [n_rows], on the device.
  virtual void draw_tokens(float* logits, std::int64_t n_values, std::span<const Draw> draws,
                           Token* tokens) = 0;
  // Its two halves where nothing is drawn and columns of the logits are shared out. to [n_rows,
  // kHighestParts]: the highest of each part of logits [n_rows, n_values], which are those of
  // tokens first, first + 1, ... tokens [n_rows]: what the parts [n_rows, n_parts] of all columns
  // come to. All on the device.
  static constexpr std::int64_t kHighestParts = 8;
  virtual void find_highest(const float* logits, std::int64_t n_values, Token first,
                            std::span<const Draw> draws, Highest* to) = 0;
  virtual void choose_highest(const Highest* parts, std::int64_t n_rows, std::int64_t n_parts,
                              Token* tokens) = 0;
  // Logits and what draws find in them, and logits on the host. host [n_rows, n_out]
  void next_tokens(Rows x, const WeightView& w, std::span<const Draw> draws, Token* tokens);
  void linear_to_host(Rows x, const WeightView& w, std::span<float> host);
  // to [n_rows, n] = columns first to first + n - 1 of x.
  virtual void copy_columns(Rows x, std::int64_t first, Rows to) = 0;
  // Rotates pairs (i, i + rotary/2) of every head's first `rotary` values (Hugging Face's
  // half-split order), in place, and those of the values behind them alike. x [n_rows, n_heads *
  // head_dim]; cos, sin on the device: [n_rows, head_dim / 2] fp32, the pairs in this order.
  virtual void rope(Rows x, const HeadSplit& head, const float* cos, const float* sin) = 0;
  virtual void rope_both(Rows q, Rows k, const HeadSplit& head, const float* cos,
                         const float* sin) {
    rope(q, head, cos, sin);
    rope(k, head, cos, sin);
  }
  // to = keys or values x [n_rows, n_kv_heads * head_dim] as KvLayout has them in FP8: to the
  // nearest, and what is not finite as NaN.
  virtual void narrow(Rows x, std::int64_t head_dim, RawRows to) = 0;
  // partial <- partial merged with attention of q over the segments, in the order given; a row's
  // result depends on its own q and the segments alone, never on the other rows.
  // q [n_rows, n_heads * head_dim]; heads are grouped: kv head = head / (n_heads / n_kv_heads).
  virtual void attend(Rows q, std::span<const KvSegment> segments, const AttentionShape& shape,
                      Product product, Partial partial) = 0;
  // partial = attention of q over the segments, whatever was in it.
  virtual void attend_alone(Rows q, std::span<const KvSegment> segments,
                            const AttentionShape& shape, Product product, Partial partial) {
    clear(partial, shape);
    attend(q, segments, shape, product, partial);
  }
  // A device may read the exponents of FP8 blocks faster where they lie once more by themselves:
  // bytes that those of n_tokens keys and values take (0: they are not needed), and what puts them
  // there, for KvSegment::exponents.
  virtual std::size_t exponent_bytes(std::int64_t /*n_tokens*/,
                                     const AttentionShape& /*shape*/) const {
    return 0;
  }
  virtual void lay_out_exponents(const KvSegment& /*block*/, const AttentionShape& /*shape*/,
                                 std::byte* /*to*/) {}
  // parts[i] = attention of q over blocks[i] alone, whatever was in it (thin, and no block causal);
  // then the merges. What was merged into another may hold anything. Operations that came before
  // the last synchronize(), or copies, have made the keys and values: a device may read them before
  // it has finished with the operations just before.
  virtual void attend_blocks(Rows q, std::span<const KvSegment> blocks, const AttentionShape& shape,
                             std::span<const Merge> merges, std::span<const Partial> parts) {
    for (std::size_t i = 0; i < blocks.size(); ++i)
      attend_alone(q, blocks.subspan(i, 1), shape, Product::batch_invariant, parts[i]);
    merge_all(parts, merges, shape);
  }
  // partial = attention of row i over the tokens of the segment from first[i] on, whatever was in
  // it (thin): rows of several queries, each with its window.
  virtual void attend_from(Rows q, const KvSegment& segment, std::span<const std::int64_t> first,
                           const AttentionShape& shape, Partial partial);
  // Row i of k and v becomes token own[i].n_before of its query; out = the context's partial merged
  // with attention of row i over its query's tokens 0 to n_before, finished. context: free to use.
  virtual void attend_own(Rows q, Rows k, Rows v, std::span<const OwnTokens> own,
                          const AttentionShape& shape, Partial context, Rows out) = 0;
  // The same of a context that is not merged yet.
  virtual void attend_own(Rows q, Rows k, Rows v, std::span<const OwnTokens> own,
                          const AttentionShape& shape, const PartialTree& context, Rows out) {
    attend_own(q, k, v, own, shape, merge_tree(context, shape), out);
  }
  // Both in one, where a rank has all blocks: attend_blocks(), and own tokens behind what has then
  // become parts[root]. parts: free to use.
  virtual void attend_blocks_and_own(Rows q, Rows k, Rows v, std::span<const KvSegment> blocks,
                                     const PartialTree& context, std::span<const OwnTokens> own,
                                     const AttentionShape& shape, Rows out) {
    attend_blocks(q, blocks, shape, context.merges, context.parts);
    attend_own(q, k, v, own, shape, context.parts[context.root], out);
  }
  // out = finished attention of q over the segments; scratch: a partial of q's rows, free to use.
  virtual void attend_all(Rows q, std::span<const KvSegment> segments, const AttentionShape& shape,
                          Product product, Partial scratch, Rows out) {
    attend_alone(q, segments, shape, product, scratch);
    finish(scratch, shape, out);
  }
  virtual void clear(Partial partial, const AttentionShape& shape) = 0;  // to the empty partial
  virtual void merge(Partial into, Partial from, const AttentionShape& shape) = 0;  // into (+) from
  // The merges in order, numbers are places in parts.
  virtual void merge_all(std::span<const Partial> parts, std::span<const Merge> merges,
                         const AttentionShape& shape) {
    for (const Merge& step : merges)
      merge(parts[static_cast<std::size_t>(step.into)], parts[static_cast<std::size_t>(step.from)],
            shape);
  }
  Partial merge_tree(const PartialTree& tree, const AttentionShape& shape) {
    if (!tree.merges.empty()) merge_all(tree.parts, tree.merges, shape);
    return tree.parts[tree.root];
  }
  // Learned sinks: a score of every head that has no value. partial <- partial merged with it, once
  // for each row. sinks [1, n_heads]
  virtual void merge_sinks(Partial partial, const WeightView& sinks,
                           const AttentionShape& shape) = 0;
  virtual void finish(Partial partial, const AttentionShape& shape, Rows out) = 0;  // o / l
  // out = a (+) b, finished; a: free to use.
  virtual void finish_merged(Partial a, Partial b, const AttentionShape& shape, Rows out) {
    merge(a, b, shape);
    finish(a, shape, out);
  }
  virtual void add(Rows x, Rows y) = 0;                 // x += y
  virtual void scale(Rows x, float factor) = 0;         // x *= factor
  virtual void swiglu(Rows gate, Rows up, Rows y) = 0;  // y = silu(gate) * up
  // x[i] *= sigmoid(by[i] . gate), in fp32. by [n_rows, width]; gate [1, width]
  virtual void scale_by_gate(Rows x, Rows by, const WeightView& gate) = 0;

  // --- mixtures of experts -----------------------------------------------------------------------
  static constexpr std::int64_t kMostExperts = 1024;
  // Each row takes the choice.n_chosen experts with the largest products with the router, or the
  // largest sigmoids of these with the correction; of equals the lower, and what is not a number
  // counts as lowest. A correction is exact (WeightView). 1 <= n_chosen <= n_experts <=
  // kMostExperts.
  virtual void choose_experts(Rows x, const Router& router, Product product,
                              const ExpertChoice& choice) = 0;
  // x[i] += the sum, fp32 and in the order of choice, of share times what the expert makes of
  // normed[i]: unit(normed gate^T, normed up^T) down^T, each product with its bias where it has
  // one. All experts have biases, or none.
  virtual void add_experts(Rows x, Rows normed, std::span<const Expert> experts,
                           const GatedUnit& unit, const ExpertChoice& choice, Product product);
  // Its two halves, of which each may have some columns alone: of gate and up, or of down, in every
  // expert. gated [n_rows * n_chosen, columns]: what gate and up make of a row's experts, sorted by
  // expert and within one by row.
  virtual void gate_experts(Rows normed, std::span<const Expert> experts, const GatedUnit& unit,
                            const ExpertChoice& choice, Product product, Rows gated) = 0;
  // x[i] += the sum of share times gated down^T.
  virtual void add_gated_experts(Rows x, Rows gated, std::span<const Expert> experts,
                                 const ExpertChoice& choice, Product product) = 0;

  // --- recall: which earlier keys a block also sees (docs/recall.md) ---------------------------
  // Numbers of rows or tokens are 32 bits, on the device, ascending.
  // rows [n_rows]: those of a block whose keys are least like its mean key (the cosine, averaged
  // over KV heads; of equals the earlier). 1 <= n_rows <= block.n_tokens.
  virtual void choose_asking_rows(const KvSegment& block, const AttentionShape& shape,
                                  std::int64_t n_rows, std::int32_t* rows) = 0;
  // to[i] = row rows[i] of all that `from` has, one after another. from may be pinned host memory.
  virtual void gather_rows(std::span<const RawRows> from, const std::int32_t* rows, RawRows to) = 0;
  // z [n_rows, n_heads] = log sum_j exp(s_j) of each row's scaled scores over all keys of two
  // segments, of which one may be empty.
  virtual void log_sum_exp(Rows q, const KvSegment& first, const KvSegment& second,
                           const AttentionShape& shape, float* z) = 0;
  // scores [keys.n_tokens]: the mean over heads of max_row exp(min(s - z[row], 80)), s the scaled
  // score of the row's head with the key. z [n_rows, n_heads]
  virtual void score_keys(Rows q, const float* z, const KvSegment& keys,
                          const AttentionShape& shape, float* scores) = 0;
  // best [n_best]: the numbers of the highest scores, of equals the earlier; best_scores [n_best]:
  // theirs. What is not a number counts as lowest. 0 <= n_best <= n_scores.
  virtual void choose_best(const float* scores, std::int64_t n_scores, std::int64_t n_best,
                           std::int32_t* best, float* best_scores) = 0;

  // --- values that are not finite, NaN or infinite ----------------------------------------------
  // place, on the device: becomes the smaller of itself and the place of the first such value in x,
  // counted row by row from `first` on.
  virtual void find_not_finite(Rows x, std::int64_t first, std::int64_t* place) = 0;
  // The place in w of the first such value among these rows, as operations see them; none: -1.
  virtual std::int64_t first_not_finite(const WeightView& w, std::int64_t first_row,
                                        std::int64_t n_rows) = 0;

 private:
  bool has_f8_kv_ = false;
  bool rounds_rows_ = false;
};

// CUDA devices that this process can use; 0 in a build without CUDA.
int n_cuda_devices();
// Throws Error(unfit) where there is no such device.
std::unique_ptr<Backend> make_cuda_backend(int device);

// n_threads: worker threads of this rank, the calling one included.
std::unique_ptr<Backend> make_cpu_backend(int n_threads);

// The floor that the CPU backend is measured against: OpenBLAS's own sgemm, 2048 cubed, best of
// five, in floating-point operations a second.
double measure_sgemm_rate(int n_threads);

// Starts this program again, once, where OpenBLAS took kernels that are too old for the processor.
// Call it first thing in main.
void use_fitting_openblas_kernels(char** argv);

}  // namespace starattn
