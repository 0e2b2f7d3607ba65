// SPDX-License-Identifier: Apache-2.0
// Phase 2, query encoding and generation (Star Attention, arXiv 2411.17116, section 2.2). The query
// rank runs the network on the rows of all its queries together. In each layer it hands its Q to
// everyone; every block's owner returns unfinished attention (o, m, l) over that block; the query
// rank merges these along the canonical tree, then each query's own earlier tokens, and finishes.
//
// A query's result does not depend on its batch mates: every operation here treats rows one by one.
#pragma once

#include <functional>
#include <span>
#include <string>
#include <vector>

#include "exchange/query_exchange.h"
#include "model/decoder.h"
#include "mpi/communicator.h"
#include "star/kv.h"
#include "star/kv_prefetch.h"
#include "star/merge_tree.h"
#include "star/sampling.h"

namespace starattn {

struct QueryJob {
  std::vector<Token> tokens;  // the query, at positions n_context ..
  std::int64_t max_new_tokens = 128;
  std::uint64_t sampling_key = 0;
};

enum class FinishReason { not_begun, stop, length };

struct QueryResult {
  std::vector<Token> tokens;  // new tokens; ends with the EOS when that is why it stopped
  FinishReason reason = FinishReason::not_begun;
  std::vector<std::pair<Token, float>> logprobs;  // the first new token's top logits
  double seconds = 0;                             // from the start of phase 2 to its last token
};

struct AnswerOptions {
  std::vector<Token> eos_tokens;
  Sampling sampling;
  std::int64_t n_logprobs = 0;
  bool spread_queries = false;  // query j belongs to rank j % size instead of rank 0
  bool tree_merge = false;      // partials travel along the tree instead of one gather
  // Room on this rank for K and V of its queries in work, by default without a limit. A query that
  // does not fit beside the others waits for its turn; one that is alone is let in.
  std::uint64_t query_kv_bytes = UINT64_MAX;
  // True when a query's new token completes a stop string. Called for each of them in turn, on the
  // query's rank.
  std::function<bool(std::size_t query, Token next)> stops_by_text;
  // Called on the first rank as soon as a query is answered; with spread queries, when all ranks
  // next meet, which is before the next step.
  std::function<void(std::size_t query, const QueryResult&)> finished;
  std::function<void()> poll = [] {};
  // Asked on every rank before each step: once it is true on any, no further query begins.
  std::function<bool()> stop = [] { return false; };
};

class Answerer {
 public:
  // Rows of one step over all query ranks: bounds the memory of partials in flight.
  static constexpr std::int64_t kMaxRows = 128;

  // The decoder must take kMaxRows rows. kv: this rank's share. Arguments must outlive the
  // answerer.
  Answerer(Decoder& decoder, const Communicator& group, const DocumentKv& kv,
           AnswerOptions options);

  // Collective; jobs are the same on every rank. Results are complete on the first rank. A query
  // begins when there is room for its rows and for its K and V, so at most kMaxRows of them hold
  // any at a time. Throws Error(bad_data) for an empty query, AgreedError(bad_data) for one whose K
  // and V find no memory with no other in work.
  std::vector<QueryResult> answer(std::span<const QueryJob> jobs);
  // Queries of all ranks that the last answer() did not begin, because it was asked to stop.
  std::int64_t n_left() const { return n_left_; }

  // Logits of the last n_last rows of one query, on rank 0: [n_last, vocab]. Collective.
  std::vector<float> logits_of(const std::vector<Token>& query, std::int64_t n_last);

 private:
  struct Query;
  struct Piece;

  Rank owner_of(std::size_t query) const;
  Query query_of(std::size_t index, const QueryJob& job) const;
  std::vector<Piece> next_pieces(std::vector<Query>& queries);
  // Gives the query memory for its K and V. False when it has to wait for others.
  bool begin(Query& query);
  // Everybody learns how many rows each rank brings to the step, whether one was asked to stop, has
  // answers to hand out, or has no memory for any query. False when there are no rows.
  bool agree_on_rows(std::span<const Piece> pieces);
  // One pass of the pieces' rows through the network; x_ holds the residual stream afterwards.
  void forward(std::vector<Query>& queries, std::span<const Piece> pieces);
  // Attention of this rank's rows over the whole context, unfinished. Good until the next call.
  Partial attend_to_context(std::int64_t layer, Rows q);
  // Attention of all ranks' rows over this rank's blocks, merged into subtrees.
  using Subtree = std::pair<MergeNode, int>;  // and the number of its partial
  std::vector<Subtree> attend_to_blocks(std::int64_t layer, Rows all_q);
  Partial merge_along_tree(std::vector<Subtree> mine);
  int take_part();
  Partial part_of(int number) const {
    return parts_[static_cast<std::size_t>(number)].view(exchange_.n_rows());
  }
  std::vector<Token> next_tokens(std::vector<Query>& queries, std::span<const Piece> pieces);
  void take_next_token(Query& query, Token next, double seconds);
  // The first rank takes what the others have answered since they last met. Collective.
  void hand_out_answers(std::vector<QueryResult>& results);
  // [vocab] on the host. Good until the next call.
  std::span<const float> logits_of_row(std::int64_t row);
  static std::size_t end_of_run(std::span<const Piece> pieces, std::size_t first);

  Decoder* decoder_;
  Backend* backend_;
  const Communicator* group_;
  const DocumentKv* kv_;
  KvPrefetch feed_;
  AnswerOptions options_;
  AttentionShape shape_;
  std::int64_t rows_per_rank_;
  std::int64_t max_rows_;             // of a step, over all ranks
  std::vector<std::int64_t> n_rows_;  // of this step, by rank
  bool stopped_ = false;              // the same on every rank
  bool has_answers_ = false;          // some rank: to hand out to the first one; the same on all
  std::vector<std::pair<std::size_t, QueryResult>> answered_;  // to hand out, of this rank
  std::uint64_t query_kv_in_use_ = 0;                          // bytes, of queries in work
  std::string no_memory_;                                      // why not one query can begin
  std::int64_t n_left_ = 0;
  std::vector<std::vector<MergeNode>> subtrees_by_rank_;
  std::vector<Merge> merges_to_root_;  // of these subtrees, numbered rank by rank
  int root_ = 0;                       // the number that is the whole context in the end
  QueryExchange exchange_;
  RowBuffer x_, q_, k_, v_, attended_;
  std::vector<float> host_logits_;    // [vocab]
  std::vector<PartialBuffer> parts_;  // [max_rows, n_heads, head_dim], as many as were needed
  std::vector<int> free_parts_;
  PartialBuffer merged_;  // from another rank, along the tree
};

}  // namespace starattn
