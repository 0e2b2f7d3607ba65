// SPDX-License-Identifier: Apache-2.0
// What the ranks of a node say to each other in phase 2 where they share out a model's weights.
// All of them go through the layers with all rows of the node's queries, and each computes its
// columns of every product. In a layer they exchange six times: q, partials, attended rows, the
// output projection, gated rows, the down projection; and the logits behind the last layer. A
// mixture with an expert that every row takes has its gated rows as well, and q and k are exchanged
// once more for norms over all heads. On several nodes each has all weights; q and partials go to
// and from the other nodes, too.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "exchange/step_exchange.h"
#include "model/shard.h"

namespace starattn {

class ShardExchange : public StepExchange {
 public:
  // node: the ranks of the group that share out one copy of the weights; all of them bring the same
  // rows to a step. heads[rank]: those that a rank of the node has; shape: of all heads.
  ShardExchange(const Communicator& group, const Communicator& node, Backend& backend,
                const AttentionShape& shape, std::vector<Share> heads, std::int64_t max_rows);

  virtual const char* name() const = 0;  // how it goes: "through the host"

  const Communicator& node() const { return *node_; }
  // Nodes of the group, in the order of their first ranks, and this rank's among them.
  virtual int n_nodes() const { return 1; }
  virtual int node_number() const { return 0; }

  // all [n_rows, the sum of columns] gets the `mine` [n_rows, columns[this rank].count] of every
  // rank of the node side by side; value_bytes: of one number. On the device. Collective over the
  // node.
  virtual void gather(const std::byte* mine, std::int64_t n_rows, std::span<const Share> columns,
                      std::size_t value_bytes, std::byte* all) = 0;
  // The same of activations, which `reader` reads first.
  virtual void gather(Rows mine, std::span<const Share> columns, Rows all,
                      Reader /*reader*/ = Reader::any) {
    STARATTN_CHECK(mine.n_rows == all.n_rows && mine.width == columns[me()].count &&
                   all.width == columns.back().end());
    gather(mine.data, mine.n_rows, columns, size_of(backend_->activation_dtype()), all.data);
  }

  // The same, and normed [n_rows, the sum of columns]: the RMS norm of `all`. A product that reads
  // it first may leave `all` as it was.
  virtual void gather_normed(Rows mine, std::span<const Share> columns, const RowNorm& norm,
                             Rows all, Rows normed, Reader /*reader*/ = Reader::any) {
    gather(mine, columns, all);
    backend_->rms_norm(all, norm.weight, norm.eps, normed);
  }
  // gather() or gather_normed() of these is what the ranks do next. Whichever operation makes
  // `mine` before then may send it by itself, where the device can.
  virtual void announce(Rows /*mine*/, std::span<const Share> /*columns*/) {}
  // The same of share(), which brings in all of them.
  virtual void announce_queries(Rows /*mine*/) {}

  // Whether the device of any rank gave up waiting for another's since the last question: then
  // what was exchanged is worth nothing, and has to be done again. The device has finished with
  // what is asked about; then it has also finished with all that went ahead. Collective.
  bool was_in_vain() {
    if (!group_->any(has_given_up())) return false;
    backend_->synchronize();
    group_->any(has_given_up());  // on what went ahead: all begin again from here
    return true;
  }
  virtual bool has_given_up() { return false; }  // this rank's, since the last question
  // Where devices wait for each other: for so long. Of no meaning elsewhere.
  virtual void set_wait_limit(double /*seconds*/) {}

  void start_document(std::vector<std::int64_t> n_parts) override { n_parts_ = std::move(n_parts); }
  void start_step(std::vector<std::int64_t> n_rows) override;
  std::int64_t n_rows() const override { return n_rows_; }
  std::int64_t n_rows_of(Rank) const override { return n_rows_; }
  Rows share(Rows mine) override;
  // All rows of every rank's partials, of this rank's heads alone; no keys belong to them any more.
  AttentionShape collected_shape() const override {
    return {heads_[me()].count, heads_[me()].count, shape_.head_dim};
  }

 protected:
  std::size_t me() const { return static_cast<std::size_t>(node_->rank()); }
  std::size_t n_ranks() const { return heads_.size(); }
  // `heads` of a partial of all heads on the host, which become all that `to` has.
  void pick_heads(Partial all, Share heads, Partial to) const;

  const Communicator* node_;
  AttentionShape shape_;
  std::vector<Share> heads_;
  std::vector<std::int64_t> n_parts_;
  std::int64_t n_rows_ = 0;
  std::vector<Share> q_columns_;
  RowBuffer all_q_;  // [max_rows, n_heads * head_dim]
};

// Within a node from device to device where there are links, which are connected; else through
// memory of the node, moved by the host, on any device. Collective over the group. Throws
// AgreedError(unfit) where a node has no room for it.
std::unique_ptr<ShardExchange> make_shard_exchange(const Communicator& group,
                                                   const Communicator& node, Backend& backend,
                                                   const AttentionShape& shape,
                                                   std::vector<Share> heads, std::int64_t max_rows,
                                                   std::unique_ptr<PeerLinks> links);

// Between the devices of these ranks, which share a node. on_one_device: even where ranks have one
// device together, which gives the right bits, slowly: a waiting kernel holds up the one that it
// waits for. Collective. Throws AgreedError(unfit) saying what keeps the devices apart.
std::unique_ptr<PeerLinks> connect_peers(const Communicator& group, Backend& backend,
                                         bool on_one_device);

}  // namespace starattn
