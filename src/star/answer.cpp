// SPDX-License-Identifier: Apache-2.0
#include "star/answer.h"

#include <algorithm>
#include <numeric>
#include <utility>

#include "base/clock.h"
#include "base/json.h"
#include "star/kv_check.h"
#include "trace/range.h"

namespace starattn {

QueryExchange Answerer::exchange(Decoder& decoder, const Communicator& group) {
  return {group, group.split_by_node(), decoder.backend(), decoder.attention_shape(),
          std::max<std::int64_t>(kMaxRows, group.size())};
}

Answerer::Answerer(Decoder& decoder, QueryExchange& exchange, const DocumentKv& kv,
                   AnswerOptions options)
    : decoder_(&decoder),
      backend_(&decoder.backend()),
      exchange_(&exchange),
      group_(&exchange.group()),
      kv_(&kv),
      options_(std::move(options)),
      shape_(decoder.attention_shape()),
      rows_per_rank_(options_.spread_queries ? std::max<std::int64_t>(1, kMaxRows / group_->size())
                                             : kMaxRows),
      context_(*backend_, exchange, kv, decoder.config().n_layers, shape_, options_.tree_merge),
      x_(*backend_, rows_per_rank_, decoder.config().hidden_size),
      q_(*backend_, rows_per_rank_, decoder.config().q_width()),
      k_(*backend_, rows_per_rank_, decoder.config().kv_width()),
      v_(*backend_, rows_per_rank_, decoder.config().kv_width()),
      attended_(*backend_, rows_per_rank_, decoder.config().q_width()),
      host_logits_(static_cast<std::size_t>(decoder.config().vocab_size)) {
  STARATTN_CHECK(decoder.max_rows() >= rows_per_rank_);
}

Rank Answerer::owner_of(std::size_t query) const {
  return options_.spread_queries
             ? static_cast<Rank>(query % static_cast<std::size_t>(group_->size()))
             : 0;
}

StepBatch Answerer::new_batch() const {
  const ModelConfig& config = decoder_->config();
  return {
      {rows_per_rank_, options_.query_kv_bytes, config.kv_bytes_per_token(backend_->kv_dtype())},
      [this, &config](std::int64_t n_tokens) {
        return KvCache(*backend_, config.n_layers, n_tokens, config.kv_width());
      }};
}

std::vector<QueryResult> Answerer::answer(std::span<const QueryJob> jobs) {
  const trace::Range range("phase 2");
  const Stopwatch clock;
  StepBatch batch = new_batch();
  for (std::size_t i = 0; i < jobs.size(); ++i) {
    if (jobs[i].tokens.empty()) fail(Exit::bad_data, "query {} is empty", i);
    if (owner_of(i) == group_->rank()) batch.add(i, jobs[i]);
  }
  std::vector<QueryResult> results(jobs.size());
  context_.start();
  for (bool is_stopped = false;;) {
    batch.choose_rows(/*may_begin=*/!is_stopped);
    const Step step = meet(batch);
    is_stopped = is_stopped || step.is_asked_to_stop;
    if (step.has_answers) hand_out_answers(results);
    if (!step.has_rows()) break;
    forward(batch);
    for (const std::span<const StepBatch::QueryRows> run : batch.runs()) {
      const std::vector<Token> next = next_tokens(batch, run);
      for (std::size_t i = 0; i < run.size(); ++i)
        if (run[i].is_last) take_next_token(batch, run[i].query, next[i], clock.seconds());
    }
    options_.poll();
  }
  const std::vector<std::int64_t> left = group_->allgather(batch.n_not_begun());
  n_left_ = std::accumulate(left.begin(), left.end(), std::int64_t{0});
  for (std::size_t query = 0; query < batch.n_queries(); ++query)
    results[batch.index_of(query)] = std::move(batch.result_of(query));
  return results;
}

std::vector<float> Answerer::logits_of(const std::vector<Token>& query_tokens,
                                       std::int64_t n_last) {
  const QueryJob job{query_tokens, 0, 0};
  StepBatch batch = new_batch();
  if (group_->is_root()) batch.add(0, job);
  std::vector<float> logits;
  context_.start();
  for (std::int64_t done = 0; done < std::ssize(query_tokens);) {
    batch.choose_rows(/*may_begin=*/true);
    const std::int64_t n = meet(batch).n_rows[0];
    forward(batch);
    for (std::int64_t row = 0; row < batch.n_rows(); ++row) {
      if (done + row < std::ssize(query_tokens) - n_last) continue;
      const std::span<const float> one = logits_of_row(row);
      logits.insert(logits.end(), one.begin(), one.end());
    }
    done += n;
  }
  return logits;
}

Step Answerer::meet(const StepBatch& batch) {
  const bool can_go_on = passes_check() && batch.no_memory().empty();
  const std::vector<StepShare> shares =
      exchange_->meet(StepShare{batch.n_rows(), options_.stop(), !answered_.empty(), !can_go_on});
  const Step step = agree(shares);
  if (step.has_failed) {
    collectively(*group_, [&] {
      if (failure_) throw *failure_;
      if (!batch.no_memory().empty()) fail(Exit::bad_data, "{}", batch.no_memory());
    });
  }
  exchange_->start_step(step.n_rows);
  return step;
}

void Answerer::forward(StepBatch& batch) {
  const std::int64_t n = batch.n_rows();
  const Rows x = x_.rows(n);
  const Rows q = q_.rows(n);
  const Rows k = k_.rows(n);
  const Rows v = v_.rows(n);
  RopeTable rope;
  if (n > 0) {
    std::vector<std::int64_t> positions = batch.n_before();
    for (std::int64_t& position : positions) position += kv_->plan.n_context();
    rope = decoder_->rope_table(positions);
    decoder_->embed(batch.tokens(), x);
  }
  for (std::int64_t layer = 0; layer < decoder_->config().n_layers; ++layer) {
    if (n > 0)
      decoder_->project_qkv(layer, x, rope.cos(), rope.sin(), q, k, v, Product::batch_invariant);
    const Partial context = context_.attend(layer, q);
    if (n == 0) continue;
    // The query's own tokens come last.
    backend_->attend_own(q, k, v, batch.own_tokens(layer), shape_, context, attended_.rows(n));
    decoder_->add_attention_output(layer, attended_.rows(n), x, Product::batch_invariant);
    decoder_->add_feed_forward(layer, x, Product::batch_invariant);
  }
  batch.rows_are_done();
}

// Logits come to the host only where they are asked for.
std::vector<Token> Answerer::next_tokens(StepBatch& batch,
                                         std::span<const StepBatch::QueryRows> run) {
  std::vector<Draw> draws;
  for (const StepBatch::QueryRows& rows : run) {
    draws.push_back(draw_of(options_.sampling, batch.job_of(rows.query).sampling_key,
                            batch.result_of(rows.query).tokens.size()));
  }
  std::vector<Token> next(run.size());
  {
    const trace::Range range("logits");
    decoder_->next_tokens(x_.rows(run.front().last_row(), std::ssize(run)), draws, next);
  }
  for (std::size_t i = 0; i < run.size(); ++i) {
    QueryResult& result = batch.result_of(run[i].query);
    const bool is_first = run[i].is_last && result.tokens.empty() && next[i] != kNoToken;
    if (is_first && options_.n_logprobs > 0)
      result.logprobs = top_logits(logits_of_row(run[i].last_row()), options_.n_logprobs);
  }
  return next;
}

std::span<const float> Answerer::logits_of_row(std::int64_t row) {
  const trace::Range range("logits");
  decoder_->logits(x_.rows(row, 1), host_logits_);
  return host_logits_;
}

void Answerer::take_next_token(StepBatch& batch, std::size_t query, Token next, double seconds) {
  const std::size_t index = batch.index_of(query);
  const bool is_wanted = batch.job_of(query).max_new_tokens > 0;
  const bool is_eos = std::ranges::count(options_.eos_tokens, next) > 0;
  const bool is_stop = next != kNoToken && is_wanted &&
                       (is_eos || (options_.stops_by_text && options_.stops_by_text(index, next)));
  std::string overflow;
  if (next == kNoToken || is_stop || batch.is_at_last_token(query))
    overflow = overflow_of(batch, query, next);
  if (!overflow.empty()) {
    batch.give_up(query, std::move(overflow));
  } else if (!batch.take(query, next, is_stop)) {
    return;
  }
  QueryResult& result = batch.result_of(query);
  result.seconds = seconds;
  if (!group_->is_root()) {
    answered_.emplace_back(index, result);
  } else if (options_.finished && result.error.empty() && passes_check()) {
    options_.finished(index, result);
  }
}

std::string Answerer::overflow_of(StepBatch& batch, std::size_t query, Token next) const {
  const std::int64_t n_layers = decoder_->config().n_layers;
  const std::int64_t n_done = batch.n_done_of(query);
  const KvCache& own = batch.kv_of(query);
  KvCheck check(*backend_, n_layers);
  for (std::int64_t layer = 0; layer < n_layers; ++layer)
    check.look(layer, own.k_rows(layer, 0, n_done), own.v_rows(layer, 0, n_done));
  if (const std::optional<Overflow> found = check.result(own)) {
    const std::int64_t n_asked = std::ssize(batch.job_of(query).tokens);
    const bool is_asked = found->token < n_asked;
    return fmt::format("{}, at token {} of the {}", describe(*found, n_layers),
                       is_asked ? found->token : found->token - n_asked,
                       is_asked ? "query" : "answer");
  }
  if (next != kNoToken) return "";
  return fmt::format(
      "values overflow behind the keys and values of layer {}, the last, at token {} of the answer",
      n_layers - 1, batch.result_of(query).tokens.size());
}

bool Answerer::passes_check() {
  try {
    options_.check();
  } catch (const Error& error) {
    failure_ = error;
  }
  return !failure_;
}

void Answerer::hand_out_answers(std::vector<QueryResult>& results) {
  Json mine = Json::array();
  for (const auto& [query, result] : std::exchange(answered_, {})) {
    mine.push_back({query, result.tokens, static_cast<int>(result.reason), result.logprobs,
                    result.seconds, result.error});
  }
  for (const std::string& text : group_->gather_texts(mine.dump(), 0)) {
    for (const Json& entry : parse_json(text, "answers")) {
      const auto query = entry[0].get<std::size_t>();
      QueryResult& result = results[query];
      result.tokens = entry[1].get<std::vector<Token>>();
      result.reason = static_cast<FinishReason>(entry[2].get<int>());
      result.logprobs = entry[3].get<std::vector<std::pair<Token, float>>>();
      result.seconds = entry[4].get<double>();
      result.error = entry[5].get<std::string>();
      if (options_.finished && result.error.empty()) options_.finished(query, result);
    }
  }
}

}  // namespace starattn
