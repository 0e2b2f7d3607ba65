// SPDX-License-Identifier: Apache-2.0
#include "star/answer.h"

#include <algorithm>
#include <numeric>
#include <utility>

#include "base/clock.h"
#include "base/json.h"
#include "trace/range.h"

namespace starattn {

// A query in work, on the rank that owns it.
struct Answerer::Query {
  std::size_t index = 0;
  const QueryJob* job = nullptr;
  std::vector<Token> pending;  // tokens that have not been through the network yet
  std::int64_t n_done = 0;     // tokens that have, their K and V in `own`
  KvCache own;                 // the query's own tokens; empty until it begins
  bool begun = false;
  bool finished = false;
  QueryResult result;
};

// Consecutive rows of one query in one step.
struct Answerer::Piece {
  std::size_t query = 0;  // in the rank's list of queries
  std::int64_t first_row = 0;
  std::int64_t n_rows = 0;
  bool is_last = false;  // the query's pending tokens end here: its last row predicts the next

  std::int64_t last_row() const { return first_row + n_rows - 1; }
};

namespace {

std::vector<std::vector<MergeNode>> subtrees_by_rank(const BlockPlan& plan, int n_ranks) {
  std::vector<std::vector<MergeNode>> all;
  for (Rank rank = 0; rank < n_ranks; ++rank)
    all.push_back(subtrees_of(plan.blocks_of(rank), plan.n_blocks()));
  return all;
}

std::vector<std::int64_t> counts_of(const std::vector<std::vector<MergeNode>>& lists) {
  std::vector<std::int64_t> counts;
  for (const auto& list : lists) counts.push_back(std::ssize(list));
  return counts;
}

}  // namespace

Answerer::Answerer(Decoder& decoder, const Communicator& group, const DocumentKv& kv,
                   AnswerOptions options)
    : decoder_(&decoder),
      backend_(&decoder.backend()),
      group_(&group),
      kv_(&kv),
      feed_(*backend_, sources_of(kv), decoder.config().n_layers),
      options_(std::move(options)),
      shape_(decoder.attention_shape()),
      rows_per_rank_(options_.spread_queries ? std::max<std::int64_t>(1, kMaxRows / group.size())
                                             : kMaxRows),
      max_rows_(std::max<std::int64_t>(kMaxRows, group.size())),
      n_rows_(static_cast<std::size_t>(group.size()), 0),
      subtrees_by_rank_(subtrees_by_rank(kv.plan, group.size())),
      exchange_(group, group.split_by_node(), *backend_, shape_, counts_of(subtrees_by_rank_),
                max_rows_),
      x_(*backend_, rows_per_rank_, decoder.config().hidden_size),
      q_(*backend_, rows_per_rank_, decoder.config().q_width()),
      k_(*backend_, rows_per_rank_, decoder.config().kv_width()),
      v_(*backend_, rows_per_rank_, decoder.config().kv_width()),
      attended_(*backend_, rows_per_rank_, decoder.config().q_width()),
      host_logits_(static_cast<std::size_t>(decoder.config().vocab_size)) {
  STARATTN_CHECK(decoder.max_rows() >= rows_per_rank_);
  std::vector<Subtree> all;
  for (const std::vector<MergeNode>& nodes : subtrees_by_rank_)
    for (const MergeNode& node : nodes) all.emplace_back(node, static_cast<int>(all.size()));
  std::ranges::sort(all, {}, [](const Subtree& entry) { return entry.first.first_block(); });
  merge_to_root<int>(all, kv.plan.n_blocks(), [&](int& into, int& from) {
    merges_to_root_.push_back({into, from});
  });
  root_ = all.front().second;
}

Rank Answerer::owner_of(std::size_t query) const {
  return options_.spread_queries
             ? static_cast<Rank>(query % static_cast<std::size_t>(group_->size()))
             : 0;
}

std::vector<QueryResult> Answerer::answer(std::span<const QueryJob> jobs) {
  const trace::Range range("phase 2");
  const Stopwatch clock;
  std::vector<Query> queries;
  for (std::size_t i = 0; i < jobs.size(); ++i) {
    if (jobs[i].tokens.empty()) fail(Exit::bad_data, "query {} is empty", i);
    if (owner_of(i) == group_->rank()) queries.push_back(query_of(i, jobs[i]));
  }
  stopped_ = false;
  query_kv_in_use_ = 0;
  std::vector<QueryResult> results(jobs.size());
  for (;;) {
    const std::vector<Piece> pieces = next_pieces(queries);
    const bool has_rows = agree_on_rows(pieces);
    if (has_answers_) hand_out_answers(results);
    if (!has_rows) break;
    forward(queries, pieces);
    for (std::size_t first = 0; first < pieces.size();) {
      if (!pieces[first].is_last) {
        ++first;
        continue;
      }
      const std::size_t end = end_of_run(pieces, first);
      const std::vector<Token> next =
          next_tokens(queries, std::span(pieces).subspan(first, end - first));
      for (std::size_t i = first; i < end; ++i) {
        if (pieces[i].is_last)
          take_next_token(queries[pieces[i].query], next[i - first], clock.seconds());
      }
      first = end;
    }
    options_.poll();
  }
  const std::vector<std::int64_t> left =
      group_->allgather(std::ranges::count(queries, false, &Query::begun));
  n_left_ = std::accumulate(left.begin(), left.end(), std::int64_t{0});
  for (Query& query : queries) results[query.index] = std::move(query.result);
  return results;
}

std::vector<float> Answerer::logits_of(const std::vector<Token>& query_tokens,
                                       std::int64_t n_last) {
  const QueryJob job{query_tokens, 0, 0};
  std::vector<Query> queries;
  const auto n_tokens = std::ssize(query_tokens);
  if (group_->is_root()) queries.push_back(query_of(0, job));
  std::vector<float> logits;
  stopped_ = false;
  query_kv_in_use_ = 0;
  for (std::int64_t done = 0; done < n_tokens;) {
    const std::vector<Piece> pieces = next_pieces(queries);
    agree_on_rows(pieces);
    forward(queries, pieces);
    for (std::int64_t row = 0; !pieces.empty() && row < n_rows_[0]; ++row) {
      if (done + row < n_tokens - n_last) continue;
      const std::span<const float> one = logits_of_row(row);
      logits.insert(logits.end(), one.begin(), one.end());
    }
    done += n_rows_[0];
  }
  return logits;
}

Answerer::Query Answerer::query_of(std::size_t index, const QueryJob& job) const {
  Query query;
  query.index = index;
  query.job = &job;
  query.pending = job.tokens;
  return query;
}

std::vector<Answerer::Piece> Answerer::next_pieces(std::vector<Query>& queries) {
  std::vector<Piece> pieces;
  std::int64_t n_rows = 0;
  for (std::size_t i = 0; i < queries.size() && n_rows < rows_per_rank_; ++i) {
    Query& query = queries[i];
    if (query.finished || query.pending.empty() || (stopped_ && !query.begun)) continue;
    if (!query.begun && !begin(query)) break;  // nor does one behind it: each in its turn
    const std::int64_t n_pending = std::ssize(query.pending);
    const std::int64_t n = std::min(n_pending, rows_per_rank_ - n_rows);
    pieces.push_back({i, n_rows, n, n == n_pending});
    n_rows += n;
  }
  return pieces;
}

bool Answerer::begin(Query& query) {
  const ModelConfig& config = decoder_->config();
  const std::int64_t n_tokens = std::ssize(query.pending) + query.job->max_new_tokens;
  const std::uint64_t n_bytes =
      static_cast<std::uint64_t>(n_tokens) * config.kv_bytes_per_token(backend_->kv_dtype());
  const bool is_alone = query_kv_in_use_ == 0;
  if (!is_alone && query_kv_in_use_ + n_bytes > options_.query_kv_bytes) return false;
  try {
    query.own = KvCache(*backend_, config.n_layers, n_tokens, config.kv_width());
  } catch (const Error& error) {
    if (error.exit() != Exit::unfit) throw;
    if (is_alone) {
      no_memory_ = fmt::format("query {} of {} tokens with an answer of up to {}: {}", query.index,
                               query.pending.size(), query.job->max_new_tokens, error.what());
    }
    options_.query_kv_bytes = query_kv_in_use_;  // there is room for what is in work, no more
    return false;
  }
  query.begun = true;
  query_kv_in_use_ += n_bytes;
  return true;
}

bool Answerer::agree_on_rows(std::span<const Piece> pieces) {
  struct Share {
    std::int64_t n_rows, is_asked_to_stop, has_answers, has_no_memory;
  };
  backend_->synchronize();  // before all ranks meet: QueryExchange::start_step
  Share mine{0, options_.stop(), !answered_.empty(), !no_memory_.empty()};
  for (const Piece& piece : pieces) mine.n_rows += piece.n_rows;
  n_rows_.clear();
  has_answers_ = false;
  bool has_no_memory = false;
  for (const Share& share : group_->allgather(mine)) {
    n_rows_.push_back(share.n_rows);
    stopped_ = stopped_ || share.is_asked_to_stop != 0;
    has_answers_ = has_answers_ || share.has_answers != 0;
    has_no_memory = has_no_memory || share.has_no_memory != 0;
  }
  if (has_no_memory) {
    collectively(*group_, [&] {
      if (!no_memory_.empty()) fail(Exit::bad_data, "{}", no_memory_);
    });
  }
  exchange_.start_step(n_rows_);
  return exchange_.n_rows() > 0;
}

void Answerer::forward(std::vector<Query>& queries, std::span<const Piece> pieces) {
  const std::int64_t n = n_rows_[static_cast<std::size_t>(group_->rank())];
  const Rows x = x_.rows(n);
  const Rows q = q_.rows(n);
  const Rows k = k_.rows(n);
  const Rows v = v_.rows(n);
  RopeTable rope;
  if (n > 0) {
    std::vector<Token> tokens;
    std::vector<std::int64_t> positions;
    for (const Piece& piece : pieces) {
      const Query& query = queries[piece.query];
      tokens.insert(tokens.end(), query.pending.begin(), query.pending.begin() + piece.n_rows);
      for (std::int64_t t = 0; t < piece.n_rows; ++t) {
        positions.push_back(kv_->plan.n_context() + query.n_done + t);
      }
    }
    rope = decoder_->rope_table(positions);
    decoder_->embed(tokens, x);
  }
  for (std::int64_t layer = 0; layer < decoder_->config().n_layers; ++layer) {
    if (n > 0)
      decoder_->project_qkv(layer, x, rope.cos(), rope.sin(), q, k, v, Product::batch_invariant);
    const Partial context = attend_to_context(layer, q);
    if (n == 0) continue;
    std::vector<OwnTokens> own;  // the query's own tokens come last
    for (const Piece& piece : pieces) {
      const Query& query = queries[piece.query];
      for (std::int64_t t = 0; t < piece.n_rows; ++t)
        own.push_back({query.own.k(layer), query.own.v(layer), query.n_done + t, t});
    }
    backend_->attend_own(q, k, v, own, shape_, context, attended_.rows(n));
    decoder_->add_attention_output(layer, attended_.rows(n), x, Product::batch_invariant);
    decoder_->add_feed_forward(layer, x, Product::batch_invariant);
  }
  for (const Piece& piece : pieces) {
    Query& query = queries[piece.query];
    query.pending.erase(query.pending.begin(), query.pending.begin() + piece.n_rows);
    query.n_done += piece.n_rows;
  }
}

// Of pieces whose last rows lie side by side. Logits come to the host only where they are asked
// for.
std::vector<Token> Answerer::next_tokens(std::vector<Query>& queries,
                                         std::span<const Piece> pieces) {
  std::vector<Draw> draws;
  for (const Piece& piece : pieces) {
    const Query& query = queries[piece.query];
    draws.push_back(
        draw_of(options_.sampling, query.job->sampling_key, query.result.tokens.size()));
  }
  std::vector<Token> next(pieces.size());
  {
    const trace::Range range("logits");
    decoder_->next_tokens(x_.rows(pieces.front().last_row(), std::ssize(pieces)), draws, next);
  }
  for (const Piece& piece : pieces) {
    QueryResult& result = queries[piece.query].result;
    if (piece.is_last && result.tokens.empty() && options_.n_logprobs > 0)
      result.logprobs = top_logits(logits_of_row(piece.last_row()), options_.n_logprobs);
  }
  return next;
}

std::span<const float> Answerer::logits_of_row(std::int64_t row) {
  const trace::Range range("logits");
  decoder_->logits(x_.rows(row, 1), host_logits_);
  return host_logits_;
}

// Pieces [first, end) whose last rows lie side by side, so that one product makes their logits.
std::size_t Answerer::end_of_run(std::span<const Piece> pieces, std::size_t first) {
  std::size_t end = first + 1;
  while (end < pieces.size() && pieces[end].n_rows == 1) ++end;
  return end;
}

void Answerer::take_next_token(Query& query, Token next, double seconds) {
  QueryResult& result = query.result;
  if (query.job->max_new_tokens > 0) {
    result.tokens.push_back(next);
    query.pending.push_back(next);
    const bool is_eos = std::find(options_.eos_tokens.begin(), options_.eos_tokens.end(), next) !=
                        options_.eos_tokens.end();
    if (is_eos || (options_.stops_by_text && options_.stops_by_text(query.index, next))) {
      result.reason = FinishReason::stop;
      query.finished = true;
    }
  }
  if (!query.finished &&
      static_cast<std::int64_t>(result.tokens.size()) >= query.job->max_new_tokens) {
    result.reason = FinishReason::length;
    query.finished = true;
  }
  if (!query.finished) return;
  result.seconds = seconds;
  query_kv_in_use_ -= query.own.n_bytes();
  query.own = {};
  if (!group_->is_root()) {
    answered_.emplace_back(query.index, result);
  } else if (options_.finished) {
    options_.finished(query.index, result);
  }
}

void Answerer::hand_out_answers(std::vector<QueryResult>& results) {
  Json mine = Json::array();
  for (const auto& [query, result] : std::exchange(answered_, {})) {
    mine.push_back({query, result.tokens, result.reason == FinishReason::stop, result.logprobs,
                    result.seconds});
  }
  for (const std::string& text : group_->gather_texts(mine.dump(), 0)) {
    for (const Json& entry : parse_json(text, "answers")) {
      const auto query = entry[0].get<std::size_t>();
      QueryResult& result = results[query];
      result.tokens = entry[1].get<std::vector<Token>>();
      result.reason = entry[2].get<bool>() ? FinishReason::stop : FinishReason::length;
      result.logprobs = entry[3].get<std::vector<std::pair<Token, float>>>();
      result.seconds = entry[4].get<double>();
      if (options_.finished) options_.finished(query, result);
    }
  }
}

}  // namespace starattn
