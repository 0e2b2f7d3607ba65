// SPDX-License-Identifier: Apache-2.0
// Phase 2 with weights that the ranks share out gives the bits of one rank alone, on however many
// ranks mpirun started: more than there are KV heads, too, and on several nodes, which are parts of
// the ranks here.
#include <gtest/gtest.h>

#include <chrono>
#include <cstring>
#include <thread>
#include <utility>

#include "../star/tiny_model.h"
#include "mpi/communicator.h"
#include "star/encode.h"

namespace starattn {
namespace {

using testing::random_tokens;
using testing::TinyModel;

struct Outcome {
  std::vector<float> logits;  // of the last 3 rows of a query, on rank 0
  std::vector<QueryResult> answers;
  std::int64_t n_left = 0;
  double tokens_a_step = 0;
};

struct Setting {
  std::int64_t recall = 0;
  Sampling sampling = {};
  std::int64_t n_logprobs = 0;
  std::vector<Token> eos_tokens = {};
  std::uint64_t query_kv_bytes = UINT64_MAX;
  std::int64_t n_lookup = 0;
  bool adapts_lookup = false;
  std::int64_t n_new_tokens = 4;  // of the first query
  std::int64_t window = 0;        // of the first layer and the last
  ModelConfig config = testing::tiny_config();
  bool has_f8_weights = false;
  int n_nodes = 1;  // the ranks dealt out over them
  bool spread = false;
};

std::vector<QueryJob> jobs(std::int64_t n_new_tokens, const Sampling& sampling) {
  std::vector<QueryJob> all;
  for (std::size_t i = 0; i < 5; ++i) {
    const std::int64_t length = i == 2 ? 230 : 3 + 7 * static_cast<std::int64_t>(i);
    all.push_back(
        {random_tokens(length, 100 + i), n_new_tokens + static_cast<std::int64_t>(i), i, sampling});
  }
  return all;
}

class Sharded : public ::testing::Test {
 protected:
  static inline const std::vector<Token> kContext = random_tokens(430, 1);

  static ModelConfig config_of(const Setting& setting) {
    ModelConfig config = setting.config;
    if (setting.window > 0)
      config.layers = {{.window = setting.window}, {}, {.window = setting.window}};
    if (setting.has_f8_weights) config.fp8.scales = Fp8Config::Scales::made;
    return config;
  }
  static BlockPlan plan_for(const Setting& setting, const Communicator& group) {
    PlanRequest request;
    request.block_size = 100;
    request.anchor_size = TokenShare{60};
    request.recall = TokenShare{setting.recall};
    if (setting.recall > 0) request.recall_rows = TokenShare{24};
    return BlockPlan::make(request, 430, group.size(), config_of(setting).widest_window());
  }
  static AnswerOptions options_of(const Setting& setting) {
    AnswerOptions options;
    options.n_logprobs = setting.n_logprobs;
    options.eos_tokens = setting.eos_tokens;
    options.query_kv_bytes = setting.query_kv_bytes;
    options.n_lookup = setting.n_lookup;
    options.adapts_lookup = setting.adapts_lookup;
    options.context = kContext;
    options.spread_queries = setting.spread;
    return options;
  }

  // With shared weights on all ranks of the group, or whole.
  static Outcome run(TinyModel& model, const Communicator& group, const Setting& setting,
                     bool is_sharded) {
    Encoder encoder(model.decoder, group);
    const DocumentKv kv = encoder.encode(plan_for(setting, group), kContext, EncodeOptions{});
    if (!is_sharded) {
      QueryExchange exchange = Answerer::exchange(model.decoder, group);
      return ask(Answerer(model.decoder, exchange, kv, options_of(setting)), setting);
    }
    const Communicator node = group.split(group.rank() % setting.n_nodes);
    ShardedDecoder decoder(model.decoder, model.weights, ShardPlan::make(model.config, node.size()),
                           node.rank(), Answerer::kMaxRows);
    const std::unique_ptr<ShardExchange> exchange = Answerer::exchange(decoder, group, node);
    const Outcome outcome = ask(Answerer(decoder, *exchange, kv, options_of(setting)), setting);
    if (!testing::on_gpu()) return outcome;
    // From device to device, and first with one rank so late that the others give up waiting.
    std::unique_ptr<PeerLinks> links;
    if (setting.n_nodes == 1 || node.size() > 1)
      links = connect_peers(node, *model.backend, /*on_one_device=*/true);
    const std::unique_ptr<ShardExchange> peers =
        Answerer::exchange(decoder, group, node, std::move(links));
    peers->set_wait_limit(0.5);
    AnswerOptions options = options_of(setting);
    bool is_late = group.rank() == group.size() - 1;
    options.stops_by_text = [is_late](std::size_t, Token) mutable {
      if (std::exchange(is_late, false)) std::this_thread::sleep_for(std::chrono::seconds(2));
      return false;
    };
    const Outcome by_peers = ask(Answerer(decoder, *peers, kv, options), setting);
    expect_same(by_peers, outcome);
    return outcome;
  }
  static void expect_same(const Outcome& a, const Outcome& b) {
    ASSERT_EQ(a.logits.size(), b.logits.size());
    EXPECT_EQ(std::memcmp(a.logits.data(), b.logits.data(), a.logits.size() * sizeof(float)), 0);
    EXPECT_EQ(a.n_left, b.n_left);
    for (std::size_t i = 0; i < b.answers.size(); ++i) {
      EXPECT_EQ(a.answers[i].tokens, b.answers[i].tokens);
      EXPECT_EQ(a.answers[i].reason, b.answers[i].reason);
      EXPECT_EQ(a.answers[i].logprobs, b.answers[i].logprobs);
      EXPECT_EQ(a.answers[i].error, b.answers[i].error);
    }
  }
  static Outcome ask(Answerer answerer, const Setting& setting) {
    Outcome outcome;
    outcome.logits = answerer.logits_of(random_tokens(9, 50), 3);
    const std::vector<QueryJob> all = jobs(setting.n_new_tokens, setting.sampling);
    outcome.answers = answerer.answer(all);
    outcome.n_left = answerer.n_left();
    outcome.tokens_a_step = answerer.tokens_a_step();
    return outcome;
  }

  void expect_same_bits(const Setting& setting) {
    TinyModel model(1, Dtype::bf16, config_of(setting));
    const Outcome together = run(model, world_, setting, /*is_sharded=*/true);
    TinyModel alone_model(1, Dtype::bf16, config_of(setting));
    const Communicator self = world_.split(world_.rank());
    Setting by_itself = setting;
    by_itself.spread = false;
    const Outcome alone = run(alone_model, self, by_itself, /*is_sharded=*/false);
    // On several nodes the first rank has them all.
    if (setting.n_nodes == 1 || world_.is_root()) expect_same(together, alone);
  }

  Communicator world_ = Communicator::world();
};

TEST_F(Sharded, StarHasTheBitsOfOneRankAlone) {
  expect_same_bits({});
}

TEST_F(Sharded, RecallHasTheBitsOfOneRankAlone) {
  expect_same_bits({.recall = 50});
}

TEST_F(Sharded, WindowsHaveTheBitsOfOneRankAlone) {
  for (const std::int64_t window : {1, 30, 150}) {
    expect_same_bits({.window = window});
    expect_same_bits({.n_lookup = 5, .n_new_tokens = 60, .window = window});
    expect_same_bits({.recall = 50, .window = window});
  }
}

// Wide enough for the exchange that brings rows behind their norm: on GPUs wider than what a thread
// of it keeps in registers. The last rank has fewer columns than the others.
TEST_F(Sharded, WideRowsHaveTheBitsOfOneRankAlone) {
  Setting setting;
  setting.config.hidden_size = testing::on_gpu() ? 4232 : 328;
  expect_same_bits(setting);
  setting.config.hidden_size = 392;
  setting.recall = 50;
  setting.n_lookup = 5;
  setting.n_new_tokens = 30;
  expect_same_bits(setting);
}

// Of every expert each rank has columns; with five ranks some have none.
TEST_F(Sharded, MixturesHaveTheBitsOfOneRankAlone) {
  expect_same_bits({.config = testing::tiny_mixture_config()});
  expect_same_bits({.recall = 50, .n_lookup = 5, .config = testing::tiny_mixture_config()});
  expect_same_bits({.config = testing::tiny_sinks_config(30)});  // experts with biases
  for (const bool is_sigmoid : {false, true})
    expect_same_bits({.recall = 50, .config = testing::tiny_shared_expert_config(is_sigmoid)});
  ModelConfig everywhere = testing::tiny_shared_expert_config(false);
  everywhere.layers[1].is_mixture = true;
  expect_same_bits({.config = everywhere});
}

// Of q and k, with as many KV heads as here and with one that several ranks read; and as Olmo,
// whose other norms stand behind the halves of a layer.
TEST_F(Sharded, NormsOfAllHeadsHaveTheBitsOfOneRankAlone) {
  for (const bool are_behind : {false, true}) {
    for (const std::int64_t n_kv_heads : {2, 1}) {
      Setting setting{.recall = 50, .n_lookup = 5};
      setting.config.qk_norm = setting.config.norms_all_heads = true;
      setting.config.norms_outputs = are_behind;
      setting.config.n_kv_heads = n_kv_heads;
      expect_same_bits(setting);
      setting.window = 30;
      if (n_kv_heads == 2) expect_same_bits(setting);
    }
  }
  Setting mixture{.config = testing::tiny_mixture_config()};
  mixture.config.qk_norm = mixture.config.norms_all_heads = true;
  expect_same_bits(mixture);
}

TEST_F(Sharded, LayersWithoutRopeHaveTheBitsOfOneRankAlone) {
  Setting setting;
  setting.config.other_rope.kind = RopeKind::none;
  setting.config.layers = {{}, {.has_other_rope = true}, {}};
  expect_same_bits(setting);
}

TEST_F(Sharded, F8WeightsHaveTheBitsOfOneRankAlone) {
  expect_same_bits({.has_f8_weights = true});
  expect_same_bits({.config = testing::tiny_mixture_config(), .has_f8_weights = true});
  expect_same_bits({.config = testing::tiny_shared_expert_config(false), .has_f8_weights = true});
}

// Nodes of one, two and three ranks; those of the first have the queries, or those of all.
TEST_F(Sharded, SeveralNodesHaveTheBitsOfOneRankAlone) {
  for (const int n_nodes : {2, 3}) {
    if (n_nodes > world_.size()) continue;
    for (const bool spread : {false, true}) {
      expect_same_bits({.n_nodes = n_nodes, .spread = spread});
      expect_same_bits({.recall = 50,
                        .sampling = {0.9, 0.95},
                        .n_logprobs = 4,
                        .n_lookup = 5,
                        .n_new_tokens = 30,
                        .window = 30,
                        .n_nodes = n_nodes,
                        .spread = spread});
      expect_same_bits({.eos_tokens = {1, 2, 3, 5, 7, 11, 13, 17, 19, 23},
                        .query_kv_bytes = 20'000,
                        .config = testing::tiny_mixture_config(),
                        .n_nodes = n_nodes,
                        .spread = spread});
    }
  }
}

TEST_F(Sharded, DrawnTokensAndLogprobsAreTheSame) {
  expect_same_bits({.sampling = {0.9, 0.95}, .n_logprobs = 4});
}

TEST_F(Sharded, StopsWhereOneRankStops) {
  expect_same_bits({.sampling = {1.5, 1}, .eos_tokens = {1, 2, 3, 5, 7, 11, 13, 17, 19, 23}});
}

// Three heads of K and V on two ranks: a token takes more room on one than on the other.
TEST_F(Sharded, QueriesThatFindNoRoomWaitForTheirTurn) {
  ModelConfig config = testing::tiny_config();
  config.n_kv_heads = 3;
  for (const std::uint64_t room : {3'000, 20'000, 40'000})
    expect_same_bits({.query_kv_bytes = room, .config = config});
}

// Drafts change the number of steps and nothing else, with one rank and with several.
TEST_F(Sharded, LookupChangesNothingButTheNumberOfSteps) {
  for (const Sampling sampling : {Sampling{}, Sampling{0.7, 0.9}}) {
    const Setting plain{.sampling = sampling, .n_logprobs = 2, .n_new_tokens = 60};
    Setting drafting = plain;
    drafting.n_lookup = 5;
    TinyModel model;
    const Outcome with = run(model, world_, drafting, /*is_sharded=*/true);
    const Outcome whole = run(model, world_, drafting, /*is_sharded=*/false);
    const Communicator self = world_.split(world_.rank());
    const Outcome without = run(model, self, plain, /*is_sharded=*/false);
    expect_same(with, without);
    if (world_.is_root()) expect_same(whole, without);
    EXPECT_EQ(without.tokens_a_step, 1);
    // The tiny model repeats itself.
    if (sampling.temperature == 0) {
      EXPECT_GT(with.tokens_a_step, 1.2);
    }
    EXPECT_EQ(with.tokens_a_step, whole.tokens_a_step);
    drafting.adapts_lookup = true;
    const Outcome adapting = run(model, world_, drafting, /*is_sharded=*/true);
    expect_same(adapting, without);
    EXPECT_GE(adapting.tokens_a_step, 1);
  }
}

TEST_F(Sharded, OverflowIsFoundWhoeverKeepsTheHead) {
  const Setting setting;
  const auto spoil = [](TinyModel& model) {
    // The last KV head's keys of layer 1: on another rank than the first head's.
    WeightView& k = model.weights.layers[1].k_proj;
    static std::vector<std::uint16_t> bits;
    bits.resize(static_cast<std::size_t>(k.n_rows * k.n_cols));
    std::memcpy(bits.data(), k.data, k.n_bytes());
    for (std::int64_t i = (k.n_rows - 1) * k.n_cols; i < k.n_rows * k.n_cols; ++i)
      bits[static_cast<std::size_t>(i)] = 0x7f00;  // 1.7e38
    k.data = reinterpret_cast<const std::byte*>(bits.data());
  };
  const Communicator self = world_.split(world_.rank());
  TinyModel alone_model;
  TinyModel model;
  const BlockPlan plan = plan_for(setting, world_);
  const DocumentKv kv = Encoder(model.decoder, world_).encode(plan, kContext, {});
  const BlockPlan alone_plan = plan_for(setting, self);
  const DocumentKv alone_kv = Encoder(alone_model.decoder, self).encode(alone_plan, kContext, {});
  spoil(model);
  spoil(alone_model);
  QueryExchange whole = Answerer::exchange(alone_model.decoder, self);
  const Outcome alone = ask(Answerer(alone_model.decoder, whole, alone_kv, {}), setting);
  ShardedDecoder decoder(model.decoder, model.weights, ShardPlan::make(model.config, world_.size()),
                         world_.rank(), Answerer::kMaxRows);
  const std::unique_ptr<ShardExchange> exchange = Answerer::exchange(decoder, world_, world_);
  const Outcome together = ask(Answerer(decoder, *exchange, kv, {}), setting);
  for (std::size_t i = 0; i < alone.answers.size(); ++i) {
    EXPECT_EQ(alone.answers[i].reason, FinishReason::overflow);
    EXPECT_EQ(together.answers[i].reason, FinishReason::overflow);
    EXPECT_EQ(together.answers[i].error, alone.answers[i].error);
  }
}

// Where devices keep their rows alone, phase 1 fetches a layer's others from them.
TEST_F(Sharded, LayersThatDevicesShareHaveTheBitsOfWholeOnes) {
  if (!testing::on_gpu()) GTEST_SKIP() << "only GPUs keep their rows alone";
  for (const ModelConfig& of : {testing::tiny_config(), testing::tiny_mixture_config()}) {
    for (const bool has_f8_weights : {false, true}) {
      const Setting setting{.recall = 50, .config = of, .has_f8_weights = has_f8_weights};
      SCOPED_TRACE(of.mixture.n_experts);
      SCOPED_TRACE(has_f8_weights);
      const ModelConfig config = config_of(setting);
      const ModelWeights weights = testing::tiny_weights(config, Dtype::bf16);
      const std::unique_ptr<Backend> backend = testing::test_backend(1);
      const ShardPlan plan = ShardPlan::make(config, world_.size());
      const std::unique_ptr<SharedLayers> layers =
          backend->share_layers(shared_model(weights, plan, config.head_dim), world_.rank());
      ASSERT_NE(layers, nullptr);
      Decoder decoder(config, weights, *backend,
                      std::max(backend->chunk_rows(), Answerer::kMaxRows), layers.get());
      layers->connect(world_.allgather(layers->address()));
      world_.barrier();
      Outcome together;
      {
        const DocumentKv kv =
            Encoder(decoder, world_).encode(plan_for(setting, world_), kContext, EncodeOptions{});
        ShardedDecoder sharded(decoder, weights, plan, world_.rank(), Answerer::kMaxRows);
        const std::unique_ptr<ShardExchange> exchange = Answerer::exchange(sharded, world_, world_);
        together = ask(Answerer(sharded, *exchange, kv, options_of(setting)), setting);
      }
      TinyModel alone_model(1, Dtype::bf16, config);
      const Communicator self = world_.split(world_.rank());
      expect_same(together, run(alone_model, self, setting, /*is_sharded=*/false));
      world_.barrier();  // nobody's rows go before all have fetched them
    }
  }
}

// Both phases fetch every layer from the host; the first comes behind the last of the step before.
TEST_F(Sharded, LayersInHostMemoryHaveTheBitsOfThoseOnTheDevice) {
  if (!testing::on_gpu()) GTEST_SKIP() << "a CPU's memory is the host's";
  const Communicator self = world_.split(world_.rank());
  for (const ModelConfig& of : {testing::tiny_config(), testing::tiny_mixture_config()}) {
    for (const bool has_f8_weights : {false, true}) {
      const Setting setting{.n_new_tokens = 20, .config = of, .has_f8_weights = has_f8_weights};
      SCOPED_TRACE(of.mixture.n_experts);
      SCOPED_TRACE(has_f8_weights);
      const ModelConfig config = config_of(setting);
      const ModelWeights weights = testing::tiny_weights(config, Dtype::bf16);
      const std::unique_ptr<Backend> backend = testing::test_backend(1);
      const std::unique_ptr<FetchedLayers> layers = backend->stream_layers(layer_matrices(weights));
      ASSERT_NE(layers, nullptr);
      Outcome fetched;
      {
        Decoder decoder(config, weights, *backend,
                        std::max(backend->chunk_rows(), Answerer::kMaxRows), layers.get());
        const DocumentKv kv =
            Encoder(decoder, self).encode(plan_for(setting, self), kContext, EncodeOptions{});
        QueryExchange exchange = Answerer::exchange(decoder, self);
        fetched = ask(Answerer(decoder, exchange, kv, options_of(setting)), setting);
      }
      TinyModel model(1, Dtype::bf16, config);
      expect_same(fetched, run(model, self, setting, /*is_sharded=*/false));
    }
  }
}

TEST_F(Sharded, SharesLeaveNothingOut) {
  ModelConfig config = testing::tiny_mixture_config();
  config.vocab_size = 1001;
  for (const std::int64_t n_kv_heads : {1, 2, 3, 8}) {
    config.n_kv_heads = n_kv_heads;
    config.n_heads = 5 * n_kv_heads;
    for (int n_ranks = 1; n_ranks <= 17; ++n_ranks) {
      const ShardPlan plan = ShardPlan::make(config, n_ranks);
      const auto expect_all = [&](const std::vector<Share>& shares, std::int64_t n) {
        std::int64_t next = 0;
        for (const Share& share : shares) {
          EXPECT_EQ(share.first, next);
          EXPECT_GE(share.count, 0);
          next = share.end();
        }
        EXPECT_EQ(next, n);
      };
      expect_all(plan.hidden, config.hidden_size);
      expect_all(plan.intermediate, config.intermediate_size);
      expect_all(plan.of_expert, config.mixture.expert_size);
      expect_all(plan.vocab, config.vocab_size);
      std::vector<Share> heads;
      for (const HeadShare& share : plan.heads) {
        heads.push_back(share.heads);
        // Attention groups a rank's heads evenly.
        if (share.heads.count == 0) continue;
        EXPECT_EQ(share.heads.count % share.kv_heads.count, 0);
        for (std::int64_t i = 0; i < share.heads.count; ++i) {
          EXPECT_EQ((share.heads.first + i) / 5,
                    share.kv_heads.first + i / (share.heads.count / share.kv_heads.count));
        }
      }
      expect_all(heads, config.n_heads);
    }
  }
}

}  // namespace
}  // namespace starattn
