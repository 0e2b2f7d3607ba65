// SPDX-License-Identifier: Apache-2.0
// The CUDA backend: bf16 rows, weights (or FP8), K and V; fp32 accumulation, softmax, norms and
// partials. Large products go to cuBLASLt, everything else to kernels/. Checked against
// backend/cpu.
#include <algorithm>
#include <cmath>
#include <optional>
#include <unordered_map>
#include <utility>

#include "attention.h"
#include "backend/backend.h"
#include "backend/cuda/device.h"
#include "backend/cuda/device_weights.h"
#include "backend/cuda/matmul.h"
#include "backend/cuda/peer_links.h"
#include "backend/cuda/pinned_memory.h"
#include "backend/cuda/shared_layers.h"
#include "base/error.h"
#include "base/text.h"
#include "elementwise.h"
#include "experts.h"
#include "f8_kv.h"
#include "next_token.h"
#include "own_tokens.h"
#include "recall.h"
#include "thin_linear.h"

namespace starattn {
namespace {

class CudaBackend : public Backend {
 public:
  explicit CudaBackend(int device) : device_(device), matmul_(device_), weights_(device_) {
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
    if (model.expert_size % kVector != 0) {
      fail(Exit::unfit,
           "the CUDA backend takes experts whose size is a multiple of {}; this model's is {}. Use "
           "--device cpu",
           kVector, model.expert_size);
    }
    try {
      kernels::check_shape(as_kernel(model.attention));
    } catch (const kernels::BadShape& bad) {
      fail(Exit::unfit, "the CUDA backend does not take this model: {}. Use --device cpu",
           bad.what());
    }
  }
  std::uint64_t memory_bytes() const override { return device_.memory_bytes(); }
  std::uint64_t free_bytes() const override { return device_.free_bytes(); }
  std::uint64_t peak_bytes() const override { return device_.peak_bytes(); }

  Buffer allocate(std::size_t n_bytes) override { return device_.allocate(n_bytes); }
  Buffer allocate_pinned(std::size_t n_bytes) override { return pinned_.allocate(n_bytes); }
  Buffer pin(std::span<std::byte> host) override { return cuda::pin(host); }
  void load(const WeightView& weight, const BytesRead& read) override {
    weights_.load(weight, read);
  }
  std::uint64_t bytes_in_memory(const WeightView& weight) const override {
    const Dtype there = cuda::DeviceWeights::stays_f8(weight) ? Dtype::f8 : Dtype::bf16;
    return static_cast<std::uint64_t>(weight.n_rows * weight.n_cols) * size_of(there);
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
  void copy_after_operations(CopyDirection way, std::span<const std::byte> from,
                             std::byte* to) override {
    device_.copy_after_operations(way, from, to);
  }
  void order_after_copies(CopyDirection way) override { device_.order_after_copies(way); }
  void copy_now(CopyDirection way, std::span<const std::byte> from, std::byte* to) override {
    device_.copy_now(way, from, to);
  }
  bool copies_done(CopyDirection way) override { return device_.copies_done(way); }
  std::uint64_t mark() override { return device_.mark(); }
  bool is_reached(std::uint64_t mark) override { return device_.is_reached(mark); }
  void download_rows(Rows x, std::span<float> host) override {
    const Buffer wide = device_.allocate(host.size_bytes());
    auto* floats = reinterpret_cast<float*>(wide.data());
    kernels::to_f32(x.data, x.n_rows * x.width, floats, stream());
    download(wide.data(), std::as_writable_bytes(host));
  }
  void synchronize(const std::function<void()>& poll) override { device_.synchronize(poll); }
  std::unique_ptr<PeerLinks> make_peer_links(int n_ranks) override {
    return cuda::make_peer_links(device_, n_ranks);
  }
  std::unique_ptr<SharedLayers> share_layers(SharedModel model, int rank) override {
    return cuda::share_layers(device_, weights_, std::move(model), rank);
  }

  void embed(std::span<const Token> tokens, const WeightView& table, Rows x) override {
    kernels::EmbeddingTable parts;
    parts.n_parts = 0;
    for (const auto& [first, rows] : weights_.find_parts(table)) {
      STARATTN_CHECK(parts.n_parts < kernels::kMostTableParts);
      parts.parts[parts.n_parts++] = {rows, static_cast<std::int32_t>(first)};
    }
    const Buffer ids = device_.allocate(tokens.size_bytes());
    upload_later(std::as_bytes(tokens), ids.data());
    kernels::embed_rows(reinterpret_cast<const std::int32_t*>(ids.data()), parts, x.n_rows, x.width,
                        x.data, stream());
  }

  void rms_norm(Rows x, const WeightView& weight, double eps, Rows y) override {
    STARATTN_CHECK(weight.n_cols == x.width && y.width == x.width && y.n_rows == x.n_rows);
    kernels::rms_norm(x.data, weights_.find(weight), static_cast<float>(eps), x.n_rows, x.width,
                      y.data, stream());
  }

  void linear(Rows x, const Projection& to, Product product) override {
    linear_all(x, {&to, 1}, product);
  }
  void linear_all(Rows x, std::span<const Projection> to, Product product) override {
    if (product == Product::chunk) {
      for (const Projection& p : to) multiply(x, p, /*add=*/false);
    } else {
      multiply_thin(x, to, /*add=*/false);
    }
  }
  void linear_gated(Rows x, const Projection& gate, const Projection& up,
                    Product product) override {
    if (product == Product::chunk || is_f8(gate.w) != is_f8(up.w))
      return Backend::linear_gated(x, gate, up, product);
    kernels::ThinLinear both{x.data, x.n_rows, x.width, kernels::ThinKind::gated, 2, {}};
    both.outputs[0] = thin_output(x, gate);
    both.outputs[1] = thin_output(x, up);
    kernels::thin_linear(both, stream());
  }
  void add_linear(Rows x, Rows a, const WeightView& w, const WeightView& bias, Product product,
                  Rows) override {
    const Projection to{w, bias, x};
    if (product == Product::chunk) {
      multiply(a, to, /*add=*/true);
    } else {
      multiply_thin(a, {&to, 1}, /*add=*/true);
    }
  }
  void linear_f32(Rows x, const WeightView& w, float* y) override {
    kernels::ThinLinear logits{x.data, x.n_rows, x.width, kernels::ThinKind::f32, 1, {}};
    logits.outputs[0] = thin_output(w, {}, y);
    kernels::thin_linear(logits, stream());
  }
  void draw_tokens(float* logits, std::int64_t n_values, std::span<const Draw> draws,
                   std::span<Token> tokens) override {
    STARATTN_CHECK(tokens.size() == draws.size());
    std::vector<kernels::Draw> rows;
    for (const Draw& draw : draws) rows.push_back({draw.temperature, draw.top_p, draw.unit});
    const auto row_bytes = std::as_bytes(std::span(rows));
    const Buffer draws_there = device_.allocate(row_bytes.size());
    upload_later(row_bytes, draws_there.data());
    const Buffer found = device_.allocate(tokens.size_bytes());
    const Buffer allowed = upload_allowed(draws, n_values);
    kernels::next_tokens(logits, std::ssize(draws), n_values,
                         reinterpret_cast<const kernels::Draw*>(draws_there.data()),
                         reinterpret_cast<const std::uint32_t*>(allowed.data()),
                         reinterpret_cast<std::int32_t*>(found.data()), stream());
    download(found.data(), std::as_writable_bytes(tokens));
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

  void rope(Rows x, std::int64_t head_dim, const float* cos, const float* sin) override {
    kernels::rotate_rows(heads_of(x, head_dim), {}, cos, sin, x.n_rows, static_cast<int>(head_dim),
                         stream());
  }
  void rope_both(Rows q, Rows k, std::int64_t head_dim, const float* cos,
                 const float* sin) override {
    STARATTN_CHECK(q.n_rows == k.n_rows);
    kernels::rotate_rows(heads_of(q, head_dim), heads_of(k, head_dim), cos, sin, q.n_rows,
                         static_cast<int>(head_dim), stream());
  }

  void narrow(Rows x, std::int64_t head_dim, RawRows to) override {
    const KvLayout layout{Dtype::f8, x.width / head_dim, head_dim};
    STARATTN_CHECK(x.width % head_dim == 0 && to.n_rows == x.n_rows &&
                   to.row_bytes == layout.row_bytes());
    kernels::narrow_rows(x.data, f8_rows(to.data, to.n_rows, layout), stream());
  }

  void attend(Rows q, std::span<const KvSegment> segments, const AttentionShape& shape,
              Product product, Partial partial) override {
    const WideSegments wide(*this, segments, shape);
    segments = wide.segments();
    const PartialBuffer memory(*this, q.n_rows, shape);
    const Partial part = memory.partial();
    for_each_input(q, segments, shape, [&](const kernels::AttentionInput& input) {
      if (product == Product::chunk) {
        kernels::prefill_attention(input, {nullptr, nullptr, as_kernel(part)}, stream());
      } else {
        const Buffer workspace = device_.allocate(kernels::partial_attention_workspace(input));
        kernels::partial_attention(input, as_kernel(part), workspace.data(), stream());
      }
      merge(partial, part, shape);
    });
  }

  void attend_alone(Rows q, std::span<const KvSegment> segments, const AttentionShape& shape,
                    Product product, Partial partial) override {
    const WideSegments wide(*this, segments, shape);
    segments = wide.segments();
    if (segments.empty() || segments.size() > kMostParts)
      return Backend::attend_alone(q, segments, shape, product, partial);
    for_each_input(q, segments, shape, [&](const kernels::AttentionInput& input) {
      if (product == Product::chunk)
        return kernels::prefill_attention(input, {nullptr, nullptr, as_kernel(partial)}, stream());
      const Buffer workspace = device_.allocate(kernels::partial_attention_workspace(input));
      kernels::partial_attention(input, as_kernel(partial), workspace.data(), stream());
    });
  }

  void attend_blocks(Rows q, std::span<const KvSegment> blocks, const AttentionShape& shape,
                     std::span<const Merge> merges, std::span<const Partial> parts) override {
    STARATTN_CHECK(parts.size() == blocks.size());
    if (blocks.size() > kMostParts || merges.size() > kMostParts)
      return Backend::attend_blocks(q, blocks, shape, merges, parts);
    std::optional<WideSegments> wide;
    if (!kernels::takes_hopper_kernels()) blocks = wide.emplace(*this, blocks, shape).segments();
    const std::vector<kernels::Merge> steps = as_kernel(merges);
    std::vector<kernels::Partial> results;
    for (const Partial& part : parts) results.push_back(as_kernel(part));
    for (const Merge& step : merges) results[static_cast<std::size_t>(step.from)] = {};
    for_each_input(q, blocks, shape, [&](const kernels::AttentionInput& input) {
      const Buffer workspace = device_.allocate(kernels::block_attention_workspace(input));
      kernels::block_attention(input, steps.data(), static_cast<int>(steps.size()), results.data(),
                               workspace.data(), stream());
    });
  }

  void attend_own(Rows q, Rows k, Rows v, std::span<const OwnTokens> own,
                  const AttentionShape& shape, Partial context, Rows out) override {
    STARATTN_CHECK(static_cast<std::int64_t>(own.size()) == q.n_rows);
    std::vector<kernels::OwnTokens> rows;
    for (const OwnTokens& row : own)
      rows.push_back(
          {row.k, row.v, static_cast<int>(row.n_before), static_cast<int>(row.n_beside)});
    kernels::attend_own_tokens(q.data, k.data, v.data, rows.data(), q.n_rows, as_kernel(shape),
                               scale_of(shape), as_kernel(context), out.data, stream());
  }

  void attend_all(Rows q, std::span<const KvSegment> segments, const AttentionShape& shape,
                  Product product, Partial scratch, Rows out) override {
    const WideSegments wide(*this, segments, shape);
    segments = wide.segments();
    if (product != Product::chunk || segments.empty() || segments.size() > kMostParts)
      return Backend::attend_all(q, segments, shape, product, scratch, out);
    for_each_input(q, segments, shape, [&](const kernels::AttentionInput& input) {
      kernels::prefill_attention(input, {out.data, nullptr, {}}, stream());
    });
  }

  void clear(Partial partial, const AttentionShape& shape) override {
    kernels::clear_partial(partial.o, partial.m, partial.l, partial.n_rows * shape.n_heads,
                           static_cast<int>(shape.head_dim), stream());
  }
  void merge(Partial into, Partial from, const AttentionShape& shape) override {
    const Partial parts[] = {into, from};
    const Merge step{0, 1};
    merge_all(parts, {&step, 1}, shape);
  }
  void merge_all(std::span<const Partial> parts, std::span<const Merge> merges,
                 const AttentionShape& shape) override {
    if (merges.empty()) return;
    if (parts.size() > kMostParts || merges.size() > kMostParts)
      return Backend::merge_all(parts, merges, shape);
    kernels::Partial converted[kMostParts];
    for (std::size_t i = 0; i < parts.size(); ++i) {
      STARATTN_CHECK(parts[i].n_rows == parts[0].n_rows);
      converted[i] = as_kernel(parts[i]);
    }
    const std::vector<kernels::Merge> steps = as_kernel(merges);
    kernels::merge_partials(converted, static_cast<int>(parts.size()), steps.data(),
                            static_cast<int>(steps.size()), parts[0].n_rows, as_kernel(shape),
                            stream());
  }
  void finish(Partial partial, const AttentionShape& shape, Rows out) override {
    STARATTN_CHECK(out.width == shape.n_heads * shape.head_dim && out.n_rows == partial.n_rows);
    kernels::finish_partial(as_kernel(partial), partial.n_rows, as_kernel(shape), out.data,
                            stream());
  }

  void finish_merged(Partial a, Partial b, const AttentionShape& shape, Rows out) override {
    STARATTN_CHECK(out.width == shape.n_heads * shape.head_dim && out.n_rows == a.n_rows &&
                   a.n_rows == b.n_rows);
    kernels::finish_merged(as_kernel(a), as_kernel(b), a.n_rows, as_kernel(shape), out.data,
                           stream());
  }

  void add(Rows x, Rows y) override {
    kernels::add_rows(x.data, y.data, x.n_rows * x.width, stream());
  }
  void swiglu(Rows gate, Rows up, Rows y) override {
    kernels::swiglu(gate.data, up.data, y.data, gate.n_rows * gate.width, stream());
  }

  void scale(Rows x, float factor) override {
    kernels::scale_rows(x.data, factor, x.n_rows * x.width, stream());
  }

  void choose_experts(Rows x, const WeightView& router, bool renormalise, Product product,
                      const ExpertChoice& choice) override {
    STARATTN_CHECK(choice.n_rows == x.n_rows && router.n_cols == x.width);
    const Buffer logits =
        device_.allocate(static_cast<std::size_t>(x.n_rows * router.n_rows) * sizeof(float));
    if (product == Product::chunk) {
      Buffer memory;
      matmul_.to_f32(x.data, in_bf16(router, memory), floats(logits), x.n_rows, router.n_rows,
                     router.n_cols);
    } else {
      linear_f32(x, router, floats(logits));
    }
    kernels::choose_experts(floats(logits), x.n_rows, static_cast<int>(router.n_rows),
                            static_cast<int>(choice.n_chosen), renormalise, choice.experts,
                            choice.shares, stream());
  }
  void add_experts(Rows x, Rows normed, std::span<const Expert> experts, const ExpertChoice& choice,
                   Product product) override {
    STARATTN_CHECK(choice.n_rows == x.n_rows && normed.n_rows == x.n_rows &&
                   normed.width == x.width && !experts.empty());
    const auto n_experts = static_cast<int>(experts.size());
    const auto n_chosen = static_cast<int>(choice.n_chosen);
    const std::int64_t n_places = x.n_rows * choice.n_chosen;
    const std::int64_t size = experts[0].gate_proj.n_rows;
    const int tile_rows =
        product == Product::chunk ? kernels::kWideTileRows : kernels::kThinTileRows;
    const auto allocate_for = [&](std::int64_t n, std::size_t n_bytes) {
      return device_.allocate(static_cast<std::size_t>(n) * n_bytes);
    };
    const Buffer places = allocate_for(2 * n_places, sizeof(std::int32_t));
    const Buffer tiles = allocate_for(kernels::most_expert_tiles(n_places, n_experts, tile_rows),
                                      sizeof(kernels::ExpertTile));
    const Buffer inner = allocate_for(n_places * size, size_of(Dtype::bf16));
    const Buffer made = allocate_for(n_places * x.width, size_of(Dtype::bf16));
    auto* in_order = reinterpret_cast<std::int32_t*>(places.data());
    const kernels::SortedPlaces sorted{in_order, in_order + n_places,
                                       reinterpret_cast<kernels::ExpertTile*>(tiles.data()),
                                       n_places, tile_rows};
    kernels::sort_places(choice.experts, n_experts, sorted, stream());
    const auto multiply = [&](kernels::ExpertLinear p, WeightView Expert::*kind,
                              WeightView Expert::*up_kind) {
      const ExpertMatrices w = matrices_of(experts, kind, product);
      p.n_out = w.of_one.n_rows;
      p.n_in = w.of_one.n_cols;
      p.n_experts = n_experts;
      p.w = w.values;
      p.scales = w.scales;
      p.block_rows = w.of_one.scales.block_rows;
      p.block_cols = w.of_one.scales.block_cols;
      if (up_kind) {
        const ExpertMatrices up = matrices_of(experts, up_kind, product);
        p.w_up = up.values;
        p.up_scales = up.scales;
      }
      kernels::expert_linear(p, sorted, stream());
    };
    multiply({.x = normed.data, .y = inner.data(), .places_per_row = n_chosen}, &Expert::gate_proj,
             &Expert::up_proj);
    multiply({.x = inner.data(), .y = made.data()}, &Expert::down_proj, nullptr);
    kernels::add_made(x.data, made.data(), sorted.sorted, choice.shares, x.n_rows, n_chosen,
                      x.width, stream());
  }

  void choose_asking_rows(const KvSegment& block, const AttentionShape& shape, std::int64_t n_rows,
                          std::int32_t* rows) override {
    STARATTN_CHECK(n_rows >= 1 && n_rows <= block.n_tokens);
    const Buffer unlikeness =
        device_.allocate(static_cast<std::size_t>(block.n_tokens) * sizeof(float));
    const Buffer workspace =
        device_.allocate(kernels::unlikeness_workspace(block.n_tokens, as_kernel(shape)));
    const Buffer theirs = device_.allocate(static_cast<std::size_t>(n_rows) * sizeof(float));
    const WideSegments wide(*this, {&block, 1}, shape, /*keys_only=*/true);
    kernels::unlikeness_to_mean(wide.segments()[0].k, block.n_tokens, as_kernel(shape),
                                floats(unlikeness), workspace.data(), stream());
    kernels::choose_best(floats(unlikeness), block.n_tokens, n_rows, rows, floats(theirs),
                         stream());
  }
  void gather_rows(std::span<const RawRows> from, const std::int32_t* rows, RawRows to) override {
    std::vector<kernels::RowSource> sources;
    for (const RawRows& part : from) {
      STARATTN_CHECK(part.row_bytes == to.row_bytes);
      sources.push_back({part.data, part.n_rows});
    }
    kernels::gather_rows(sources.data(), static_cast<int>(sources.size()), rows, to.n_rows,
                         to.row_bytes, to.data, stream());
  }
  void log_sum_exp(Rows q, const KvSegment& first, const KvSegment& second,
                   const AttentionShape& shape, float* z) override {
    const KvSegment both[] = {first, second};
    const WideSegments wide(*this, both, shape, /*keys_only=*/true);
    const std::span<const KvSegment> keys = wide.segments();
    kernels::log_sum_exp(asking_rows(q, shape), {keys[0].k, nullptr, first.n_tokens},
                         {keys[1].k, nullptr, second.n_tokens}, z, stream());
  }
  void score_keys(Rows q, const float* z, const KvSegment& keys, const AttentionShape& shape,
                  float* scores) override {
    const kernels::AskingRows asking = asking_rows(q, shape);
    const Buffer workspace = device_.allocate(kernels::score_workspace(asking));
    const WideSegments wide(*this, {&keys, 1}, shape, /*keys_only=*/true);
    kernels::score_keys(asking, z, {wide.segments()[0].k, nullptr, keys.n_tokens}, scores,
                        workspace.data(), stream());
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
    const std::int64_t first = first_row * w.n_cols;
    if (weights_.is_here(w)) {
      Buffer memory;
      const std::int64_t place = first_not_finite(
          static_cast<const std::uint16_t*>(in_bf16(w, memory)) + first, n_rows * w.n_cols);
      return place < 0 ? -1 : first + place;
    }
    // Rows that are kept elsewhere pass through.
    constexpr std::int64_t kMostValues = std::int64_t{32} << 20;
    const std::int64_t n_at_once = std::max<std::int64_t>(1, kMostValues / w.n_cols);
    const Buffer part = device_.allocate(static_cast<std::size_t>(n_at_once * w.n_cols) * 2);
    for (std::int64_t done = 0; done < n_rows; done += n_at_once) {
      const WeightView rows = w.rows(first_row + done, std::min(n_at_once, n_rows - done));
      weights_.upload_as_bf16(rows, part.data());
      const std::int64_t place = first_not_finite(
          reinterpret_cast<const std::uint16_t*>(part.data()), rows.n_rows * w.n_cols);
      if (place >= 0) return first + done * w.n_cols + place;
    }
    return -1;
  }

 private:
  // [draws.size(), words of a row] on the device, all bits set for a draw that may take any token;
  // empty where all may.
  Buffer upload_allowed(std::span<const Draw> draws, std::int64_t n_values) {
    const bool any = std::ranges::all_of(draws, [](const Draw& d) { return d.allowed.empty(); });
    if (any) return {};
    const auto n_words = static_cast<std::size_t>((n_values + 31) / 32);
    std::vector<std::uint32_t> rows;
    for (const Draw& draw : draws) {
      STARATTN_CHECK(draw.allowed.empty() || draw.allowed.size() == n_words);
      rows.resize(rows.size() + n_words, ~0U);
      std::copy(draw.allowed.begin(), draw.allowed.end(), rows.end() - std::ssize(draw.allowed));
    }
    Buffer there = device_.allocate(rows.size() * sizeof(std::uint32_t));
    upload_later(std::as_bytes(std::span(rows)), there.data());
    return there;
  }

  static constexpr auto kMostParts = static_cast<std::size_t>(kernels::kMaxSegments);

  // Of n bf16 values on the device, or -1.
  std::int64_t first_not_finite(const std::uint16_t* values, std::int64_t n) {
    constexpr std::int64_t kNowhere = INT64_MAX;
    std::int64_t place = kNowhere;
    const std::span<std::byte> bytes = std::as_writable_bytes(std::span(&place, 1));
    const Buffer found = device_.allocate(bytes.size());
    upload_later(bytes, found.data());
    kernels::find_not_finite(values, n, 0, reinterpret_cast<std::int64_t*>(found.data()), stream());
    download(found.data(), bytes);
    return place == kNowhere ? -1 : place;
  }
  // One matrix of each of a layer's experts, as the device has them: [n_experts].
  struct ExpertMatrices {
    WeightView of_one;  // their shape and blocks
    const void* const* values = nullptr;
    const float* const* scales = nullptr;  // null: bf16
  };
  // For products of many rows all are bf16. Phase 1 goes through a layer chunk by chunk, so what
  // was widened for one is kept for the next; phase 2 has no use for it.
  ExpertMatrices matrices_of(std::span<const Expert> experts, WeightView Expert::*kind,
                             Product product) {
    const WeightView& first = experts[0].*kind;
    ExpertTable& table = expert_tables_[first.data];
    if (!table.values.data()) table = make_table(experts, kind);
    const auto* values = reinterpret_cast<const void* const*>(table.values.data());
    const auto* scales = reinterpret_cast<const float* const*>(table.scales.data());
    if (!scales) return {first, values};
    if (product == Product::batch_invariant) {
      widened_.clear();
      return {first, values, scales};
    }
    const std::size_t number = kind == &Expert::gate_proj ? 0 : kind == &Expert::up_proj ? 1 : 2;
    widened_.resize(3);
    WidenedExperts& wide = widened_[number];
    if (wide.of != first.data) widen(std::ssize(experts), first, {values, scales}, wide);
    return {first, reinterpret_cast<const void* const*>(wide.places.data())};
  }
  struct ExpertTable {
    Buffer values, scales;  // [n_experts] pointers; no scales: bf16
  };
  ExpertTable make_table(std::span<const Expert> experts, WeightView Expert::*kind) {
    std::vector<const void*> values, scales;
    for (const Expert& expert : experts) {
      if (is_f8(expert.*kind)) {
        const kernels::ScaledMatrix matrix = weights_.find_f8(expert.*kind);
        values.push_back(matrix.values);
        scales.push_back(matrix.scales);
      } else {
        values.push_back(weights_.find(expert.*kind));
      }
    }
    STARATTN_CHECK(scales.empty() || scales.size() == values.size());
    return {pointers_there(values), scales.empty() ? Buffer{} : pointers_there(scales)};
  }
  Buffer pointers_there(const std::vector<const void*>& pointers) {
    const auto bytes = std::as_bytes(std::span(pointers));
    Buffer there = device_.allocate(bytes.size());
    device_.upload(bytes, there.data());
    return there;
  }
  struct WidenedExperts {
    const std::byte* of = nullptr;  // the first expert's matrix on the host
    Buffer memory, places;          // places: [n_experts] pointers into memory
  };
  void widen(std::int64_t n_experts, const WeightView& one, kernels::ExpertMatrices from,
             WidenedExperts& to) {
    const auto one_bytes = static_cast<std::size_t>(one.n_rows * one.n_cols) * size_of(Dtype::bf16);
    const std::size_t n_bytes = static_cast<std::size_t>(n_experts) * one_bytes;
    if (to.memory.n_bytes() != n_bytes) {
      to.memory = device_.allocate(n_bytes);
      std::vector<const void*> places;
      for (std::size_t at = 0; at < n_bytes; at += one_bytes)
        places.push_back(to.memory.data() + at);
      to.places = pointers_there(places);
    }
    to.of = one.data;
    from.n_experts = static_cast<int>(n_experts);
    from.n_rows = one.n_rows;
    from.n_cols = one.n_cols;
    from.block_rows = one.scales.block_rows;
    from.block_cols = one.scales.block_cols;
    kernels::widen_experts(from, to.memory.data(), stream());
  }
  // The segments, with those that are FP8 in bf16.
  class WideSegments {
   public:
    WideSegments(CudaBackend& backend, std::span<const KvSegment> segments,
                 const AttentionShape& shape, bool keys_only = false)
        : segments_(segments.begin(), segments.end()) {
      const KvLayout layout{Dtype::f8, shape.n_kv_heads, shape.head_dim};
      for (KvSegment& segment : segments_) {
        if (!std::exchange(segment.is_f8, false)) continue;
        for (const std::byte** half : {&segment.k, keys_only ? nullptr : &segment.v}) {
          if (!half || segment.n_tokens == 0) continue;
          const Buffer& wide = memory_.emplace_back(backend.device_.allocate(
              static_cast<std::size_t>(segment.n_tokens * layout.width()) * size_of(Dtype::bf16)));
          kernels::widen_rows(f8_rows(*half, segment.n_tokens, layout), wide.data(),
                              backend.stream());
          *half = wide.data();
        }
      }
    }
    std::span<const KvSegment> segments() const { return segments_; }

   private:
    std::vector<KvSegment> segments_;
    std::vector<Buffer> memory_;
  };
  static kernels::F8Rows f8_rows(const std::byte* data, std::int64_t n_rows,
                                 const KvLayout& layout) {
    return {data, n_rows, static_cast<int>(layout.n_heads), static_cast<int>(layout.head_dim)};
  }
  kernels::Stream stream() const { return device_.stream(); }
  static float* floats(const Buffer& buffer) { return reinterpret_cast<float*>(buffer.data()); }
  static kernels::AskingRows asking_rows(Rows q, const AttentionShape& shape) {
    STARATTN_CHECK(q.width == shape.n_heads * shape.head_dim);
    return {as_kernel(shape), q.data, q.n_rows, scale_of(shape)};
  }

  static kernels::AttentionShape as_kernel(const AttentionShape& shape) {
    return {static_cast<int>(shape.n_heads), static_cast<int>(shape.n_kv_heads),
            static_cast<int>(shape.head_dim)};
  }
  static kernels::Partial as_kernel(const Partial& partial) {
    return {partial.o, partial.m, partial.l};
  }
  static std::vector<kernels::Merge> as_kernel(std::span<const Merge> merges) {
    std::vector<kernels::Merge> steps;
    for (const Merge& step : merges) steps.push_back({step.into, step.from});
    return steps;
  }
  static kernels::HeadRows heads_of(Rows x, std::int64_t head_dim) {
    return {x.data, static_cast<int>(x.width / head_dim)};
  }
  static float scale_of(const AttentionShape& shape) {
    return static_cast<float>(1 / std::sqrt(static_cast<double>(shape.head_dim)));
  }
  // At most kMaxSegments segments at a time, in order; only the last one of all may be causal.
  template <typename Use>
  void for_each_input(Rows q, std::span<const KvSegment> segments, const AttentionShape& shape,
                      const Use& use) {
    for (std::size_t first = 0; first < segments.size(); first += kMostParts) {
      const auto some = segments.subspan(first, std::min(kMostParts, segments.size() - first));
      kernels::KvSegment converted[kMostParts];
      for (std::size_t i = 0; i < some.size(); ++i) {
        STARATTN_CHECK(!some[i].causal || first + i + 1 == segments.size());
        STARATTN_CHECK(some[i].is_f8 == segments[0].is_f8);
        converted[i] = {some[i].k, some[i].v, some[i].n_tokens};
      }
      use({.shape = as_kernel(shape),
           .q = q.data,
           .n_rows = q.n_rows,
           .q_row_stride = q.width,
           .segments = converted,
           .n_segments = static_cast<int>(some.size()),
           .causal = some.back().causal,
           .scale = scale_of(shape),
           .is_f8 = segments[0].is_f8});
    }
  }

  void multiply(Rows x, const Projection& to, bool add) {
    check_shape(x, to);
    Buffer memory;
    matmul_(x.data, in_bf16(to.w, memory), weights_.find(to.bias), to.y.data, x.n_rows, to.w.n_rows,
            to.w.n_cols, add);
  }

  void multiply_thin(Rows x, std::span<const Projection> to, bool add) {
    STARATTN_CHECK(to.size() <= kernels::kMaxThinOutputs);
    for (const Projection& p : to) {
      if (is_f8(p.w) == is_f8(to[0].w)) continue;
      for (const Projection& one : to) multiply_thin(x, {&one, 1}, add);
      return;
    }
    kernels::ThinLinear product{
        x.data, x.n_rows, x.width, kernels::ThinKind::bf16, static_cast<int>(to.size()), {}};
    for (std::size_t i = 0; i < to.size(); ++i) {
      product.outputs[i] = thin_output(x, to[i]);
      if (add) product.outputs[i].plus = to[i].y.data;
    }
    kernels::thin_linear(product, stream());
  }

  kernels::ThinOutput thin_output(Rows x, const Projection& to) {
    check_shape(x, to);
    return thin_output(to.w, to.bias, to.y.data);
  }
  kernels::ThinOutput thin_output(const WeightView& w, const WeightView& bias, void* y) {
    kernels::ThinOutput output;
    output.bias = weights_.find(bias);
    output.y = y;
    output.n_out = w.n_rows;
    if (!is_f8(w)) {
      output.w = weights_.find(w);
      return output;
    }
    const kernels::ScaledMatrix matrix = weights_.find_f8(w);
    output.w = matrix.values;
    output.scales = matrix.scales;
    output.block_rows = matrix.block_rows;
    output.block_cols = matrix.block_cols;
    output.first_row = matrix.first_row;
    return output;
  }
  bool is_f8(const WeightView& w) { return weights_.is_f8(w); }
  // The matrix for a product of many rows; one that is kept as FP8 is widened into `memory`.
  const void* in_bf16(const WeightView& w, Buffer& memory) {
    if (!is_f8(w)) return weights_.find(w);
    memory = device_.allocate(static_cast<std::size_t>(w.n_rows * w.n_cols) * size_of(Dtype::bf16));
    kernels::f8_to_bf16(weights_.find_f8(w), memory.data(), stream());
    return memory.data();
  }

  static void check_shape(Rows x, const Projection& to) {
    STARATTN_CHECK(x.width == to.w.n_cols && to.y.width == to.w.n_rows && x.n_rows == to.y.n_rows);
  }

  cuda::Device device_;
  cuda::PinnedPool pinned_;
  cuda::Matmul matmul_;
  cuda::DeviceWeights weights_;
  std::unordered_map<const std::byte*, ExpertTable> expert_tables_;  // by the first expert's matrix
  std::vector<WidenedExperts> widened_;  // gate, up and down of one layer, or nothing
};

}  // namespace

int n_cuda_devices() {
  int n = 0;
  return cudaGetDeviceCount(&n) == cudaSuccess ? n : 0;
}

std::unique_ptr<Backend> make_cuda_backend(int device) {
  return std::make_unique<CudaBackend>(device);
}

}  // namespace starattn
