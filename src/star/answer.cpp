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
      max_rows_(std::max<std::int64_t>(1, kMaxRows / static_cast<std::int64_t>(n_with_queries()))) {
  if (options_.n_lookup > 0 && has_queries()) lookup_.emplace(options_.context);
}

Answerer::Answerer(Decoder& decoder, QueryExchange& exchange, const DocumentKv& kv,
                   AnswerOptions options)
    : Answerer(decoder.config(), decoder.backend(), exchange, std::move(options),
               {nullptr, exchange.group().rank(), exchange.group().size()}) {
  STARATTN_CHECK(decoder.max_rows() >= kMaxRows);
  forward_ =
      make_whole_forward(decoder, exchange, kv, max_rows_, options_.tree_merge, has_queries());
}

Answerer::Answerer(ShardedDecoder& decoder, ShardExchange& exchange, const DocumentKv& kv,
                   AnswerOptions options)
    : Answerer(decoder.config(), decoder.backend(), exchange, std::move(options),
               {&exchange.node(), exchange.node_number(), exchange.n_nodes()}) {
  forward_ = make_sharded_forward(decoder, exchange, kv, has_queries() ? max_rows_ : 0);
  // All batches of a node have to begin the same queries.
  const std::vector<std::uint64_t> room = exchange.node().allgather(options_.query_kv_bytes);
  options_.query_kv_bytes = std::ranges::min(room);
}

bool Answerer::is_mine(std::size_t query) const {
  return query % n_with_queries() == static_cast<std::size_t>(querier_.number);
}

StepBatch Answerer::new_batch() const {
  const std::uint64_t bytes_per_token =
      2 * static_cast<std::uint64_t>(config_->n_layers * forward_->own_kv_width()) *
      size_of(backend_->activation_dtype());
  return {{max_rows_, options_.query_kv_bytes, bytes_per_token,
           DraftLength(options_.n_lookup, !options_.adapts_lookup)},
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
    batch.choose_rows(/*may_begin=*/!is_stopped);
    const Step step = meet(batch);
    is_stopped = is_stopped || step.is_asked_to_stop;
    if (step.has_answers) hand_out_answers(results);
    if (!step.has_rows()) break;
    const trace::Span span("step", trace::Lane::host, {.n_rows = batch.n_rows()});
    const auto runs = batch.runs();
    std::vector<std::vector<Draw>> draws;  // of each run
    std::vector<std::vector<Token>> next;
    allowed_.clear();
    do {
      forward_->run(batch);
      next.clear();
      // Which tokens may come is found out while the device works.
      for (std::size_t r = draws.size(); r < runs.size(); ++r)
        draws.push_back(draws_of(batch, runs[r]));
      for (std::size_t r = 0; r < runs.size(); ++r)
        next.push_back(next_tokens(batch, runs[r], draws[r]));
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
    const std::int64_t n = meet(batch).n_rows[0];
    const std::size_t n_known = logits.size();
    do {
      forward_->run(batch);
      logits.resize(n_known);
      for (std::int64_t row = 0; row < batch.n_rows(); ++row) {
        if (done + row < std::ssize(query_tokens) - n_last) continue;
        const std::span<const float> one = forward_->logits_of(row);
        logits.insert(logits.end(), one.begin(), one.end());
      }
    } while (forward_->was_in_vain());
    batch.rows_are_done();
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
  const bool has_one = index < options_.guides.size() && options_.guides[index].grammar;
  return has_one ? &options_.guides[index] : nullptr;
}

// Logits come to the host only where they are asked for.
std::vector<Token> Answerer::next_tokens(StepBatch& batch, const Run& run,
                                         std::span<const Draw> draws) {
  const std::vector<Token> next = forward_->next_tokens(run.front().row, draws);
  for (std::size_t i = 0; i < run.size(); ++i) {
    QueryResult& result = batch.result_of(run[i].query);
    const bool is_first = run[i].nth == 0 && result.tokens.empty() && next[i] != kNoToken;
    if (is_first && options_.n_logprobs > 0)
      result.logprobs = top_logits(forward_->logits_of(run[i].row), options_.n_logprobs);
  }
  return next;
}

void Answerer::take_next_tokens(StepBatch& batch, const std::vector<Run>& runs,
                                const std::vector<std::vector<Token>>& next, double seconds) {
  bool goes_on = false;  // the query, and its drafts came true so far
  Token last = kNoToken;
  for (std::size_t r = 0; r < runs.size(); ++r) {
    for (std::size_t i = 0; i < runs[r].size(); ++i) {
      const StepBatch::Prediction& p = runs[r][i];
      if (p.nth == 0) {
        ++n_predicted_;
      } else {
        goes_on = goes_on && batch.draft(p.query, p.nth - 1) == last;
        if (!goes_on) continue;
        batch.accept_draft(p.query);
      }
      last = next[r][i];
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
