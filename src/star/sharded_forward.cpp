// SPDX-License-Identifier: Apache-2.0
// Each product reads this rank's columns of the weights, and its result is gathered before the next
// one: no sum crosses ranks, so a row has the bits that one rank alone gives it.
#include <algorithm>
#include <utility>

#include "star/step_forward.h"
#include "trace/range.h"

namespace starattn {
namespace {

const WeightView kNoNorm;

class ShardedForward : public StepForward {
 public:
  ShardedForward(ShardedDecoder& decoder, ShardExchange& exchange, const DocumentKv& kv,
                 std::int64_t max_rows)
      : decoder_(&decoder),
        backend_(&decoder.backend()),
        exchange_(&exchange),
        kv_(&kv),
        context_(*backend_, exchange, kv, config().n_layers,
                 {config().n_heads, config().n_kv_heads, config().head_dim},
                 /*merge_by_rank=*/false),
        tail_(config(), *backend_, exchange.group(), kv,
              max_rows > 0 ? decoder.kv_heads() : Share{}, max_rows),
        x_(*backend_, max_rows, config().hidden_size),
        x_columns_(*backend_, max_rows, decoder.hidden().count),
        q_(*backend_, max_rows, decoder.q_width()),
        k_(*backend_, max_rows, decoder.kv_width()),
        v_(*backend_, max_rows, decoder.kv_width()),
        attended_heads_(*backend_, max_rows, decoder.q_width()),
        attended_(*backend_, max_rows, config().q_width()),
        experts_(*backend_, max_rows * config().mixture.n_chosen, decoder.of_expert().count,
                 config().mixture.expert_size),
        dense_(*backend_, max_rows, decoder.widest_inner(), config().widest_dense()),
        host_logits_(static_cast<std::size_t>(config().vocab_size)) {
    std::int64_t k_end = 0;
    for (const HeadShare& share : decoder.plan().heads) {
      const std::int64_t head_dim = config().head_dim;
      q_columns_.push_back({share.heads.first * head_dim, share.heads.count * head_dim});
      const std::int64_t k_first = std::exchange(
          k_end, std::max(k_end, share.kv_heads.count > 0 ? share.kv_heads.end() * head_dim : 0));
      k_columns_.push_back({k_first, k_end - k_first});
    }
    const ShardPlan& plan = decoder.plan();
    for (const std::span<const Share> columns :
         {std::span<const Share>(q_columns_), std::span(plan.hidden), std::span(plan.intermediate)})
      if (std::ranges::any_of(columns, [](const Share& share) { return share.count == 0; }))
        reader_ = Reader::any;
  }

  void start_document() override {
    context_.start();
    tail_.start();
  }
  std::int64_t own_kv_width() const override { return decoder_->kv_width(); }

  void run(const PassRows& rows) override {
    const std::int64_t n = rows.n();
    const Rows x = x_.rows(n);
    const Rows x_columns = x_columns_.rows(n);
    const std::vector<std::int64_t> positions = rows.positions(kv_->plan.n_context());
    RopeTable rope;
    if (n > 0) {
      rope = decoder_->rope_table(positions);
      decoder_->embed(rows.tokens, x);
      if (x_columns.width > 0) backend_->copy_columns(x, decoder_->hidden().first, x_columns);
    }
    const auto layers = [&] {
      if (n > 0 && !config().norms_outputs) {
        const RowNorm first = decoder_->input_norm(0);
        backend_->rms_norm(x, first.weight, first.eps, decoder_->normed_rows(n), reader_);
      }
      for (std::int64_t layer = 0; layer < config().n_layers; ++layer)
        run_layer(layer, rows, positions, rope);
    };
    if (rows.is_ahead && context_.is_at_hand())
      repeated_->run(layers);
    else
      layers();
  }

  // Every rank of the node has all logits and draws the same tokens.
  void draw(std::int64_t first_row, std::span<const Draw> draws, Token* tokens) override {
    const trace::Range range("logits");
    const Rows x = x_.rows(first_row, std::ssize(draws));
    const bool is_greedy = std::ranges::all_of(draws, &Draw::is_greedy);
    if (is_greedy) return choose_highest(x, draws, tokens);
    const Buffer logits = gather_logits(x);
    backend_->draw_tokens(reinterpret_cast<float*>(logits.data()), config().vocab_size, draws,
                          tokens);
  }
  std::span<const float> logits_of(std::int64_t row) override {
    const trace::Range range("logits");
    const Buffer logits = gather_logits(x_.rows(row, 1));
    backend_->download(logits.data(), std::as_writable_bytes(std::span(host_logits_)));
    return host_logits_;
  }

  bool was_in_vain() override { return exchange_->was_in_vain(); }

  // The first of all ranks', who keep some heads each. It came in with the row, from the layer
  // before, only where no head of that token is left.
  std::optional<Overflow> find_overflow(const KvCache& own, std::int64_t n_tokens) override {
    std::optional<Overflow> mine;
    if (own.width() > 0) mine = starattn::find_overflow(*backend_, own, n_tokens);
    const Found said{own.width() > 0, mine.has_value(), mine.value_or(Overflow{})};
    const std::vector<Found> all = exchange_->node().allgather(said);
    std::optional<Overflow> first;
    for (const Found& theirs : all)
      if (theirs.has_any && (!first || place(theirs.at) < place(*first))) first = theirs.at;
    if (!first) return first;
    const bool came_in = std::ranges::all_of(all, [&](const Found& theirs) {
      return !theirs.keeps_heads ||
             (theirs.has_any && theirs.at.is_result && place(theirs.at) == place(*first));
    });
    const std::int64_t layer = place(*first).first;
    return Overflow{came_in ? layer - 1 : layer, came_in, first->token};
  }

 private:
  // Rows inside a feed forward: this rank's columns, and all.
  struct Gated {
    Gated(Backend& backend, std::int64_t max_rows, std::int64_t n_mine, std::int64_t n_all)
        : columns(backend, max_rows, n_mine), all(backend, max_rows, n_all) {}
    RowBuffer columns, all;
  };
  struct Found {
    bool keeps_heads = false;
    bool has_any = false;
    Overflow at;
  };
  // The layer in whose keys or values it was seen, and the token.
  static std::pair<std::int64_t, std::int64_t> place(const Overflow& at) {
    return {at.is_result ? at.layer + 1 : at.layer, at.token};
  }

  const ModelConfig& config() const { return decoder_->config(); }

  // What each product makes of this rank's columns is gathered behind it.
  void run_layer(std::int64_t layer, const PassRows& rows, std::span<const std::int64_t> positions,
                 const RopeTable& rope) {
    const std::int64_t n = rows.n();
    const Rows x = x_.rows(n);
    const Rows x_columns = x_columns_.rows(n);
    const Rows normed = config().norms_outputs ? x : decoder_->normed_rows(n);
    const Rows q = q_.rows(n);
    const Rows k = k_.rows(n);
    const Rows v = v_.rows(n);
    const Rows attended_heads = attended_heads_.rows(n);
    const Rows attended = attended_.rows(n);
    const ShardPlan& plan = decoder_->plan();
    const AttentionShape shape = decoder_->attention_shape();
    const trace::At at({.layer = layer});
    const LayerConfig& of_layer = config().layer(layer);
    if (n == 0) {  // of this node
      if (!of_layer.has_window()) context_.attend(layer, q);
      return;
    }
    const Angles angles = rope.angles(of_layer);
    if (config().norms_all_heads) {
      decoder_->project_qkv(layer, normed, angles, q, k, v);
      normalise_all_heads(layer, q, k);
    }
    if (!of_layer.has_window()) exchange_->announce_queries(q);
    if (config().norms_all_heads)
      decoder_->rotate(q, k, angles);
    else
      decoder_->project_qkv(layer, normed, angles, q, k, v);
    PartialTree context;
    if (!of_layer.has_window()) {
      context = context_.attend(layer, q, !decoder_->has_sinks());
    } else if (shape.n_heads > 0) {
      context.parts = {tail_.attend(layer, q, shape, positions)};
    }
    exchange_->announce(attended_heads, q_columns_);
    if (shape.n_heads > 0) {
      decoder_->merge_sinks(layer, context);
      backend_->attend_own(q, k, v, rows.own_tokens(layer, of_layer.window), shape, context,
                           attended_heads);
    }
    exchange_->gather(attended_heads, q_columns_, attended, reader_);
    exchange_->announce(x_columns, plan.hidden);
    decoder_->add_attention_output(layer, attended, x_columns);
    const bool is_mixture = config().is_mixture(layer);
    finish_half(x_columns, decoder_->attention_output_norm(layer),
                decoder_->feed_forward_norm(layer), x, is_mixture ? Reader::any : reader_);
    const std::int64_t inner = config().dense_size(layer);
    if (is_mixture) add_experts(layer, normed, x_columns, /*is_last=*/inner == 0);
    if (inner > 0) add_dense(layer, normed, x_columns);
    const bool is_last = layer + 1 == config().n_layers;
    finish_half(x_columns, decoder_->feed_forward_output_norm(layer),
                is_last ? RowNorm{kNoNorm, 0} : decoder_->input_norm(layer + 1), x, reader_);
  }

  // Of q and k of this rank's heads, as they come out of their products: those of all ranks' heads
  // are gathered for it, in memory that has no other use before these have attended.
  void normalise_all_heads(std::int64_t layer, Rows q, Rows k) {
    const std::int64_t n = q.n_rows, head_dim = config().head_dim;
    const Rows all_q = attended_.rows(n), all_k{all_q.data, n, config().kv_width()};
    const auto normalise = [&](Rows mine, std::span<const Share> columns, Rows all,
                               const RowNorm& norm, std::int64_t first, Rows to) {
      exchange_->gather(mine, columns, all);
      backend_->rms_norm(all, norm.weight, norm.eps, all);
      if (to.width > 0) backend_->copy_columns(all, first, to);
    };
    normalise(q, q_columns_, all_q, decoder_->q_norm(layer), decoder_->heads().first * head_dim, q);
    // Of ranks that read the same KV head the first one gives it.
    const Rows given{k.data, n, k_columns_[decoder_->rank()].count};
    normalise(given, k_columns_, all_k, decoder_->k_norm(layer),
              decoder_->kv_heads().first * head_dim, k);
  }

  // What the ranks have made of a half of a layer, in all of x; and the rows that go on from there:
  // those behind the next norm, or x.
  void finish_half(Rows columns, const RowNorm& behind, const RowNorm& next, Rows x,
                   Reader reader) {
    const std::span<const Share> hidden = decoder_->plan().hidden;
    const Rows normed = decoder_->normed_rows(x.n_rows);
    if (behind.weight) {
      exchange_->gather(columns, hidden, normed);
      backend_->rms_norm(normed, behind.weight, behind.eps, normed);
      backend_->add(x, normed);
    } else if (next.weight) {
      exchange_->gather_normed(columns, hidden, next, x, normed, reader);
    } else {
      exchange_->gather(columns, hidden, x);
    }
  }

  // The two parts of a feed forward, to this rank's columns of x. is_last: these are gathered next.
  void add_experts(std::int64_t layer, Rows normed, Rows x_columns, bool is_last) {
    const ShardPlan& plan = decoder_->plan();
    const std::int64_t n_places = normed.n_rows * config().mixture.n_chosen;
    const Rows columns = experts_.columns.rows(n_places), all = experts_.all.rows(n_places);
    exchange_->announce(columns, plan.of_expert);
    decoder_->gate_experts(layer, normed, columns);
    exchange_->gather(columns, plan.of_expert, all);
    if (is_last) exchange_->announce(x_columns, plan.hidden);
    decoder_->add_experts(layer, all, x_columns);
  }
  void add_dense(std::int64_t layer, Rows normed, Rows x_columns) {
    const std::int64_t n = normed.n_rows;
    const std::span<const Share> shares = decoder_->inner_shares(layer);
    const Rows columns{dense_.columns.rows(n).data, n, decoder_->inner(layer).count};
    const Rows all{dense_.all.rows(n).data, n, config().dense_size(layer)};
    exchange_->announce(columns, shares);
    decoder_->gate(layer, normed, columns);
    exchange_->gather(columns, shares, all, config().is_mixture(layer) ? Reader::any : reader_);
    exchange_->announce(x_columns, decoder_->plan().hidden);
    decoder_->add_down(layer, normed, all, x_columns);
  }

  Buffer logits_buffer(std::int64_t n_rows, std::int64_t n_columns) {
    const auto n = static_cast<std::size_t>(n_rows * n_columns);
    return backend_->allocate(std::max<std::size_t>(1, n) * sizeof(float));
  }
  // [x.n_rows, vocab().count] fp32
  Buffer own_logits(Rows x) {
    Buffer mine = logits_buffer(x.n_rows, decoder_->vocab().count);
    decoder_->logits(x, reinterpret_cast<float*>(mine.data()));
    return mine;
  }
  // [x.n_rows, vocab] fp32
  Buffer gather_logits(Rows x) {
    const Buffer mine = own_logits(x);
    Buffer all = logits_buffer(x.n_rows, config().vocab_size);
    exchange_->gather(mine.data(), x.n_rows, decoder_->plan().vocab, sizeof(float), all.data());
    return all;
  }
  // Without drawing: every rank's highest logit of a row is all that the others need.
  void choose_highest(Rows x, std::span<const Draw> draws, Token* tokens) {
    const Share vocab = decoder_->vocab();
    const std::int64_t n_ranks = std::ssize(decoder_->plan().vocab);
    const auto n_rows = static_cast<std::size_t>(x.n_rows);
    const Buffer logits = own_logits(x);
    constexpr std::int64_t kParts = Backend::kHighestParts;
    const std::int64_t n_parts = n_ranks * kParts;  // of a row
    const Buffer mine = backend_->allocate(n_rows * kParts * sizeof(Highest));
    const Buffer all =
        backend_->allocate(n_rows * static_cast<std::size_t>(n_parts) * sizeof(Highest));
    backend_->find_highest(reinterpret_cast<const float*>(logits.data()), vocab.count,
                           static_cast<Token>(vocab.first), draws,
                           reinterpret_cast<Highest*>(mine.data()));
    std::vector<Share> parts;
    for (std::int64_t rank = 0; rank < n_ranks; ++rank) parts.push_back({rank * kParts, kParts});
    exchange_->gather(mine.data(), x.n_rows, parts, sizeof(Highest), all.data());
    backend_->choose_highest(reinterpret_cast<const Highest*>(all.data()), x.n_rows, n_parts,
                             tokens);
  }

  ShardedDecoder* decoder_;
  Backend* backend_;
  ShardExchange* exchange_;
  const DocumentKv* kv_;
  ContextAttention context_;
  ContextTail tail_;
  std::unique_ptr<Repeated> repeated_ = backend_->make_repeated();
  std::vector<Share> q_columns_;
  std::vector<Share> k_columns_;     // of each KV head once
  Reader reader_ = Reader::product;  // of gathered rows: no rank is without columns of a product
  RowBuffer x_;                      // [max_rows, hidden], the residual stream
  RowBuffer x_columns_;              // this rank's columns of it
  RowBuffer q_, k_, v_;              // of this rank's heads
  RowBuffer attended_heads_;         // the same
  RowBuffer attended_;               // of all heads
  Gated experts_, dense_;
  std::vector<float> host_logits_;  // [vocab]
};

}  // namespace

std::unique_ptr<StepForward> make_sharded_forward(ShardedDecoder& decoder, ShardExchange& exchange,
                                                  const DocumentKv& kv, std::int64_t max_rows) {
  return std::make_unique<ShardedForward>(decoder, exchange, kv, max_rows);
}

}  // namespace starattn
