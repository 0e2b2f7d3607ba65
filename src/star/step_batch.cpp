// SPDX-License-Identifier: Apache-2.0
#include "star/step_batch.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "base/error.h"

namespace starattn {

void StepBatch::add(std::size_t index, const QueryJob& job) {
  STARATTN_CHECK(!job.tokens.empty());
  Query& query = queries_.emplace_back();
  query.index = index;
  query.job = &job;
  query.pending = job.tokens;
  query.draft_length = limits_.drafts;
}

bool StepBatch::choose_rows(bool may_begin) {
  if (take_rows_ahead()) return true;
  rows_.clear();
  std::int64_t n_rows = 0;
  for (std::size_t i = 0; i < queries_.size() && n_rows < limits_.n_rows; ++i) {
    Query& query = queries_[i];
    if (query.is_finished || query.pending.empty() || (!may_begin && !query.has_begun)) continue;
    if (!query.has_begun && !begin(query)) break;  // nor does one behind it: each in its turn
    const std::int64_t n_pending = std::ssize(query.pending);
    const std::int64_t n = std::min(n_pending, limits_.n_rows - n_rows);
    rows_.push_back({i, n_rows, n, n == n_pending});
    n_rows += n;
  }
  if (draft_) add_drafts(limits_.n_rows - n_rows);
  return false;
}

bool StepBatch::take_rows_ahead() {
  rows_ = std::exchange(rows_ahead_, {});
  std::erase_if(rows_, [&](const QueryRows& rows) { return queries_[rows.query].is_finished; });
  for (const QueryRows& rows : rows_) queries_[rows.query].draft_length.learn(0, 0);
  return !rows_.empty();
}

bool StepBatch::can_go_ahead(bool may_begin) const {
  const bool has_room = std::ssize(rows_) < limits_.n_rows;
  const auto is_known = [&](const QueryRows& rows) {
    DraftLength drafts = queries_[rows.query].draft_length;
    drafts.learn(0, 0);
    const bool may_draft = draft_ && has_room && drafts.next() > 0;
    return rows.is_last && rows.n_drafts == 0 && !may_draft && !is_at_last_token(rows.query);
  };
  return !rows_.empty() && std::ranges::all_of(rows_, is_known) &&
         !(has_room && may_join(may_begin));
}

bool StepBatch::may_join(bool may_begin) const {
  for (std::size_t i = rows_.back().query + 1; i < queries_.size(); ++i) {
    const Query& query = queries_[i];
    if (query.is_finished) continue;
    const bool fits = kv_tokens_of(query) <= limits_.kv_tokens - kv_tokens_in_use_;
    return query.has_begun || (may_begin && fits);  // the others wait for it
  }
  return false;
}

PassRows StepBatch::go_ahead(const Token* drawn) {
  rows_ahead_.clear();
  PassRows pass{{}, drawn, /*is_ahead=*/true};
  for (const QueryRows& rows : rows_) {
    const Query& query = queries_[rows.query];
    rows_ahead_.push_back({rows.query, pass.n(), 1, /*is_last=*/true});
    pass.rows.push_back({&*query.own, query.n_done + rows.n_rows, 0});
  }
  return pass;
}

void StepBatch::begin_again() {
  rows_ahead_.clear();
  std::int64_t n_rows = 0;
  for (QueryRows& rows : rows_) {
    rows.first_row = n_rows;
    n_rows += rows.n_rows;
  }
}

void StepBatch::add_drafts(std::int64_t n_free) {
  std::int64_t n_added = 0;
  for (QueryRows& rows : rows_) {
    rows.first_row += n_added;
    Query& query = queries_[rows.query];
    if (!query.result.tokens.empty())
      query.draft_length.learn(std::ssize(query.drafts), std::exchange(query.n_accepted, 0));
    query.drafts.clear();
    // The row before the first draft predicts a token, too.
    const std::int64_t n_useful = query.job->max_new_tokens - std::ssize(query.result.tokens) - 1;
    const std::int64_t n_most = std::min({n_free - n_added, n_useful, query.draft_length.next()});
    if (!rows.is_last || n_most <= 0) continue;
    query.drafts = draft_(*query.job, query.result.tokens, n_most);
    rows.n_drafts = std::ssize(query.drafts);
    STARATTN_CHECK(rows.n_drafts <= n_most);
    rows.n_rows += rows.n_drafts;
    n_added += rows.n_drafts;
  }
}

bool StepBatch::begin(Query& query) {
  const bool is_alone = kv_tokens_in_use_ == 0;
  const std::int64_t n_tokens = kv_tokens_of(query);
  if (!is_alone && n_tokens > limits_.kv_tokens - kv_tokens_in_use_) return false;
  try {
    query.own = make_kv_(n_tokens);
  } catch (const Error& error) {
    if (error.exit() != Exit::unfit) throw;
    if (is_alone) {
      no_memory_ = fmt::format("query {} of {} tokens with an answer of up to {}: {}", query.index,
                               query.pending.size(), query.job->max_new_tokens, error.what());
    }
    limits_.kv_tokens = kv_tokens_in_use_;  // there is room for what is in work, no more
    return false;
  }
  query.has_begun = true;
  kv_tokens_in_use_ += n_tokens;
  return true;
}

std::int64_t StepBatch::kv_tokens_of(const Query& query) {
  return std::ssize(query.job->tokens) + query.job->max_new_tokens;
}

std::vector<Token> StepBatch::tokens() const {
  std::vector<Token> tokens;
  for (const QueryRows& rows : rows_) {
    const Query& query = queries_[rows.query];
    const std::int64_t n_pending = rows.n_rows - rows.n_drafts;
    tokens.insert(tokens.end(), query.pending.begin(), query.pending.begin() + n_pending);
    if (rows.n_drafts > 0) tokens.insert(tokens.end(), query.drafts.begin(), query.drafts.end());
  }
  return tokens;
}

PassRows StepBatch::pass(const Token* tokens) const {
  PassRows pass{{}, tokens};
  for (const QueryRows& rows : rows_) {
    STARATTN_CHECK(rows.first_row == pass.n());
    const Query& query = queries_[rows.query];
    for (std::int64_t t = 0; t < rows.n_rows; ++t)
      pass.rows.push_back({&*query.own, query.n_done + t, t});
  }
  return pass;
}

std::vector<std::vector<StepBatch::Prediction>> StepBatch::runs() const {
  std::vector<std::vector<Prediction>> runs;
  for (const QueryRows& rows : rows_) {
    if (!rows.is_last) continue;
    for (std::int64_t nth = 0; nth <= rows.n_drafts; ++nth) {
      const std::int64_t row = rows.last_row() - rows.n_drafts + nth;
      if (runs.empty() || runs.back().back().row + 1 != row) runs.emplace_back();
      runs.back().push_back({rows.query, row, nth});
    }
  }
  return runs;
}

void StepBatch::rows_are_done() {
  for (const QueryRows& rows : rows_) {
    Query& query = queries_[rows.query];
    const std::int64_t n_pending = rows.n_rows - rows.n_drafts;
    query.pending.erase(query.pending.begin(), query.pending.begin() + n_pending);
    query.n_done += n_pending;
  }
}

void StepBatch::accept_draft(std::size_t i) {
  Query& query = queries_[i];
  STARATTN_CHECK(query.pending.size() == 1);
  query.pending.clear();
  ++query.n_done;
  ++query.n_accepted;
}

bool StepBatch::take(std::size_t i, Token next, bool is_stop) {
  Query& query = queries_[i];
  STARATTN_CHECK(query.has_begun && !query.is_finished && query.pending.empty());
  QueryResult& result = query.result;
  if (query.job->max_new_tokens > 0) {
    result.tokens.push_back(next);
    query.pending.push_back(next);
  }
  const bool is_stopped = is_stop && query.job->max_new_tokens > 0;
  if (!is_stopped && std::ssize(result.tokens) < query.job->max_new_tokens) return false;
  finish(query, is_stopped ? FinishReason::stop : FinishReason::length);
  return true;
}

bool StepBatch::is_at_last_token(std::size_t i) const {
  const Query& query = queries_[i];
  return std::ssize(query.result.tokens) + 1 >= query.job->max_new_tokens;
}

void StepBatch::give_up(std::size_t i, std::string where) {
  queries_[i].result.error = std::move(where);
  finish(queries_[i], FinishReason::overflow);
}

void StepBatch::finish(Query& query, FinishReason reason) {
  query.result.reason = reason;
  query.is_finished = true;
  kv_tokens_in_use_ -= kv_tokens_of(query);
  query.own.reset();
}

std::int64_t StepBatch::n_not_begun() const {
  return std::ranges::count(queries_, false, &Query::has_begun);
}

bool Step::has_rows() const {
  return std::ranges::any_of(n_rows, [](std::int64_t n) { return n > 0; });
}

Step agree(std::span<const StepShare> shares) {
  Step step;
  for (const StepShare& share : shares) {
    step.n_rows.push_back(share.n_rows);
    step.is_asked_to_stop = step.is_asked_to_stop || share.is_asked_to_stop != 0;
    step.has_answers = step.has_answers || share.has_answers != 0;
    step.has_failed = step.has_failed || share.has_failed != 0;
  }
  return step;
}

}  // namespace starattn
