// SPDX-License-Identifier: Apache-2.0
// Phase 2, query encoding and generation (Star Attention, arXiv 2411.17116, section 2.2). The query
// rank runs the network on the rows of all its queries together. In each layer it hands its Q to
// everyone; every block's owner returns unfinished attention (o, m, l) over that block; the query
// rank merges these along the canonical tree, then each query's own earlier tokens, and finishes.
// With shared weights all ranks of a node are query ranks of its queries (star/step_forward.h).
//
// A query's result does not depend on its batch mates: every operation here treats rows one by one.
#pragma once

#include <functional>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "exchange/query_exchange.h"
#include "exchange/shard_exchange.h"
#include "grammar/grammar.h"
#include "model/decoder.h"
#include "model/sharded_decoder.h"
#include "mpi/communicator.h"
#include "star/device_tokens.h"
#include "star/kv.h"
#include "star/prompt_lookup.h"
#include "star/query.h"
#include "star/sampling.h"
#include "star/step_batch.h"
#include "star/step_forward.h"

namespace starattn {

struct AnswerOptions {
  std::vector<Token> eos_tokens;
  // What form each query's answer has, and how far it has come; none: all are free. An answer that
  // nothing can follow is finished.
  std::vector<Guide> guides;
  std::int64_t n_logprobs = 0;
  // Tokens that a step may try beside the next one, found in the context; 0: none. They change
  // nothing but the number of steps. adapts_lookup: fewer where few came true.
  std::int64_t n_lookup = 0;
  bool adapts_lookup = false;
  std::span<const Token> context = {};
  // Query j belongs to rank j % size instead of rank 0; with shared weights to the ranks of node
  // j % nodes instead of those of rank 0's.
  bool spread_queries = false;
  bool tree_merge = false;  // partials travel along the tree; not with shared weights
  // Room on this rank for K and V of its queries in work, by default without a limit. A query that
  // does not fit beside the others waits for its turn; one that is alone is let in.
  std::uint64_t query_kv_bytes = UINT64_MAX;
  // True when a query's new token completes a stop string. Called for each of them in turn, on the
  // query's rank.
  std::function<bool(std::size_t query, Token next)> stops_by_text;
  // Called on every rank before each step, and on a query's before it is answered; an Error ends
  // answer() on all ranks, and nothing is handed out any more.
  std::function<void()> check = [] {};
  // Called on the first rank as soon as a query is answered, not for overflows; with spread
  // queries, when all ranks next meet, which is before the next step.
  std::function<void(std::size_t query, const QueryResult&)> finished;
  std::function<void()> poll = [] {};
  // Asked on every rank before each step: once it is true on any, no further query begins.
  std::function<bool()> stop = [] { return false; };
};

class Answerer {
 public:
  // Rows of one step over all query ranks: bounds the memory of partials in flight.
  static constexpr std::int64_t kMaxRows = 128;

  // Through which the ranks of a group answer, one document after another. Collective.
  static QueryExchange exchange(Decoder& decoder, const Communicator& group);
  // The same with weights that the ranks of each node share out: over links between their devices,
  // or else by the host. node: those of the group on this rank's. Throws AgreedError(unfit) where a
  // node has no memory for that.
  static std::unique_ptr<ShardExchange> exchange(ShardedDecoder& decoder, const Communicator& group,
                                                 const Communicator& node,
                                                 std::unique_ptr<PeerLinks> links = nullptr);

  // exchange: as made above; several answerers may share it, one at a time. The decoder must take
  // kMaxRows rows. kv: this rank's share. Arguments must outlive the answerer.
  Answerer(Decoder& decoder, QueryExchange& exchange, const DocumentKv& kv, AnswerOptions options);
  // The same with weights that the ranks share out.
  Answerer(ShardedDecoder& decoder, ShardExchange& exchange, const DocumentKv& kv,
           AnswerOptions options);

  // Collective; jobs are the same on every rank. Results are complete on the first rank. A query
  // begins when there is room for its rows and for its K and V, so at most kMaxRows of them hold
  // any at a time. Throws Error(bad_data) for an empty query, AgreedError(bad_data) for one whose K
  // and V find no memory with no other in work, AgreedError for what AnswerOptions::check threw.
  std::vector<QueryResult> answer(std::span<const QueryJob> jobs);
  // Queries of all ranks that the last answer() did not begin, because it was asked to stop.
  std::int64_t n_left() const { return n_left_; }
  // Tokens that a query got a step, in the last answer(), over all ranks; 0 where there were none.
  double tokens_a_step() const {
    return n_predicted_ == 0 ? 0
                             : static_cast<double>(n_taken_) / static_cast<double>(n_predicted_);
  }

  // Logits of the last n_last rows of one query, on rank 0: [n_last, vocab]. Collective.
  std::vector<float> logits_of(const std::vector<Token>& query, std::int64_t n_last);

 private:
  // Who has queries: every rank by itself, or with shared weights the ranks of a node together.
  struct Querier {
    const Communicator* ranks = nullptr;  // those of this one, null: this rank alone
    int number = 0;                       // of this one
    int n_all = 1;

    bool is_leader() const { return !ranks || ranks->is_root(); }
  };
  Answerer(const ModelConfig& config, Backend& backend, StepExchange& exchange,
           AnswerOptions options, Querier querier);

  std::size_t n_with_queries() const {
    return options_.spread_queries ? static_cast<std::size_t>(querier_.n_all) : 1;
  }
  bool has_queries() const { return static_cast<std::size_t>(querier_.number) < n_with_queries(); }
  bool is_mine(std::size_t query) const;  // its rows are in this rank's batch
  StepBatch new_batch() const;
  std::int64_t kv_tokens() const;  // that query_kv_bytes have room for
  KvCache make_own_kv(std::int64_t n_tokens) const;
  // Everybody learns how many rows each rank brings to the step, whether one was asked to stop, has
  // answers to hand out, or cannot go on.
  Step meet(const StepBatch& batch);
  void run(StepBatch& batch, const Step& step);  // the step's rows through the network
  using Run = std::vector<StepBatch::Prediction>;
  // Begins to find the tokens behind the rows, which are through the network.
  void draw(StepBatch& batch, std::span<const Run> runs);
  std::vector<Draw> draws_of(StepBatch& batch, const Run& run);
  // Where of the next step only the tokens are not known yet, its rows go through the network as
  // well, so that the device has work until the host knows them.
  void go_ahead(StepBatch& batch, bool may_begin);
  // A query's form depends on its tokens, and its first logits are read before others are made.
  bool needs_tokens_first(const StepBatch& batch) const;
  std::vector<std::int64_t> rows_of_all(std::int64_t n_rows) const;  // where each brings the same
  void keep_logprobs(StepBatch& batch, std::span<const Run> runs, std::span<const Token> next);
  // Of each query the predicted token, and those behind it as long as the drafts came true.
  void take_next_tokens(StepBatch& batch, std::span<const Run> runs, std::span<const Token> next,
                        double seconds);
  // False where the query is finished with it.
  bool take_next_token(StepBatch& batch, std::size_t query, Token next, double seconds);
  Guide* guide_of(std::size_t index);  // nullptr: the answer is free
  bool has_guide(std::size_t index) const;
  // Where values of a query in work overflow; empty where they do not.
  std::string overflow_of(StepBatch& batch, std::size_t query, Token next) const;
  bool passes_check();
  void count_over_ranks(std::int64_t n_not_begun);
  // The first rank takes what the others have answered since they last met. Collective.
  void hand_out_answers(std::vector<QueryResult>& results);

  const ModelConfig* config_;
  Backend* backend_;
  StepExchange* exchange_;
  const Communicator* group_;
  AnswerOptions options_;
  Querier querier_;
  std::int64_t max_rows_;               // of a step, of this rank
  std::int64_t kv_tokens_ = INT64_MAX;  // the same of all who have the batch
  std::unique_ptr<StepForward> forward_;
  DeviceTokens tokens_;
  std::vector<std::pair<std::size_t, QueryResult>> answered_;  // to hand out, of this rank
  std::optional<Error> failure_;                               // what the check threw
  std::int64_t n_left_ = 0;
  std::optional<PromptLookup> lookup_;
  std::vector<std::shared_ptr<const TokenSet>> allowed_;  // that this step's draws look at
  std::int64_t n_predicted_ = 0;  // queries of all steps whose next token was predicted
  std::int64_t n_taken_ = 0;      // tokens
};

}  // namespace starattn
