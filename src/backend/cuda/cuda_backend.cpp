// SPDX-License-Identifier: Apache-2.0
// The CUDA backend: bf16 rows, weights (or FP8), K and V; fp32 accumulation, softmax, norms and
// partials. Large products go to cuBLASLt, everything else to kernels/. Checked against
// backend/cpu.
#include <algorithm>
#include <utility>
#include <vector>

#include "attention.h"
#include "backend/backend.h"
#include "backend/cuda/as_kernel.h"
#include "backend/cuda/asking.h"
#include "backend/cuda/attend.h"
#include "backend/cuda/device.h"
#include "backend/cuda/device_clock.h"
#include "backend/cuda/device_weights.h"
#include "backend/cuda/energy.h"
#include "backend/cuda/finite.h"
#include "backend/cuda/mixtures.h"
#include "backend/cuda/nvtx.h"
#include "backend/cuda/peer_links.h"
#include "backend/cuda/pinned_memory.h"
#include "backend/cuda/products.h"
#include "backend/cuda/shared_layers.h"
#include "backend/cuda/step_graph.h"
#include "base/error.h"
#include "base/text.h"
#include "elementwise.h"
#include "next_token.h"
#include "own_tokens.h"
#include "recall.h"
#include "sinks.h"

namespace starattn {
namespace {

static_assert(sizeof(Highest) == sizeof(kernels::Highest) &&
              Backend::kHighestParts == kernels::kHighestParts);

class CudaBackend : public Backend {
 public:
  explicit CudaBackend(int device)
      : energy_(device),
        device_(device),
        weights_(device_),
        products_(device_, weights_, mail_),
        attention_(device_, mail_),
        mixtures_(device_, weights_, products_) {
    try {
      kernels::takes_hopper_kernels();
    } catch (const std::invalid_argument& bad) {
      fail(Exit::usage, "{}", bad.what());
    }
  }

  std::string describe() const override {
    return fmt::format("CUDA, {}, {}", device_.name(), human_bytes(device_.memory_bytes()));
  }
  Dtype activation_dtype() const override { return Dtype::bf16; }
  std::int64_t chunk_rows() const override { return 8192; }
  void check_model(const ModelShape& model) const override {
    constexpr std::int64_t kVector = 8;  // values that a thread loads together
    if (model.hidden_size % kVector != 0 || model.intermediate_size % kVector != 0) {
      fail(Exit::unfit,
           "the CUDA backend takes hidden and intermediate sizes that are multiples of {}; this "
           "model's are {} and {}. Use --device cpu",
           kVector, model.hidden_size, model.intermediate_size);
    }
    if (model.expert_size % kVector != 0 || model.shared_size % kVector != 0) {
      fail(Exit::unfit,
           "the CUDA backend takes experts whose size is a multiple of {}; this model's is {}. Use "
           "--device cpu",
           kVector, model.expert_size % kVector != 0 ? model.expert_size : model.shared_size);
    }
    if (model.head.rotary % (2 * kVector) != 0) {
      fail(Exit::unfit,
           "the CUDA backend takes heads of which a multiple of {} values are rotated; of this "
           "model's {} values {} are. Use --device cpu",
           2 * kVector, model.head.size, model.head.rotary);
    }
    try {
      kernels::check_shape(cuda::as_kernel(model.attention));
    } catch (const kernels::BadShape& bad) {
      fail(Exit::unfit, "the CUDA backend does not take this model: {}. Use --device cpu",
           bad.what());
    }
  }
  std::uint64_t memory_bytes() const override { return device_.memory_bytes(); }
  std::uint64_t free_bytes() const override { return device_.free_bytes(); }
  std::uint64_t peak_bytes() const override { return device_.peak_bytes(); }

  std::optional<double> energy_joules() const override { return energy_.joules(); }

  Buffer allocate(std::size_t n_bytes) override { return device_.allocate(n_bytes); }
  Buffer allocate_pinned(std::size_t n_bytes) override { return pinned_.allocate(n_bytes); }
  Buffer pin(std::span<std::byte> host) override { return cuda::pin(host); }
  void load(const WeightView& weight, const BytesRead& read) override {
    weights_.load(weight, read);
  }
  std::uint64_t bytes_in_memory(const WeightView& weight) const override {
    return static_cast<std::uint64_t>(weight.n_rows * weight.n_cols) *
           size_of(cuda::DeviceWeights::dtype_there(weight));
  }
  void upload(std::span<const std::byte> host, std::byte* device) override {
    device_.upload(host, device);
  }
  void upload_later(std::span<const std::byte> host, std::byte* device) override {
    device_.upload_later(host, device);
  }
  void download(const std::byte* device, std::span<std::byte> host) override {
    device_.download(device, host);
  }
  void copy_after_operations(CopyDirection direction, std::span<const std::byte> from,
                             std::byte* to) override {
    device_.copy_after_operations(direction, from, to);
  }
  void order_after_copies(CopyDirection direction) override {
    device_.order_after_copies(direction);
  }
  void copy_now(CopyDirection direction, std::span<const std::byte> from, std::byte* to) override {
    device_.copy_now(direction, from, to);
  }
  bool copies_done(CopyDirection direction) override { return device_.copies_done(direction); }
  std::uint64_t mark() override { return device_.mark(); }
  bool is_reached(std::uint64_t mark) override { return device_.is_reached(mark); }
  void await(std::uint64_t mark) override { device_.await(mark); }
  void download_later(const std::byte* device, std::span<std::byte> host) override {
    device_.download_later(device, host);
  }
  bool works_behind_host() const override { return true; }
  std::unique_ptr<Repeated> make_repeated() override { return cuda::make_step_graph(device_); }
  void download_rows(Rows x, std::span<float> host) override {
    const Buffer wide = device_.allocate(host.size_bytes());
    auto* floats = reinterpret_cast<float*>(wide.data());
    kernels::to_f32(x.data, x.n_rows * x.width, floats, stream());
    download(wide.data(), std::as_writable_bytes(host));
  }
  void synchronize(const std::function<void()>& poll) override { device_.synchronize(poll); }
  std::unique_ptr<trace::DeviceClock> make_clock() override {
    return cuda::make_device_clock(device_);
  }
  std::unique_ptr<PeerLinks> make_peer_links(int n_ranks) override {
    return cuda::make_peer_links(device_, weights_, mail_, n_ranks);
  }
  std::unique_ptr<SharedLayers> share_layers(SharedModel model, int rank) override {
    return cuda::share_layers(device_, weights_, std::move(model), rank);
  }
  std::unique_ptr<FetchedLayers> stream_layers(const LayerMatrices& layers) override {
    return cuda::stream_layers(device_, weights_, layers);
  }

  void embed(const Token* tokens, const WeightView& table, Rows x) override {
    kernels::EmbeddingTable parts;
    parts.n_parts = 0;
    for (const auto& [first, rows] : weights_.find_parts(table)) {
      STARATTN_CHECK(parts.n_parts < kernels::kMostTableParts);
      parts.parts[parts.n_parts++] = {rows, static_cast<std::int32_t>(first)};
    }
    kernels::embed_rows(tokens, parts, x.n_rows, x.width, x.data, stream());
  }

  void rms_norm(Rows x, const WeightView& weight, double eps, Rows y, Reader reader) override {
    STARATTN_CHECK(weight.n_cols == x.width && y.width == x.width && y.n_rows == x.n_rows);
    constexpr std::int64_t kVector = 8;
    if (reader == Reader::product && x.data != y.data && x.width % kVector == 0 &&
        kernels::can_await_rows(x.n_rows, x.width / kVector, /*behind_norm=*/true)) {
      kernels::AwaitedRows rows;
      rows.from = x.data;
      rows.n_rows = x.n_rows;
      rows.n_vectors = static_cast<int>(x.width / kVector);
      rows.weight = weights_.find(weight);
      rows.eps = static_cast<float>(eps);
      rows.rows = y.data;
      return mail_.in.leave(rows);
    }
    kernels::rms_norm(x.data, weights_.find(weight), static_cast<float>(eps), x.n_rows, x.width,
                      y.data, stream());
  }

  void linear(Rows x, const Projection& to, Product product) override {
    multiply(x, {&to, 1}, product, /*add=*/false);
  }
  void linear_all(Rows x, std::span<const Projection> to, Product product) override {
    multiply(x, to, product, /*add=*/false);
  }
  void linear_gated(Rows x, const Projection& gate, const Projection& up,
                    Product product) override {
    if (product == Product::chunk || !products_.are_alike(gate.w, up.w))
      return Backend::linear_gated(x, gate, up, product);
    products_.thin_gated(x, gate, up);
  }
  void add_linear(Rows x, Rows a, const WeightView& w, const WeightView& bias, Product product,
                  Rows) override {
    const Projection to{w, bias, x};
    multiply(a, {&to, 1}, product, /*add=*/true);
  }
  void linear_f32(Rows x, const WeightView& w, float* y) override {
    products_.to_f32(x, w, Product::batch_invariant, y);
  }
  void draw_tokens(float* logits, std::int64_t n_values, std::span<const Draw> draws,
                   Token* tokens) override {
    if (std::ranges::all_of(draws, &Draw::is_greedy)) {
      const auto n_parts = draws.size() * kHighestParts;
      const Buffer memory = device_.allocate(n_parts * sizeof(Highest));
      auto* parts = reinterpret_cast<Highest*>(memory.data());
      find_highest(logits, n_values, 0, draws, parts);
      return choose_highest(parts, std::ssize(draws), kHighestParts, tokens);
    }
    std::vector<kernels::Draw> rows;
    for (const Draw& draw : draws) rows.push_back({draw.temperature, draw.top_p, draw.unit});
    const auto row_bytes = std::as_bytes(std::span(rows));
    const Buffer draws_there = device_.allocate(row_bytes.size());
    upload_later(row_bytes, draws_there.data());
    const Allowed allowed = upload_allowed(draws);
    STARATTN_CHECK(!allowed.rows() || allowed.n_words == (n_values + 31) / 32);
    kernels::next_tokens(logits, std::ssize(draws), n_values,
                         reinterpret_cast<const kernels::Draw*>(draws_there.data()), allowed.rows(),
                         tokens, stream());
  }
  void find_highest(const float* logits, std::int64_t n_values, Token first,
                    std::span<const Draw> draws, Highest* to) override {
    const Allowed allowed = upload_allowed(draws);
    STARATTN_CHECK(!allowed.rows() || 32 * allowed.n_words >= first + n_values);
    kernels::highest_logits(logits, std::ssize(draws), n_values, first, allowed.rows(),
                            allowed.n_words, reinterpret_cast<kernels::Highest*>(to), stream());
  }
  void choose_highest(const Highest* parts, std::int64_t n_rows, std::int64_t n_parts,
                      Token* tokens) override {
    kernels::best_parts(reinterpret_cast<const kernels::Highest*>(parts), n_rows, n_parts, tokens,
                        stream());
  }
  void copy_columns(Rows x, std::int64_t first, Rows to) override {
    STARATTN_CHECK(first >= 0 && first + to.width <= x.width && to.n_rows == x.n_rows);
    const std::size_t value = size_of(Dtype::bf16);
    cuda::check(
        cudaMemcpy2DAsync(to.data, static_cast<std::size_t>(to.width) * value,
                          x.data + static_cast<std::size_t>(first) * value,
                          static_cast<std::size_t>(x.width) * value,
                          static_cast<std::size_t>(to.width) * value,
                          static_cast<std::size_t>(to.n_rows), cudaMemcpyDeviceToDevice, stream()),
        "copying columns");
  }

  void rope(Rows x, const HeadSplit& head, const float* cos, const float* sin) override {
    kernels::rotate_rows(cuda::heads_of(x, head.size), {}, cos, sin, x.n_rows,
                         static_cast<int>(head.size), static_cast<int>(head.rotary), stream());
  }
  void rope_both(Rows q, Rows k, const HeadSplit& head, const float* cos,
                 const float* sin) override {
    STARATTN_CHECK(q.n_rows == k.n_rows);
    const kernels::PeerSend send = mail_.out.take(q.data);
    kernels::PeerRows exchange;
    if (kernels::takes_exchange(q.n_rows * (q.width + k.width)))
      exchange = mail_.out.take_exchange();
    kernels::rotate_rows(cuda::heads_of(q, head.size), cuda::heads_of(k, head.size), cos, sin,
                         q.n_rows, static_cast<int>(head.size), static_cast<int>(head.rotary),
                         stream(), send, exchange);
  }

  void narrow(Rows x, std::int64_t head_dim, RawRows to) override {
    const KvLayout layout{Dtype::f8, x.width / head_dim, head_dim};
    STARATTN_CHECK(x.width % head_dim == 0 && to.n_rows == x.n_rows &&
                   to.row_bytes == layout.row_bytes());
    kernels::narrow_rows(x.data, cuda::f8_rows(to.data, to.n_rows, layout), stream());
  }

  std::size_t exponent_bytes(std::int64_t n_tokens, const AttentionShape& shape) const override {
    if (!kernels::takes_hopper_kernels()) return 0;
    return static_cast<std::size_t>(2 * shape.n_kv_heads * kernels::exponents_stride(n_tokens));
  }
  void lay_out_exponents(const KvSegment& block, const AttentionShape& shape,
                         std::byte* to) override {
    STARATTN_CHECK(block.is_f8);
    const KvLayout layout{Dtype::f8, shape.n_kv_heads, shape.head_dim};
    kernels::lay_out_exponents(cuda::f8_rows(block.k, block.n_tokens, layout),
                               cuda::f8_rows(block.v, block.n_tokens, layout), to, stream());
  }
  void attend(Rows q, std::span<const KvSegment> segments, const AttentionShape& shape,
              Product product, Partial partial) override {
    attention_.attend(q, segments, shape, product, partial);
  }
  void attend_alone(Rows q, std::span<const KvSegment> segments, const AttentionShape& shape,
                    Product product, Partial partial) override {
    if (segments.empty() || !cuda::Attention::takes(segments.size()))
      return Backend::attend_alone(q, segments, shape, product, partial);
    attention_.attend_alone(q, segments, shape, product, partial);
  }
  void attend_blocks(Rows q, std::span<const KvSegment> blocks, const AttentionShape& shape,
                     std::span<const Merge> merges, std::span<const Partial> parts) override {
    if (!cuda::Attention::takes(blocks.size()) || !cuda::Attention::takes(merges.size()))
      return Backend::attend_blocks(q, blocks, shape, merges, parts);
    attention_.attend_blocks(q, blocks, shape, merges, parts);
  }
  // Which way it goes depends on the tokens alone, so that a row has the same bits among any
  // others.
  void attend_from(Rows q, const KvSegment& segment, std::span<const std::int64_t> first,
                   const AttentionShape& shape, Partial partial) override {
    if (segment.n_tokens > kernels::kMostTailTokens)
      return Backend::attend_from(q, segment, first, shape, partial);
    attention_.attend_from(q, segment, first, shape, partial);
  }
  void attend_own(Rows q, Rows k, Rows v, std::span<const OwnTokens> own,
                  const AttentionShape& shape, Partial context, Rows out) override {
    attention_.attend_own(q, k, v, own, shape, {{context}, {}, 0}, out);
  }
  void attend_own(Rows q, Rows k, Rows v, std::span<const OwnTokens> own,
                  const AttentionShape& shape, const PartialTree& context, Rows out) override {
    if (!cuda::Attention::takes(context.parts.size()) ||
        !cuda::Attention::takes(context.merges.size()))
      return Backend::attend_own(q, k, v, own, shape, context, out);
    attention_.attend_own(q, k, v, own, shape, context, out);
  }
  void attend_blocks_and_own(Rows q, Rows k, Rows v, std::span<const KvSegment> blocks,
                             const PartialTree& context, std::span<const OwnTokens> own,
                             const AttentionShape& shape, Rows out) override {
    if (!cuda::Attention::takes(blocks.size()) || !cuda::Attention::takes(context.merges.size()) ||
        !kernels::take_splits_with_own_tokens(q.n_rows, cuda::as_kernel(shape)))
      return Backend::attend_blocks_and_own(q, k, v, blocks, context, own, shape, out);
    attention_.attend_blocks_and_own(q, k, v, blocks, context, own, shape, out);
  }
  void attend_all(Rows q, std::span<const KvSegment> segments, const AttentionShape& shape,
                  Product product, Partial scratch, Rows out) override {
    if (product != Product::chunk || segments.empty() || !cuda::Attention::takes(segments.size()))
      return Backend::attend_all(q, segments, shape, product, scratch, out);
    attention_.attend_all(q, segments, shape, out);
  }
  void clear(Partial partial, const AttentionShape& shape) override {
    attention_.clear(partial, shape);
  }
  void merge(Partial into, Partial from, const AttentionShape& shape) override {
    const Partial parts[] = {into, from};
    const Merge step{0, 1};
    attention_.merge_all(parts, {&step, 1}, shape);
  }
  void merge_all(std::span<const Partial> parts, std::span<const Merge> merges,
                 const AttentionShape& shape) override {
    if (!cuda::Attention::takes(parts.size()) || !cuda::Attention::takes(merges.size()))
      return Backend::merge_all(parts, merges, shape);
    attention_.merge_all(parts, merges, shape);
  }
  void merge_sinks(Partial partial, const WeightView& sinks, const AttentionShape& shape) override {
    STARATTN_CHECK(sinks.n_rows == 1 && sinks.n_cols == shape.n_heads);
    kernels::merge_sinks(cuda::as_kernel(partial), weights_.find(sinks), partial.n_rows,
                         cuda::as_kernel(shape), stream());
  }
  void finish(Partial partial, const AttentionShape& shape, Rows out) override {
    attention_.finish(partial, shape, out);
  }
  void finish_merged(Partial a, Partial b, const AttentionShape& shape, Rows out) override {
    attention_.finish_merged(a, b, shape, out);
  }

  void add(Rows x, Rows y) override {
    kernels::add_rows(x.data, y.data, x.n_rows * x.width, stream());
  }
  void scale_by_gate(Rows x, Rows by, const WeightView& gate) override {
    STARATTN_CHECK(gate.n_rows == 1 && gate.n_cols == by.width && x.n_rows == by.n_rows);
    kernels::scale_by_gate(x.data, by.data, weights_.find(gate), x.n_rows, x.width, by.width,
                           stream());
  }
  void swiglu(Rows gate, Rows up, Rows y) override {
    kernels::swiglu(gate.data, up.data, y.data, gate.n_rows * gate.width, stream());
  }

  void scale(Rows x, float factor) override {
    kernels::scale_rows(x.data, factor, x.n_rows * x.width, stream());
  }

  void choose_experts(Rows x, const Router& router, Product product,
                      const ExpertChoice& choice) override {
    mixtures_.choose(x, router, product, choice);
  }
  void add_experts(Rows x, Rows normed, std::span<const Expert> experts, const GatedUnit& unit,
                   const ExpertChoice& choice, Product product) override {
    mixtures_.add(x, normed, experts, unit, choice, product);
  }
  void gate_experts(Rows normed, std::span<const Expert> experts, const GatedUnit& unit,
                    const ExpertChoice& choice, Product product, Rows gated) override {
    mixtures_.gate(normed, experts, unit, choice, product, gated);
  }
  void add_gated_experts(Rows x, Rows gated, std::span<const Expert> experts,
                         const ExpertChoice& choice, Product product) override {
    mixtures_.add_gated(x, gated, experts, choice, product);
  }

  void choose_asking_rows(const KvSegment& block, const AttentionShape& shape, std::int64_t n_rows,
                          std::int32_t* rows) override {
    cuda::choose_asking_rows(device_, block, shape, n_rows, rows);
  }
  void gather_rows(std::span<const RawRows> from, const std::int32_t* rows, RawRows to) override {
    cuda::gather_rows(device_, from, rows, to);
  }
  void log_sum_exp(Rows q, const KvSegment& first, const KvSegment& second,
                   const AttentionShape& shape, float* z) override {
    cuda::log_sum_exp(device_, q, first, second, shape, z);
  }
  void score_keys(Rows q, const float* z, const KvSegment& keys, const AttentionShape& shape,
                  float* scores) override {
    cuda::score_keys(device_, q, z, keys, shape, scores);
  }
  void choose_best(const float* scores, std::int64_t n_scores, std::int64_t n_best,
                   std::int32_t* best, float* best_scores) override {
    kernels::choose_best(scores, n_scores, n_best, best, best_scores, stream());
  }

  void find_not_finite(Rows x, std::int64_t first, std::int64_t* place) override {
    kernels::find_not_finite(x.data, x.n_rows * x.width, first, place, stream());
  }
  std::int64_t first_not_finite(const WeightView& w, std::int64_t first_row,
                                std::int64_t n_rows) override {
    return cuda::first_not_finite(device_, weights_, products_, w, first_row, n_rows);
  }

 private:
  void multiply(Rows x, std::span<const Projection> to, Product product, bool add) {
    if (product == Product::chunk && rounds_rows()) {
      products_.linear_rounded(x, to, add);
    } else {
      products_.linear(x, to, product, add);
    }
  }
  // [draws.size(), n_words] on the device, all bits set for a draw that may take any token; none
  // where all may.
  struct Allowed {
    Buffer memory;
    std::int64_t n_words = 0;

    const std::uint32_t* rows() const {
      return reinterpret_cast<const std::uint32_t*>(memory.data());
    }
  };
  Allowed upload_allowed(std::span<const Draw> draws) {
    std::size_t n_words = 0;
    for (const Draw& draw : draws) n_words = std::max(n_words, draw.allowed.size());
    if (n_words == 0) return {};
    std::vector<std::uint32_t> rows;
    for (const Draw& draw : draws) {
      STARATTN_CHECK(draw.allowed.empty() || draw.allowed.size() == n_words);
      rows.resize(rows.size() + n_words, ~0U);
      std::copy(draw.allowed.begin(), draw.allowed.end(), rows.end() - std::ssize(draw.allowed));
    }
    Allowed there{device_.allocate(rows.size() * sizeof(std::uint32_t)),
                  static_cast<std::int64_t>(n_words)};
    upload_later(std::as_bytes(std::span(rows)), there.memory.data());
    return there;
  }

  kernels::Stream stream() const { return device_.stream(); }
  cuda::Energy energy_;
  cuda::Device device_;
  cuda::PinnedPool pinned_;
  cuda::DeviceWeights weights_;
  cuda::Mail mail_{device_};
  cuda::Products products_;
  cuda::Attention attention_;
  cuda::Mixtures mixtures_;
};

}  // namespace

int n_cuda_devices() {
  int n = 0;
  return cudaGetDeviceCount(&n) == cudaSuccess ? n : 0;
}

std::unique_ptr<Backend> make_cuda_backend(int device) {
  cuda::use_nvtx();
  return std::make_unique<CudaBackend>(device);
}

}  // namespace starattn
