// SPDX-License-Identifier: Apache-2.0
// What the tests of the method's equalities share: a document and its queries through both phases,
// in a setting, on all ranks that mpirun started or on one of them alone.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <exception>
#include <string>
#include <vector>

#include "mpi/communicator.h"
#include "star/encode.h"
#include "tiny_model.h"

namespace starattn::testing {

struct Setting {
  std::int64_t n_context = 700;
  std::int64_t block = 200;
  std::int64_t anchor = 200;
  std::int64_t reach = 0;
  std::int64_t recall = 0;
  std::int64_t recall_rows = 24;
  Attention attention = Attention::star;
  Placement placement = Placement::contiguous;
  AnchorMode anchor_mode = AnchorMode::broadcast;
  bool spread = false;
  bool tree = false;
  KvMemory kv_memory = KvMemory::device;
  Sampling sampling;
  bool only_first_is_drawn = false;
  bool experts = false;
  bool shared_expert = false;  // and sigmoids choose the others
  bool has_f8_kv = false;
  bool rounds_rows = false;           // and has FP8 weights
  std::vector<std::int64_t> windows;  // of each layer; 0: none
  bool sinks = false;                 // with the experts that go with them
  bool ropes = false;                 // none in the second layer of three
  bool norms_outputs = false;         // as Olmo 3
};

struct Outcome {
  std::vector<float> logits;                // of the last 3 rows of a query, on rank 0
  std::vector<std::vector<Token>> answers;  // of all queries, on every rank
};

inline bool same_bits(const std::vector<float>& a, const std::vector<float>& b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0;
}

inline double relative_difference(const std::vector<float>& a, const std::vector<float>& b) {
  EXPECT_EQ(a.size(), b.size());
  double worst = 0;
  double scale = 0;
  for (std::size_t i = 0; i < a.size(); ++i) {
    worst = std::max(worst, std::abs(static_cast<double>(a[i]) - b[i]));
    scale = std::max(scale, std::abs(static_cast<double>(b[i])));
    EXPECT_FALSE(std::isnan(a[i]));
  }
  return worst / scale;
}

// fp32 with another order of sums; on a GPU, activations rounded to bf16 (2^-9) over three layers.
inline double rounding() {
  return on_gpu() ? 3e-2 : 2e-5;
}

inline std::vector<QueryJob> jobs(std::size_t n, const Sampling& sampling = {}) {
  std::vector<QueryJob> all;
  for (std::size_t i = 0; i < n; ++i) {
    // Ragged; the third is longer than a step's rows and than a block.
    const std::int64_t length = i == 2 ? 230 : 3 + 7 * static_cast<std::int64_t>(i);
    all.push_back({random_tokens(length, 100 + i), 4 + static_cast<std::int64_t>(i), i, sampling});
  }
  return all;
}

inline Outcome run(const Communicator& group, const Setting& setting, int n_threads = 1,
                   std::size_t n_queries = 4) {
  ModelConfig config = setting.experts ? tiny_mixture_config() : tiny_config();
  if (setting.shared_expert) config = tiny_shared_expert_config(/*is_sigmoid=*/true);
  if (setting.sinks) config = tiny_sinks_config(kNoWindow);
  config.layers.resize(static_cast<std::size_t>(config.n_layers));
  for (std::size_t i = 0; i < setting.windows.size(); ++i)
    if (setting.windows[i] > 0) config.layers[i].window = setting.windows[i];
  config.other_rope.kind = RopeKind::none;
  config.layers[1].has_other_rope = setting.ropes;
  config.qk_norm = config.norms_all_heads = config.norms_outputs = setting.norms_outputs;
  if (setting.rounds_rows) config.fp8.scales = Fp8Config::Scales::made;
  TinyModel model(n_threads, Dtype::bf16, config);
  if (setting.rounds_rows) model.backend->round_rows_to_f8();
  if (setting.has_f8_kv) model.backend->keep_kv_in_f8();
  PlanRequest request;
  request.attention = setting.attention;
  if (setting.attention == Attention::star) {
    request.block_size = setting.block;
    request.anchor_size = TokenShare{setting.anchor};
    request.reach = setting.reach;
    request.recall = TokenShare{setting.recall};
    if (setting.recall > 0) request.recall_rows = TokenShare{setting.recall_rows};
  } else if (setting.attention == Attention::ring) {
    request.block_size = setting.block;
  }
  const bool has_waves = setting.recall > 0 || !setting.windows.empty();
  if (!has_waves) request.placement = setting.placement;
  const BlockPlan plan =
      BlockPlan::make(request, setting.n_context, group.size(), config.widest_window());
  const std::vector<Token> context = random_tokens(setting.n_context, 1);
  Encoder encoder(model.decoder, group);
  const DocumentKv kv = encoder.encode(
      plan, context, {.anchor_mode = setting.anchor_mode, .kv_memory = setting.kv_memory});

  AnswerOptions options;
  options.spread_queries = setting.spread;
  options.tree_merge = setting.tree;
  QueryExchange exchange = Answerer::exchange(model.decoder, group);
  Answerer answerer(model.decoder, exchange, kv, options);
  Outcome outcome;
  outcome.logits = answerer.logits_of(random_tokens(9, 50), 3);
  std::vector<QueryJob> all = jobs(n_queries, setting.sampling);
  if (setting.only_first_is_drawn)
    for (QueryJob& job : std::span(all).subspan(1)) job.sampling = {};
  const std::vector<QueryResult> results = answerer.answer(all);
  for (std::size_t i = 0; i < all.size(); ++i) {
    std::string bytes(reinterpret_cast<const char*>(results[i].tokens.data()),
                      results[i].tokens.size() * sizeof(Token));
    bytes = group.bcast_text(bytes, 0);
    std::vector<Token> tokens(bytes.size() / sizeof(Token));
    std::memcpy(tokens.data(), bytes.data(), bytes.size());
    outcome.answers.push_back(tokens);
  }
  return outcome;
}

// The same setting on rank 0 alone. The others would only do it again, so they wait, asleep, and
// have no outcome.
inline Outcome run_alone(const Communicator& world, const Setting& setting) {
  constexpr int kTag = 1;
  const Communicator self = world.split(world.rank());
  Outcome outcome;
  std::exception_ptr failure;  // which must not leave them waiting
  Requests done;
  std::byte nothing{};
  if (world.is_root()) {
    try {
      outcome = run(self, setting);
    } catch (...) {
      failure = std::current_exception();
    }
    for (Rank rank = 1; rank < world.size(); ++rank)
      world.isend(std::span(&nothing, 1), rank, kTag, done);
  } else {
    world.irecv(std::span(&nothing, 1), 0, kTag, done);
  }
  done.wait();
  if (failure) std::rethrow_exception(failure);
  return outcome;
}

class Equalities : public ::testing::Test {
 protected:
  Communicator world_ = Communicator::world();

  void expect_same_bits(const Outcome& one, const Outcome& other) const {
    if (!world_.is_root()) return;
    EXPECT_TRUE(same_bits(one.logits, other.logits));
    EXPECT_EQ(one.answers, other.answers);
  }
  void expect_close(const Outcome& one, const Outcome& other) const {
    if (world_.is_root()) {
      EXPECT_LT(relative_difference(one.logits, other.logits), rounding());
    }
  }
  void expect_far(const Outcome& one, const Outcome& other, double least = 1e-3) const {
    if (world_.is_root()) {
      EXPECT_GT(relative_difference(one.logits, other.logits), least);
    }
  }
  void expect_same_bits_as_alone(const Setting& setting) const {
    const Outcome together = run(world_, setting);
    expect_same_bits(together, run_alone(world_, setting));
  }
  void expect_close_to_dense(const Setting& setting) const {
    const Outcome together = run(world_, setting);
    expect_close(together, run_dense(setting));
  }
  void expect_not_dense(const Setting& setting) const {  // else the one above could not fail
    const Outcome together = run(world_, setting);
    expect_far(together, run_dense(setting));
  }

 private:
  Outcome run_dense(Setting setting) const {
    setting.attention = Attention::dense;
    return run_alone(world_, setting);
  }
};

}  // namespace starattn::testing
