// SPDX-License-Identifier: Apache-2.0
#include "star/answer.h"

#include <algorithm>
#include <utility>

#include "base/clock.h"
#include "base/json.h"
#include "star/kv_check.h"
#include "trace/range.h"

namespace starattn {
namespace {

// Takes a token that is no EOS to its answer's form; kNoToken: none was allowed. Why that cannot
// be; else empty.
std::string take_on(Guide& guide, Token next) {
  try {
    if (next == kNoToken) {
      guide.grammar->allowed(guide.state);
    } else {
      guide.state = guide.grammar->after(guide.state, next);
    }
  } catch (const Error& error) {
    return error.what();
  }
  return "";
}

}  // namespace

QueryExchange Answerer::exchange(Decoder& decoder, const Communicator& group) {
  return {group, group.split_by_node(), decoder.backend(), decoder.attention_shape(),
          std::max<std::int64_t>(kMaxRows, group.size())};
}

std::unique_ptr<ShardExchange> Answerer::exchange(ShardedDecoder& decoder,
                                                  const Communicator& group,
                                                  const Communicator& node,
                                                  std::unique_ptr<PeerLinks> links) {
  const ModelConfig& config = decoder.config();
  std::vector<Share> heads;
  for (const HeadShare& share : decoder.plan().heads) heads.push_back(share.heads);
  return make_shard_exchange(group, node, decoder.backend(),
                             {config.n_heads, config.n_kv_heads, config.head_dim}, std::move(heads),
                             std::max<std::int64_t>(kMaxRows, group.size()), std::move(links));
}

Answerer::Answerer(const ModelConfig& config, Backend& backend, StepExchange& exchange,
                   AnswerOptions options, Querier querier)
    : config_(&config),
      backend_(&backend),
      exchange_(&exchange),
      group_(&exchange.group()),
      options_(std::move(options)),
      querier_(querier),
      max_rows_(std::max<std::int64_t>(1, kMaxRows / static_cast<std::int64_t>(n_with_queries()))),
      tokens_(backend, max_rows_) {
  if (options_.n_lookup > 0 && has_queries()) lookup_.emplace(options_.context);
}

Answerer::Answerer(Decoder& decoder, QueryExchange& exchange, const DocumentKv& kv,
                   AnswerOptions options)
    : Answerer(decoder.config(), decoder.backend(), exchange, std::move(options),
               {nullptr, exchange.group().rank(), exchange.group().size()}) {
  STARATTN_CHECK(decoder.max_rows() >= kMaxRows);
  forward_ =
      make_whole_forward(decoder, exchange, kv, max_rows_, options_.tree_merge, has_queries());
  kv_tokens_ = kv_tokens();
}

Answerer::Answerer(ShardedDecoder& decoder, ShardExchange& exchange, const DocumentKv& kv,
                   AnswerOptions options)
    : Answerer(decoder.config(), decoder.backend(), exchange, std::move(options),
               {&exchange.node(), exchange.node_number(), exchange.n_nodes()}) {
  forward_ = make_sharded_forward(decoder, exchange, kv, has_queries() ? max_rows_ : 0);
  // All batches of a node have to begin the same queries, and their keys and values take more on
  // one rank than on another.
  kv_tokens_ = std::ranges::min(exchange.node().allgather(kv_tokens()));
}

bool Answerer::is_mine(std::size_t query) const {
  return query % n_with_queries() == static_cast<std::size_t>(querier_.number);
}

std::int64_t Answerer::kv_tokens() const {
  const std::uint64_t bytes_per_token =
      2 * static_cast<std::uint64_t>(config_->n_layers * forward_->own_kv_width()) *
      size_of(backend_->activation_dtype());
  if (bytes_per_token == 0) return INT64_MAX;
  constexpr std::uint64_t kMost = INT64_MAX;
  return static_cast<std::int64_t>(std::min(kMost, options_.query_kv_bytes / bytes_per_token));
}

StepBatch Answerer::new_batch() const {
  return {{max_rows_, kv_tokens_, DraftLength(options_.n_lookup, !options_.adapts_lookup)},
          [this](std::int64_t n_tokens) { return make_own_kv(n_tokens); },
          lookup_ ? StepBatch::Drafter([this](const QueryJob& job, std::span<const Token> answer,
                                              std::int64_t n_most) {
            return lookup_->draft(job.tokens, answer, n_most);
          })
                  : nullptr};
}

KvCache Answerer::make_own_kv(std::int64_t n_tokens) const {
  const auto make = [&] {
    const KvLayout layout{backend_->activation_dtype(), 1, forward_->own_kv_width()};
    return KvCache(*backend_, config_->n_layers, n_tokens, layout);
  };
  if (!querier_.ranks) return make();
  KvCache own;
  collectively(*querier_.ranks, [&] { own = make(); });
  return own;
}

std::vector<QueryResult> Answerer::answer(std::span<const QueryJob> jobs) {
  const trace::Range range("phase 2");
  const Stopwatch clock;
  StepBatch batch = new_batch();
  for (std::size_t i = 0; i < jobs.size(); ++i) {
    if (jobs[i].tokens.empty()) fail(Exit::bad_data, "query {} is empty", i);
    if (is_mine(i)) batch.add(i, jobs[i]);
  }
  std::vector<QueryResult> results(jobs.size());
  n_predicted_ = n_taken_ = 0;
  forward_->start_document();
  std::int64_t n_steps = 0;
  for (bool is_stopped = false;;) {
    const trace::Step timed(n_steps++);
    bool went_ahead = batch.choose_rows(/*may_begin=*/!is_stopped);
    const Step step = meet(batch);
    is_stopped = is_stopped || step.is_asked_to_stop;
    if (step.has_answers) hand_out_answers(results);
    if (!step.has_rows()) break;
    const trace::Span span("step", trace::Lane::host, {.n_rows = batch.n_rows()});
    std::vector<Run> runs;
    std::span<const Token> next;
    do {
      if (!std::exchange(went_ahead, false)) run(batch, step);
      runs = batch.runs();
      draw(batch, runs);
      go_ahead(batch, /*may_begin=*/!is_stopped);
      next = tokens_.collect();
      keep_logprobs(batch, runs, next);
    } while (forward_->was_in_vain());
    batch.rows_are_done();
    take_next_tokens(batch, runs, next, clock.seconds());
    options_.poll();
  }
  count_over_ranks(batch.n_not_begun());
  for (std::size_t query = 0; query < batch.n_queries(); ++query)
    results[batch.index_of(query)] = std::move(batch.result_of(query));
  return results;
}

std::vector<float> Answerer::logits_of(const std::vector<Token>& query_tokens,
                                       std::int64_t n_last) {
  const QueryJob job{query_tokens, 0, 0};
  StepBatch batch = new_batch();
  if (is_mine(0)) batch.add(0, job);
  std::vector<float> logits;
  forward_->start_document();
  for (std::int64_t done = 0; done < std::ssize(query_tokens);) {
    batch.choose_rows(/*may_begin=*/true);
    const Step step = meet(batch);
    const std::size_t n_known = logits.size();
    do {
      run(batch, step);
      logits.resize(n_known);
      for (std::int64_t row = 0; row < batch.n_rows(); ++row) {
        if (done + row < std::ssize(query_tokens) - n_last) continue;
        const std::span<const float> one = forward_->logits_of(row);
        logits.insert(logits.end(), one.begin(), one.end());
      }
    } while (forward_->was_in_vain());
    batch.rows_are_done();
    done += step.n_rows[0];
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
  return step;
}

void Answerer::run(StepBatch& batch, const Step& step) {
  // Whoever may go ahead has the same rows on every rank.
  batch.begin_again();
  exchange_->start_step(exchange_->may_go_ahead() ? rows_of_all(batch.n_rows()) : step.n_rows);
  forward_->run(batch.pass(tokens_.upload(batch.tokens())));
}

std::vector<std::int64_t> Answerer::rows_of_all(std::int64_t n_rows) const {
  return std::vector<std::int64_t>(static_cast<std::size_t>(group_->size()), n_rows);
}

bool Answerer::needs_tokens_first(const StepBatch& batch) const {
  const auto asks = [&](const StepBatch::QueryRows& rows) {
    const bool is_first = batch.result_of(rows.query).tokens.empty();
    return has_guide(batch.index_of(rows.query)) || (is_first && options_.n_logprobs > 0);
  };
  return std::ranges::any_of(batch.rows(), asks);
}

void Answerer::go_ahead(StepBatch& batch, bool may_begin) {
  if (!backend_->works_behind_host() || !exchange_->may_go_ahead() || needs_tokens_first(batch) ||
      !batch.can_go_ahead(may_begin))
    return;
  const PassRows rows = batch.go_ahead(tokens_.all());
  exchange_->start_step(rows_of_all(rows.n()));
  forward_->run(rows);
}

// With shared weights every rank of a node has counted all.
void Answerer::count_over_ranks(std::int64_t n_not_begun) {
  struct Counts {
    std::int64_t n_left = 0, n_predicted = 0, n_taken = 0;
  };
  const Counts mine{n_not_begun, n_predicted_, n_taken_};
  const std::vector<Counts> all = group_->allgather(querier_.is_leader() ? mine : Counts{});
  n_left_ = n_predicted_ = n_taken_ = 0;
  for (const Counts& counts : all) {
    n_left_ += counts.n_left;
    n_predicted_ += counts.n_predicted;
    n_taken_ += counts.n_taken;
  }
}

void Answerer::draw(StepBatch& batch, std::span<const Run> runs) {
  allowed_.clear();
  for (const Run& run : runs)
    forward_->draw(run.front().row, draws_of(batch, run), tokens_.next(run.size()));
  tokens_.fetch();
}

std::vector<Draw> Answerer::draws_of(StepBatch& batch, const Run& run) {
  const std::size_t n_words = (static_cast<std::size_t>(config_->vocab_size) + 31) / 32;
  std::vector<Draw> draws;
  Grammar::State state;  // of the query, behind its drafts so far
  for (const StepBatch::Prediction& p : run) {
    const std::size_t n_known = batch.result_of(p.query).tokens.size();
    const QueryJob& job = batch.job_of(p.query);
    draws.push_back(
        draw_of(job.sampling, job.sampling_key, n_known + static_cast<std::size_t>(p.nth)));
    Guide* guide = guide_of(batch.index_of(p.query));
    if (!guide || job.max_new_tokens == 0) continue;
    try {
      state =
          p.nth == 0 ? guide->state : guide->grammar->after(state, batch.draft(p.query, p.nth - 1));
      allowed_.push_back(guide->grammar->allowed(state));
    } catch (const Error&) {  // take_on() says it, if the answer comes here
      allowed_.push_back(std::make_shared<const TokenSet>(n_words));
    }
    draws.back().allowed = *allowed_.back();
  }
  return draws;
}

Guide* Answerer::guide_of(std::size_t index) {
  return has_guide(index) ? &options_.guides[index] : nullptr;
}

bool Answerer::has_guide(std::size_t index) const {
  return index < options_.guides.size() && options_.guides[index].grammar;
}

// Logits come to the host only where they are asked for.
void Answerer::keep_logprobs(StepBatch& batch, std::span<const Run> runs,
                             std::span<const Token> next) {
  if (options_.n_logprobs == 0) return;
  auto token = next.begin();
  for (const Run& run : runs) {
    for (const StepBatch::Prediction& p : run) {
      QueryResult& result = batch.result_of(p.query);
      if (*token++ != kNoToken && p.nth == 0 && result.tokens.empty())
        result.logprobs = top_logits(forward_->logits_of(p.row), options_.n_logprobs);
    }
  }
}

void Answerer::take_next_tokens(StepBatch& batch, std::span<const Run> runs,
                                std::span<const Token> next, double seconds) {
  bool goes_on = false;  // the query, and its drafts came true so far
  auto token = next.begin();
  Token last = kNoToken;
  for (const Run& run : runs) {
    for (const StepBatch::Prediction& p : run) {
      const Token predicted = *token++;
      if (p.nth == 0) {
        ++n_predicted_;
      } else {
        goes_on = goes_on && batch.draft(p.query, p.nth - 1) == last;
        if (!goes_on) continue;
        batch.accept_draft(p.query);
      }
      last = predicted;
      goes_on = take_next_token(batch, p.query, last, seconds);
      ++n_taken_;
    }
  }
}

bool Answerer::take_next_token(StepBatch& batch, std::size_t query, Token next, double seconds) {
  const std::size_t index = batch.index_of(query);
  const bool is_wanted = batch.job_of(query).max_new_tokens > 0;
  const bool is_eos = std::ranges::count(options_.eos_tokens, next) > 0;
  std::string problem;
  bool is_complete = false;
  if (Guide* guide = guide_of(index); guide && is_wanted && !is_eos) {
    problem = take_on(*guide, next);
    is_complete = Grammar::is_complete(guide->state);
  }
  const bool is_stop =
      next != kNoToken && is_wanted &&
      (is_eos || is_complete || (options_.stops_by_text && options_.stops_by_text(index, next)));
  if (problem.empty() && (next == kNoToken || is_stop || batch.is_at_last_token(query)))
    problem = overflow_of(batch, query, next);
  if (!problem.empty()) {
    batch.give_up(query, std::move(problem));
  } else if (!batch.take(query, next, is_stop)) {
    return true;
  }
  QueryResult& result = batch.result_of(query);
  result.seconds = seconds;
  if (!group_->is_root()) {
    if (querier_.is_leader()) answered_.emplace_back(index, result);
  } else if (options_.finished && result.error.empty() && passes_check()) {
    options_.finished(index, result);
  }
  return false;
}

std::string Answerer::overflow_of(StepBatch& batch, std::size_t query, Token next) const {
  const std::int64_t n_layers = config_->n_layers;
  if (const std::optional<Overflow> found =
          forward_->find_overflow(batch.kv_of(query), batch.n_done_of(query))) {
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
