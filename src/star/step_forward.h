// SPDX-License-Identifier: Apache-2.0
// The network on the rows of one step of phase 2, and what its last rows predict. Two ways: the
// rank whose query it is runs it alone (whole), or the ranks of its node run it together, each on
// its share of the weights (sharded). A row has the same bits either way.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "exchange/query_exchange.h"
#include "exchange/shard_exchange.h"
#include "model/sharded_decoder.h"
#include "star/context_attention.h"
#include "star/context_tail.h"
#include "star/kv_check.h"
#include "star/pass_rows.h"

namespace starattn {

class StepForward {
 public:
  virtual ~StepForward() = default;

  // Collective, as all that follow; the last two over those who have the query.
  virtual void start_document() = 0;
  // Width of the keys, and of the values, that this rank keeps of a query's token.
  virtual std::int64_t own_kv_width() const = 0;
  // One pass through the network; the residual stream is kept.
  virtual void run(const PassRows& rows) = 0;
  // The tokens that draws find behind rows first to first + draws.size() - 1 of the last pass.
  // tokens [draws.size()], on the device.
  virtual void draw(std::int64_t first_row, std::span<const Draw> draws, Token* tokens) = 0;
  // [vocab] on the host, of one such row. Good until the next call.
  virtual std::span<const float> logits_of(std::int64_t row) = 0;
  // Whether the last pass, or what was asked about it, has to be done again, from run() on. The
  // batch's rows must not be taken as done before.
  virtual bool was_in_vain() { return false; }
  // Where a query's own keys or values are not finite for the first time, whoever keeps them.
  virtual std::optional<Overflow> find_overflow(const KvCache& own, std::int64_t n_tokens) = 0;
};

// max_rows: of this rank's, if it has queries. Arguments must outlive the result.
std::unique_ptr<StepForward> make_whole_forward(Decoder& decoder, QueryExchange& exchange,
                                                const DocumentKv& kv, std::int64_t max_rows,
                                                bool tree_merge, bool has_queries);
// All ranks of a node bring the same batch. max_rows: of this node's, 0 if it has no queries.
std::unique_ptr<StepForward> make_sharded_forward(ShardedDecoder& decoder, ShardExchange& exchange,
                                                  const DocumentKv& kv, std::int64_t max_rows);

}  // namespace starattn
