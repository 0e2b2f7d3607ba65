// SPDX-License-Identifier: Apache-2.0
#include "star/step_forward.h"
#include "trace/range.h"

namespace starattn {
namespace {

class WholeForward : public StepForward {
 public:
  WholeForward(Decoder& decoder, QueryExchange& exchange, const DocumentKv& kv,
               std::int64_t max_rows, bool tree_merge, bool has_queries)
      : decoder_(&decoder),
        backend_(&decoder.backend()),
        kv_(&kv),
        context_(*backend_, exchange, kv, decoder.config().n_layers, decoder.attention_shape(),
                 tree_merge),
        tail_(decoder.config(), *backend_, exchange.group(), kv,
              {0, has_queries ? decoder.config().n_kv_heads : 0}, max_rows),
        x_(*backend_, max_rows, decoder.config().hidden_size),
        q_(*backend_, max_rows, decoder.config().q_width()),
        k_(*backend_, max_rows, decoder.config().kv_width()),
        v_(*backend_, max_rows, decoder.config().kv_width()),
        attended_(*backend_, max_rows, decoder.config().q_width()),
        host_logits_(static_cast<std::size_t>(decoder.config().vocab_size)) {
    STARATTN_CHECK(decoder.max_rows() >= max_rows);
  }

  void start_document() override {
    context_.start();
    tail_.start();
  }
  std::int64_t own_kv_width() const override { return decoder_->config().kv_width(); }

  void run(const PassRows& rows) override {
    const std::int64_t n = rows.n();
    const std::vector<std::int64_t> positions = rows.positions(kv_->plan.n_context());
    RopeTable rope;
    if (n > 0) {
      rope = decoder_->rope_table(positions);
      decoder_->embed(rows.tokens, x_.rows(n));
    }
    const auto layers = [&] {
      for (std::int64_t layer = 0; layer < decoder_->config().n_layers; ++layer)
        run_layer(layer, rows, positions, rope);
    };
    if (rows.is_ahead && context_.is_at_hand() && !decoder_->fetches_layers())
      repeated_->run(layers);
    else
      layers();
  }

  void draw(std::int64_t first_row, std::span<const Draw> draws, Token* tokens) override {
    const trace::Range range("logits");
    decoder_->next_tokens(x_.rows(first_row, std::ssize(draws)), draws, tokens);
  }
  std::span<const float> logits_of(std::int64_t row) override {
    const trace::Range range("logits");
    decoder_->logits(x_.rows(row, 1), host_logits_);
    return host_logits_;
  }
  std::optional<Overflow> find_overflow(const KvCache& own, std::int64_t n_tokens) override {
    return starattn::find_overflow(*backend_, own, n_tokens);
  }

 private:
  void run_layer(std::int64_t layer, const PassRows& rows, std::span<const std::int64_t> positions,
                 const RopeTable& rope) {
    const trace::At at({.layer = layer});
    const LayerConfig& config = decoder_->config().layer(layer);
    const std::int64_t n = rows.n();
    const Rows x = x_.rows(n);
    const Rows q = q_.rows(n);
    const Rows k = k_.rows(n);
    const Rows v = v_.rows(n);
    if (n > 0)
      decoder_->project_qkv(layer, x, rope.angles(config), q, k, v, Product::batch_invariant);
    if (config.has_window() && n == 0) return;
    attend(layer, rows, positions, q, k, v);
    if (n == 0) return;
    decoder_->add_attention_output(layer, attended_.rows(n), x, Product::batch_invariant);
    decoder_->add_feed_forward(layer, x, Product::batch_invariant);
  }
  // attended_ of the rows, to the context and, last, to their queries' own tokens.
  void attend(std::int64_t layer, const PassRows& rows, std::span<const std::int64_t> positions,
              Rows q, Rows k, Rows v) {
    const LayerConfig& config = decoder_->config().layer(layer);
    const AttentionShape shape = decoder_->attention_shape();
    const Rows out = attended_.rows(q.n_rows);
    if (context_.can_finish() && q.n_rows > 0 && !config.has_window() && !decoder_->has_sinks()) {
      context_.finish(layer, q, k, v, rows.own_tokens(layer, config.window), out);
      return;
    }
    PartialTree context;
    if (config.has_window())
      context.parts = {tail_.attend(layer, q, shape, positions)};
    else
      context = context_.attend(layer, q);
    if (q.n_rows == 0) return;
    decoder_->merge_sinks(layer, context);
    backend_->attend_own(q, k, v, rows.own_tokens(layer, config.window), shape, context, out);
  }

  Decoder* decoder_;
  Backend* backend_;
  const DocumentKv* kv_;
  ContextAttention context_;
  ContextTail tail_;
  std::unique_ptr<Repeated> repeated_ = backend_->make_repeated();
  RowBuffer x_, q_, k_, v_, attended_;
  std::vector<float> host_logits_;  // [vocab]
};

}  // namespace

std::unique_ptr<StepForward> make_whole_forward(Decoder& decoder, QueryExchange& exchange,
                                                const DocumentKv& kv, std::int64_t max_rows,
                                                bool tree_merge, bool has_queries) {
  return std::make_unique<WholeForward>(decoder, exchange, kv, max_rows, tree_merge, has_queries);
}

}  // namespace starattn
