// SPDX-License-Identifier: Apache-2.0
// One rank's queries on their way through phase 2: which rows each brings to a step, and what its
// next token makes of it. Knows neither ranks nor the network; how the ranks' batches become one
// step is agree() below.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "backend/tensors.h"
#include "star/kv.h"
#include "star/pass_rows.h"
#include "star/prompt_lookup.h"
#include "star/query.h"

namespace starattn {

class StepBatch {
 public:
  struct Limits {
    std::int64_t n_rows = 0;  // of a step
    // Of queries in work, with the longest answers that they may get, whose K and V have room. A
    // query that does not fit beside the others waits for its turn; one that is alone is let in.
    std::int64_t kv_tokens = INT64_MAX;
    DraftLength drafts = {0, true};  // as each query begins
  };
  // Consecutive rows of one query in one step.
  struct QueryRows {
    std::size_t query = 0;  // by the order of add()
    std::int64_t first_row = 0;
    std::int64_t n_rows = 0;
    bool is_last =
        false;  // the query's pending tokens end here: the last of them predicts the next
    std::int64_t n_drafts = 0;  // of the rows: behind the pending tokens, and predicting like these

    std::int64_t last_row() const { return first_row + n_rows - 1; }
  };
  // A row that predicts a token of its query: the one behind `nth` drafts.
  struct Prediction {
    std::size_t query = 0;
    std::int64_t row = 0;
    std::int64_t nth = 0;
  };
  // At most n_most tokens that may come behind a query and its answer so far.
  using Drafter = std::function<std::vector<Token>(
      const QueryJob& job, std::span<const Token> answer, std::int64_t n_most)>;

  // make_kv: K and V of so many tokens in all layers; throws Error(unfit) where there is no memory.
  StepBatch(Limits limits, std::function<KvCache(std::int64_t n_tokens)> make_kv,
            Drafter draft = {})
      : limits_(limits), make_kv_(std::move(make_kv)), draft_(std::move(draft)) {}

  // Behind those added before. The job, of at least one token, outlives the batch; `index` is the
  // caller's name for it.
  void add(std::size_t index, const QueryJob& job);

  // Chooses the next step's rows: of queries in work, and of further ones in their turn while there
  // is room, if any may begin. What room is left then goes to drafts. True: they have been through
  // the network already, because they went ahead.
  bool choose_rows(bool may_begin);
  std::span<const QueryRows> rows() const { return rows_; }
  std::int64_t n_rows() const { return rows_.empty() ? 0 : rows_.back().last_row() + 1; }
  // Of the step, numbered from 0 on without a gap: its tokens, and its rows at tokens on the
  // device.
  std::vector<Token> tokens() const;
  PassRows pass(const Token* tokens) const;
  // Whether of the step behind this one only the tokens are not known: each query in this one has a
  // row, if it goes on, and none joins them.
  bool can_go_ahead(bool may_begin) const;
  // Its rows, which choose_rows() then takes, but for those of queries that this step finishes:
  // these are nobody's. drawn: on the device, the tokens that this step predicts, in its order.
  PassRows go_ahead(const Token* drawn);
  // This step goes through the network again: its rows get numbers without a gap.
  void begin_again();
  // Those that lie side by side, so that one product makes their logits.
  std::vector<std::vector<Prediction>> runs() const;
  void rows_are_done();  // they have been through the network
  // The query's draft number nth of this step, and that it is the token that was taken: its row
  // has been through the network, too.
  Token draft(std::size_t query, std::int64_t nth) const {
    return queries_[query].drafts[static_cast<std::size_t>(nth)];
  }
  void accept_draft(std::size_t query);

  std::size_t n_queries() const { return queries_.size(); }
  std::size_t index_of(std::size_t query) const { return queries_[query].index; }
  const QueryJob& job_of(std::size_t query) const { return *queries_[query].job; }
  QueryResult& result_of(std::size_t query) { return queries_[query].result; }
  const QueryResult& result_of(std::size_t query) const { return queries_[query].result; }
  // Whether the query's next token is the last that is wanted.
  bool is_at_last_token(std::size_t query) const;
  // K and V of a query in work: of its first n_done_of(query) tokens.
  const KvCache& kv_of(std::size_t query) const { return *queries_[query].own; }
  std::int64_t n_done_of(std::size_t query) const { return queries_[query].n_done; }
  // The query's next token; is_stop: it is the last. True when the query is finished, which gives
  // its memory back. Where no new tokens are wanted it is finished without this one.
  bool take(std::size_t query, Token next, bool is_stop);
  // The query's values overflow, and where: it is finished without an answer.
  void give_up(std::size_t query, std::string where);

  // Why not one query can begin, though none is in work; else empty.
  const std::string& no_memory() const { return no_memory_; }
  std::int64_t n_not_begun() const;

 private:
  struct Query {
    std::size_t index = 0;
    const QueryJob* job = nullptr;
    std::vector<Token> pending;  // tokens that have not been through the network yet
    std::vector<Token> drafts;   // of this step
    DraftLength draft_length = {0, true};
    std::int64_t n_accepted = 0;  // of these drafts
    std::int64_t n_done = 0;      // tokens that have, their K and V in `own`
    std::optional<KvCache> own;   // while it is in work
    bool has_begun = false;
    bool is_finished = false;
    QueryResult result;
  };

  bool may_join(bool may_begin) const;  // a query that has no row in this step
  bool take_rows_ahead();
  void add_drafts(std::int64_t n_free);
  static std::int64_t kv_tokens_of(const Query& query);
  bool begin(Query& query);  // false when it has to wait for others
  void finish(Query& query, FinishReason reason);

  Limits limits_;
  std::function<KvCache(std::int64_t n_tokens)> make_kv_;
  Drafter draft_;
  std::vector<Query> queries_;
  std::vector<QueryRows> rows_;
  std::vector<QueryRows> rows_ahead_;
  std::int64_t kv_tokens_in_use_ = 0;
  std::string no_memory_;
};

// What each rank says when the ranks meet before a step.
struct StepShare {
  std::int64_t n_rows = 0;  // that it brings
  std::int64_t is_asked_to_stop = 0;
  std::int64_t has_answers = 0;  // for the first rank
  std::int64_t has_failed = 0;   // and cannot go on
};
// What follows from it, the same on every rank.
struct Step {
  std::vector<std::int64_t> n_rows;  // by rank
  bool is_asked_to_stop = false;     // some rank, as the others below
  bool has_answers = false;
  bool has_failed = false;

  bool has_rows() const;
};
Step agree(std::span<const StepShare> shares);

}  // namespace starattn
