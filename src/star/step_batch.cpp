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

void StepBatch::choose_rows(bool may_begin) {
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
  const bool is_alone = kv_bytes_in_use_ == 0;
  const std::int64_t n_tokens = std::ssize(query.pending) + query.job->max_new_tokens;
  const std::uint64_t n_bytes = static_cast<std::uint64_t>(n_tokens) * limits_.kv_bytes_per_token;
  if (!is_alone && kv_bytes_in_use_ + n_bytes > limits_.kv_bytes) return false;
  try {
    query.own = make_kv_(n_tokens);
    STARATTN_CHECK(query.own->n_bytes() == n_bytes);
  } catch (const Error& error) {
    if (error.exit() != Exit::unfit) throw;
    if (is_alone) {
      no_memory_ = fmt::format("query {} of {} tokens with an answer of up to {}: {}", query.index,
                               query.pending.size(), query.job->max_new_tokens, error.what());
    }
    limits_.kv_bytes = kv_bytes_in_use_;  // there is room for what is in work, no more
    return false;
  }
  query.has_begun = true;
  kv_bytes_in_use_ += n_bytes;
  return true;
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

std::vector<std::int64_t> StepBatch::positions(std::int64_t n_context) const {
  std::vector<std::int64_t> positions;
  for (const QueryRows& rows : rows_)
    for (std::int64_t t = 0; t < rows.n_rows; ++t)
      positions.push_back(n_context + queries_[rows.query].n_done + t);
  return positions;
}

std::vector<OwnTokens> StepBatch::own_tokens(std::int64_t layer, std::int64_t window) const {
  std::vector<OwnTokens> own;
  for (const QueryRows& rows : rows_) {
    const Query& query = queries_[rows.query];
    for (std::int64_t t = 0; t < rows.n_rows; ++t) {
      const std::int64_t n_before = query.n_done + t;
      const std::int64_t first = std::max<std::int64_t>(0, n_before - window + 1);
      own.push_back({query.own->k_rows(layer, first, 1).data,
                     query.own->v_rows(layer, first, 1).data, n_before - first,
                     std::min(t, n_before - first)});
    }
  }
  return own;
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
  kv_bytes_in_use_ -= query.own->n_bytes();
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
