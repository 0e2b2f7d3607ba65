// SPDX-License-Identifier: Apache-2.0
#include "backend/timed_backend.h"

#include <algorithm>
#include <utility>

#include "backend/timed_links.h"
#include "backend/work_counter.h"
#include "trace/recorder.h"

namespace starattn {
namespace {

using trace::Lane;
using trace::Span;
using trace::Work;

// Together, but where the device's times are asked for: their marks lie between operations.
class TimedRepeated : public Repeated {
 public:
  TimedRepeated(std::unique_ptr<Repeated> repeated, bool has_clock)
      : repeated_(std::move(repeated)), has_clock_(has_clock) {}
  void run(const std::function<void()>& operations) override {
    const trace::Recorder& recorder = trace::recorder();
    const bool has_marks = has_clock_ && recorder.has_readers() && recorder.times_devices();
    has_marks ? operations() : repeated_->run(operations);
  }

 private:
  std::unique_ptr<Repeated> repeated_;
  bool has_clock_;
};

class TimedBackend : public Backend {
 public:
  explicit TimedBackend(std::unique_ptr<Backend> backend)
      : backend_(std::move(backend)), clock_(backend_->make_clock()), count_(*backend_) {
    if (backend_->kv_dtype() == Dtype::f8) keep_kv_in_f8();
    if (backend_->rounds_rows()) round_rows_to_f8();
  }
  ~TimedBackend() override {
    try {
      if (clock_) backend_->synchronize();
    } catch (const Error&) {  // a broken device; its times come to an end at once
    }
    trace::recorder().settle();
  }

  std::string describe() const override { return backend_->describe(); }
  Dtype activation_dtype() const override { return backend_->activation_dtype(); }
  std::int64_t chunk_rows() const override { return backend_->chunk_rows(); }
  void check_model(const ModelShape& model) const override { backend_->check_model(model); }
  std::uint64_t memory_bytes() const override { return backend_->memory_bytes(); }
  std::uint64_t free_bytes() const override { return backend_->free_bytes(); }
  std::uint64_t peak_bytes() const override { return backend_->peak_bytes(); }
  std::optional<double> energy_joules() const override { return backend_->energy_joules(); }
  Buffer allocate(std::size_t n_bytes) override { return backend_->allocate(n_bytes); }
  Buffer allocate_pinned(std::size_t n_bytes) override {
    return backend_->allocate_pinned(n_bytes);
  }
  Buffer pin(std::span<std::byte> host) override { return backend_->pin(host); }
  void load(const WeightView& weight, const BytesRead& read) override {
    backend_->load(weight, read);
  }
  std::uint64_t bytes_in_memory(const WeightView& weight) const override {
    return backend_->bytes_in_memory(weight);
  }
  void order_after_copies(CopyDirection direction) override {
    backend_->order_after_copies(direction);
  }
  bool copies_done(CopyDirection direction) override { return backend_->copies_done(direction); }
  std::uint64_t mark() override { return backend_->mark(); }
  bool is_reached(std::uint64_t mark) override { return backend_->is_reached(mark); }
  void await(std::uint64_t mark) override {
    if (!clock_) return backend_->await(mark);
    const Span span("wait for the device", Lane::host);
    backend_->await(mark);
  }
  void download_later(const std::byte* device, std::span<std::byte> host) override {
    backend_->download_later(device, host);
  }
  bool works_behind_host() const override { return backend_->works_behind_host(); }
  std::unique_ptr<Repeated> make_repeated() override {
    return std::make_unique<TimedRepeated>(backend_->make_repeated(), clock_ != nullptr);
  }
  std::unique_ptr<PeerLinks> make_peer_links(int n_ranks) override {
    std::unique_ptr<PeerLinks> links = backend_->make_peer_links(n_ranks);
    if (!links) return links;
    return make_timed_links(std::move(links), clock_.get());
  }
  std::unique_ptr<SharedLayers> share_layers(SharedModel model, int rank) override {
    return backend_->share_layers(std::move(model), rank);
  }
  std::unique_ptr<FetchedLayers> stream_layers(const LayerMatrices& layers) override {
    return backend_->stream_layers(layers);
  }

  // --- copies: in the operations' order, or beside them

  void upload(std::span<const std::byte> host, std::byte* device) override {
    const Span span = operation("upload", WorkCounter::moved(host));
    backend_->upload(host, device);
  }
  void upload_later(std::span<const std::byte> host, std::byte* device) override {
    const Span span = operation("upload", WorkCounter::moved(host));
    backend_->upload_later(host, device);
  }
  void download(const std::byte* device, std::span<std::byte> host) override {
    const Span span = operation("download", WorkCounter::moved(host));
    backend_->download(device, host);
  }
  void download_rows(Rows x, std::span<float> host) override {
    const Span span = operation("download", WorkCounter::moved(std::as_bytes(host)));
    backend_->download_rows(x, host);
  }
  void copy_after_operations(CopyDirection direction, std::span<const std::byte> from,
                             std::byte* to) override {
    const Span span = copy(direction, from, Span::Starts::behind_operations);
    backend_->copy_after_operations(direction, from, to);
  }
  void copy_now(CopyDirection direction, std::span<const std::byte> from, std::byte* to) override {
    const Span span = copy(direction, from, Span::Starts::at_once);
    backend_->copy_now(direction, from, to);
  }
  void synchronize(const std::function<void()>& poll) override {
    if (!clock_) return backend_->synchronize(poll);
    const Span span("wait for the device", Lane::host);
    backend_->synchronize(poll);
  }

  // --- the decoder layer

  void embed(const Token* tokens, const WeightView& table, Rows x) override {
    const Span span = operation("embed", count_.rows(x, 2));
    backend_->embed(tokens, table, x);
  }
  void rms_norm(Rows x, const WeightView& weight, double eps, Rows y, Reader reader) override {
    const Span span = operation("norm", count_.rows(x, 2));
    backend_->rms_norm(x, weight, eps, y, reader);
  }
  void linear(Rows x, const Projection& to, Product product) override {
    const Span span = operation("project", count_.products(x, {&to, 1}));
    backend_->linear(x, to, product);
  }
  void linear_all(Rows x, std::span<const Projection> to, Product product) override {
    const char* name = to.size() == 3   ? "project q, k, v"
                       : to.size() == 2 ? "project k, v"
                                        : "project";
    const Span span = operation(name, count_.products(x, to));
    backend_->linear_all(x, to, product);
  }
  void linear_gated(Rows x, const Projection& gate, const Projection& up,
                    Product product) override {
    Work work = count_.product(x, gate.w);
    work.flop *= 2;
    work.n_bytes += static_cast<double>(bytes_in_memory(up.w));
    const Span span = operation("gate and up", work);
    backend_->linear_gated(x, gate, up, product);
  }
  void add_linear(Rows x, Rows a, const WeightView& w, const WeightView& bias, Product product,
                  Rows scratch) override {
    Work work = count_.product(a, w);
    work.n_bytes += number(x.n_rows * x.width) * count_.element_bytes();
    const Span span = operation("project and add", work);
    backend_->add_linear(x, a, w, bias, product, scratch);
  }
  void linear_f32(Rows x, const WeightView& w, float* y) override {
    const Span span = operation("logits", count_.product(x, w));
    backend_->linear_f32(x, w, y);
  }
  void draw_tokens(float* logits, std::int64_t n_values, std::span<const Draw> draws,
                   Token* tokens) override {
    const std::int64_t n_rows = std::ssize(draws);
    const Span span = operation(
        "draw tokens", {.n_rows = n_rows, .n_bytes = number(n_rows * n_values) * sizeof(float)});
    backend_->draw_tokens(logits, n_values, draws, tokens);
  }
  void find_highest(const float* logits, std::int64_t n_values, Token first,
                    std::span<const Draw> draws, Highest* to) override {
    const std::int64_t n_rows = std::ssize(draws);
    const Span span = operation(
        "find highest", {.n_rows = n_rows, .n_bytes = number(n_rows * n_values) * sizeof(float)});
    backend_->find_highest(logits, n_values, first, draws, to);
  }
  void choose_highest(const Highest* parts, std::int64_t n_rows, std::int64_t n_parts,
                      Token* tokens) override {
    const Span span =
        operation("choose highest",
                  {.n_rows = n_rows, .n_bytes = number(n_rows * n_parts) * sizeof(Highest)});
    backend_->choose_highest(parts, n_rows, n_parts, tokens);
  }
  void copy_columns(Rows x, std::int64_t first, Rows to) override {
    const Span span = operation("copy columns", count_.rows(to, 2));
    backend_->copy_columns(x, first, to);
  }
  void rope(Rows x, const HeadSplit& head, const float* cos, const float* sin) override {
    const Span span = operation("RoPE", count_.rows(x, 2));
    backend_->rope(x, head, cos, sin);
  }
  void rope_both(Rows q, Rows k, const HeadSplit& head, const float* cos,
                 const float* sin) override {
    Work work = count_.rows(q, 2);
    work.n_bytes += count_.rows(k, 2).n_bytes;
    const Span span = operation("RoPE", work);
    backend_->rope_both(q, k, head, cos, sin);
  }
  void narrow(Rows x, std::int64_t head_dim, RawRows to) override {
    Work work = count_.rows(x, 1);
    work.n_bytes += number(to.n_rows) * static_cast<double>(to.row_bytes);
    const Span span = operation("round to FP8", work);
    backend_->narrow(x, head_dim, to);
  }
  void attend(Rows q, std::span<const KvSegment> segments, const AttentionShape& shape,
              Product product, Partial partial) override {
    const Span span = operation("attention", count_.attention(q, segments, shape));
    backend_->attend(q, segments, shape, product, partial);
  }
  void attend_alone(Rows q, std::span<const KvSegment> segments, const AttentionShape& shape,
                    Product product, Partial partial) override {
    const Span span = operation("attention", count_.attention(q, segments, shape));
    backend_->attend_alone(q, segments, shape, product, partial);
  }
  std::size_t exponent_bytes(std::int64_t n_tokens, const AttentionShape& shape) const override {
    return backend_->exponent_bytes(n_tokens, shape);
  }
  void lay_out_exponents(const KvSegment& block, const AttentionShape& shape,
                         std::byte* to) override {
    const double n_bytes = number(backend_->exponent_bytes(block.n_tokens, shape));
    const Span span = operation("exponents of keys", {.n_bytes = 2 * n_bytes});
    backend_->lay_out_exponents(block, shape, to);
  }
  void attend_blocks(Rows q, std::span<const KvSegment> blocks, const AttentionShape& shape,
                     std::span<const Merge> merges, std::span<const Partial> parts) override {
    const Span span = operation("attention", count_.attention(q, blocks, shape));
    backend_->attend_blocks(q, blocks, shape, merges, parts);
  }
  void attend_blocks_and_own(Rows q, Rows k, Rows v, std::span<const KvSegment> blocks,
                             const PartialTree& context, std::span<const OwnTokens> own,
                             const AttentionShape& shape, Rows out) override {
    Work work = count_.attention(q, blocks, shape);
    const Work of_own = count_.own_tokens(q, own, shape, 0);
    work.n_keys += of_own.n_keys;
    work.flop += of_own.flop;
    work.n_bytes += of_own.n_bytes;
    const Span span = operation("attention", work);
    backend_->attend_blocks_and_own(q, k, v, blocks, context, own, shape, out);
  }
  void attend_from(Rows q, const KvSegment& segment, std::span<const std::int64_t> first,
                   const AttentionShape& shape, Partial partial) override {
    Work work = count_.attention(q, {}, shape);
    for (const std::int64_t at : first) work.n_keys = std::max(work.n_keys, segment.n_tokens - at);
    for (const std::int64_t at : first)
      work.flop += 4 * number(shape.n_heads * shape.head_dim * (segment.n_tokens - at));
    work.n_bytes += number(work.n_keys) / number(std::max<std::int64_t>(1, segment.n_tokens)) *
                        count_.kv_bytes(segment, shape) +
                    count_.partial_bytes(q.n_rows, shape);
    const Span span = operation("attention", work);
    backend_->attend_from(q, segment, first, shape, partial);
  }
  void attend_own(Rows q, Rows k, Rows v, std::span<const OwnTokens> own,
                  const AttentionShape& shape, Partial context, Rows out) override {
    const Span span = operation("attention to own tokens", count_.own_tokens(q, own, shape, 1));
    backend_->attend_own(q, k, v, own, shape, context, out);
  }
  void attend_own(Rows q, Rows k, Rows v, std::span<const OwnTokens> own,
                  const AttentionShape& shape, const PartialTree& context, Rows out) override {
    const Span span = operation("attention to own tokens",
                                count_.own_tokens(q, own, shape, std::ssize(context.parts)));
    backend_->attend_own(q, k, v, own, shape, context, out);
  }
  void attend_all(Rows q, std::span<const KvSegment> segments, const AttentionShape& shape,
                  Product product, Partial scratch, Rows out) override {
    const Span span = operation("attention", count_.attention(q, segments, shape));
    backend_->attend_all(q, segments, shape, product, scratch, out);
  }
  void clear(Partial partial, const AttentionShape& shape) override {
    const Span span = operation("clear partials", count_.partials(partial, shape, 1));
    backend_->clear(partial, shape);
  }
  void merge(Partial into, Partial from, const AttentionShape& shape) override {
    const Span span = operation("merge partials", count_.partials(into, shape, 3));
    backend_->merge(into, from, shape);
  }
  void merge_all(std::span<const Partial> parts, std::span<const Merge> merges,
                 const AttentionShape& shape) override {
    Work work;
    if (!parts.empty())
      work = count_.partials(parts.front(), shape, 3 * static_cast<double>(merges.size()));
    const Span span = operation("merge partials", work);
    backend_->merge_all(parts, merges, shape);
  }
  void merge_sinks(Partial partial, const WeightView& sinks, const AttentionShape& shape) override {
    const Span span = operation("merge sinks", count_.partials(partial, shape, 2));
    backend_->merge_sinks(partial, sinks, shape);
  }
  void finish(Partial partial, const AttentionShape& shape, Rows out) override {
    const Span span = operation("finish attention", count_.partials(partial, shape, 1));
    backend_->finish(partial, shape, out);
  }
  void finish_merged(Partial a, Partial b, const AttentionShape& shape, Rows out) override {
    const Span span = operation("finish attention", count_.partials(a, shape, 2));
    backend_->finish_merged(a, b, shape, out);
  }
  void add(Rows x, Rows y) override {
    const Span span = operation("add", count_.rows(x, 3));
    backend_->add(x, y);
  }
  void scale(Rows x, float factor) override {
    const Span span = operation("scale", count_.rows(x, 2));
    backend_->scale(x, factor);
  }
  void swiglu(Rows gate, Rows up, Rows y) override {
    const Span span = operation("SwiGLU", count_.rows(gate, 3));
    backend_->swiglu(gate, up, y);
  }

  void scale_by_gate(Rows x, Rows by, const WeightView& gate) override {
    const Span span = operation("scale by gate", count_.rows(x, 2));
    backend_->scale_by_gate(x, by, gate);
  }

  // --- mixtures of experts

  void choose_experts(Rows x, const Router& router, Product product,
                      const ExpertChoice& choice) override {
    const Span span = operation("choose experts", count_.product(x, router.w));
    backend_->choose_experts(x, router, product, choice);
  }
  // How many experts are read nobody knows here: no bytes.
  void add_experts(Rows x, Rows normed, std::span<const Expert> experts, const GatedUnit& unit,
                   const ExpertChoice& choice, Product product) override {
    const std::int64_t size = experts.empty() ? 0 : experts.front().gate_proj.n_rows;
    const Span span =
        operation("experts", {.n_rows = x.n_rows,
                              .n_in = x.width,
                              .n_out = size,
                              .flop = 6 * number(x.n_rows * choice.n_chosen * x.width * size)});
    backend_->add_experts(x, normed, experts, unit, choice, product);
  }
  void gate_experts(Rows normed, std::span<const Expert> experts, const GatedUnit& unit,
                    const ExpertChoice& choice, Product product, Rows gated) override {
    const Span span =
        operation("gate experts", {.n_rows = normed.n_rows,
                                   .n_in = normed.width,
                                   .n_out = gated.width,
                                   .flop = 4 * number(gated.n_rows * normed.width * gated.width)});
    backend_->gate_experts(normed, experts, unit, choice, product, gated);
  }
  void add_gated_experts(Rows x, Rows gated, std::span<const Expert> experts,
                         const ExpertChoice& choice, Product product) override {
    const Span span =
        operation("add experts", {.n_rows = x.n_rows,
                                  .n_in = gated.width,
                                  .n_out = x.width,
                                  .flop = 2 * number(gated.n_rows * gated.width * x.width)});
    backend_->add_gated_experts(x, gated, experts, choice, product);
  }

  // --- recall

  void choose_asking_rows(const KvSegment& block, const AttentionShape& shape, std::int64_t n_rows,
                          std::int32_t* rows) override {
    const Span span = operation(
        "choose asking rows",
        {.n_rows = n_rows, .n_keys = block.n_tokens, .n_bytes = count_.kv_bytes(block, shape) / 2});
    backend_->choose_asking_rows(block, shape, n_rows, rows);
  }
  void gather_rows(std::span<const RawRows> from, const std::int32_t* rows, RawRows to) override {
    const Span span = operation(
        "gather rows", {.n_rows = to.n_rows,
                        .n_bytes = 2 * number(to.n_rows) * static_cast<double>(to.row_bytes)});
    backend_->gather_rows(from, rows, to);
  }
  void log_sum_exp(Rows q, const KvSegment& first, const KvSegment& second,
                   const AttentionShape& shape, float* z) override {
    const Span span =
        operation("ordinary scores", count_.scores(q, first.n_tokens + second.n_tokens, shape));
    backend_->log_sum_exp(q, first, second, shape, z);
  }
  void score_keys(Rows q, const float* z, const KvSegment& keys, const AttentionShape& shape,
                  float* to) override {
    const Span span = operation("score keys", count_.scores(q, keys.n_tokens, shape));
    backend_->score_keys(q, z, keys, shape, to);
  }
  void choose_best(const float* from, std::int64_t n_scores, std::int64_t n_best,
                   std::int32_t* best, float* best_scores) override {
    const Span span = operation(
        "choose best keys",
        {.n_rows = n_best, .n_keys = n_scores, .n_bytes = number(n_scores) * sizeof(float)});
    backend_->choose_best(from, n_scores, n_best, best, best_scores);
  }

  // --- values that are not finite

  void find_not_finite(Rows x, std::int64_t first, std::int64_t* place) override {
    const Span span = operation("look for overflow", count_.rows(x, 1));
    backend_->find_not_finite(x, first, place);
  }
  std::int64_t first_not_finite(const WeightView& w, std::int64_t first_row,
                                std::int64_t n_rows) override {
    return backend_->first_not_finite(w, first_row, n_rows);
  }

 private:
  Span operation(const char* name, const Work& work) {
    return Span(name, Lane::compute, work, clock_.get());
  }
  Span copy(CopyDirection direction, std::span<const std::byte> bytes, Span::Starts starts) {
    const bool is_upload = direction == CopyDirection::to_device;
    return Span(is_upload ? "copy to the device" : "copy to the host",
                is_upload ? Lane::to_device : Lane::to_host, WorkCounter::moved(bytes),
                clock_.get(), starts);
  }
  std::unique_ptr<Backend> backend_;
  std::unique_ptr<trace::DeviceClock> clock_;  // goes first
  WorkCounter count_;
};

}  // namespace

std::unique_ptr<Backend> make_timed_backend(std::unique_ptr<Backend> backend) {
  return std::make_unique<TimedBackend>(std::move(backend));
}

}  // namespace starattn
