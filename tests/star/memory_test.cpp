// SPDX-License-Identifier: Apache-2.0
// The memory that plans predict (star/cost.h) beside what the backend was asked for, in both
// phases. On a GPU (STARATTN_TEST_DEVICE=cuda) with a model whose sizes count beside the libraries'
// own.
#include <gtest/gtest.h>

#include "mpi/communicator.h"
#include "star/cost.h"
#include "star/encode.h"
#include "tiny_model.h"

namespace starattn {
namespace {

struct Case {
  const char* name;
  Attention attention = Attention::star;
  std::int64_t reach = 0;
  AnchorMode anchor_mode = AnchorMode::broadcast;
  KvMemory kv_memory = KvMemory::device;
  AnswerLayout layout{};
  std::int64_t n_blocks = 6;
  TokenShare recall{};
  std::optional<TokenShare> anchor_size{};
  bool has_f8_kv = false;
  std::int64_t window = 0;  // of every second layer
  bool has_experts = false;
  bool has_shared_expert = false;  // as well, and no dense layer
};

ModelConfig config_of_test() {
  ModelConfig config = testing::tiny_config();
  if (!testing::on_gpu()) return config;
  config.vocab_size = 32000;
  config.hidden_size = 2048;
  config.intermediate_size = 8192;
  config.n_layers = 4;
  config.n_heads = 32;
  config.n_kv_heads = 8;
  return config;
}

class Memory : public ::testing::TestWithParam<Case> {};

TEST_P(Memory, IsWhatThePlanSays) {
  const Case& c = GetParam();
  const Communicator world = Communicator::world();
  ModelConfig config = config_of_test();
  config.layers.resize(static_cast<std::size_t>(config.n_layers));
  for (std::size_t i = 0; c.window > 0 && i < config.layers.size(); i += 2)
    config.layers[i].window = c.window;
  if (c.has_experts) {
    config.mixture = testing::tiny_mixture_config().mixture;
    config.layers[0].is_mixture = true;
  }
  if (c.has_shared_expert) {
    for (LayerConfig& layer : config.layers) layer.is_mixture = true;
    config.mixture.shared_size = 2 * config.intermediate_size;
    config.mixture.weighs_shared = true;
  }
  const ModelWeights weights = ModelWeights::random(config, Dtype::bf16, 7);
  const auto backend = testing::test_backend(1);
  if (c.has_f8_kv) backend->keep_kv_in_f8();
  const std::uint64_t of_backend = backend->peak_bytes();  // 64 MiB for cuBLASLt on a GPU
  Decoder decoder(config, weights, *backend, std::max(backend->chunk_rows(), Answerer::kMaxRows));
  const std::uint64_t loaded = of_backend + (testing::on_gpu() ? weights.total_bytes() : 0);

  PlanRequest request;
  request.attention = c.attention;
  request.block_size = backend->chunk_rows();
  if (c.attention == Attention::star) request.reach = c.reach;
  request.recall = c.recall;
  request.anchor_size = c.anchor_size;
  const std::int64_t n_context = c.n_blocks * backend->chunk_rows();
  const BlockPlan plan = BlockPlan::make(request, n_context, world.size(), config.widest_window());
  const MemoryNeed phase1 =
      memory_needs(config, plan, c.anchor_mode, 0, backend->kv_dtype(), backend->activation_dtype(),
                   backend->chunk_rows(), c.kv_memory)[static_cast<std::size_t>(world.rank())];
  AnswerLayout layout = c.layout;
  if (layout.has_shares()) layout.n_shares = world.size();
  const std::uint64_t workspace =
      answer_workspaces(config, plan, layout, backend->kv_dtype(), backend->activation_dtype(),
                        backend->chunk_rows())[static_cast<std::size_t>(world.rank())];

  Encoder encoder(decoder, world);
  std::vector<Token> context = testing::random_tokens(n_context, 1);
  const DocumentKv kv =
      encoder.encode(plan, context, {.anchor_mode = c.anchor_mode, .kv_memory = c.kv_memory});
  const std::uint64_t after_phase1 = backend->peak_bytes() - loaded;
  // On the CPU what stands for pinned memory is counted, too.
  const std::uint64_t pinned = testing::on_gpu() ? 0 : phase1.host_kv;
  EXPECT_LE(after_phase1, phase1.total() + pinned) << phase1.arithmetic();
  EXPECT_GE(after_phase1 * 2, phase1.total()) << phase1.arithmetic();

  // Long answers, so that K and V of the queries are what counts; they end at once.
  constexpr std::int64_t kQueries = 8;
  const std::int64_t n_new = 3 * backend->chunk_rows();
  std::vector<QueryJob> jobs;
  for (std::uint64_t i = 0; i < kQueries; ++i)
    jobs.push_back({testing::random_tokens(4, i), n_new, i});
  std::unique_ptr<ShardedDecoder> sharded;
  std::unique_ptr<ShardExchange> shard_exchange;
  std::optional<QueryExchange> exchange;
  if (layout.has_shares()) {
    sharded = std::make_unique<ShardedDecoder>(
        decoder, weights, ShardPlan::make(config, world.size()), world.rank(), Answerer::kMaxRows);
    shard_exchange = Answerer::exchange(*sharded, world, world);
  } else {
    exchange.emplace(Answerer::exchange(decoder, world));
  }
  AnswerOptions options;
  options.spread_queries = c.layout.spread_queries;
  options.tree_merge = c.layout.tree_merge;
  options.stops_by_text = [](std::size_t, Token) { return true; };
  for (const std::int64_t n_at_once : {1, 3}) {
    const std::uint64_t query =
        query_kv_bytes(config, 4, n_new, backend->activation_dtype(), layout.n_shares);
    options.query_kv_bytes = static_cast<std::uint64_t>(n_at_once) * query;
    if (sharded) {
      Answerer(*sharded, *shard_exchange, kv, options).answer(jobs);
    } else {
      Answerer(decoder, *exchange, kv, options).answer(jobs);
    }
    const bool has_queries = layout.has_shares() || layout.spread_queries || world.is_root();
    const std::uint64_t most_queries =
        c.layout.spread_queries ? (kQueries + world.size() - 1) / world.size() : kQueries;
    const std::uint64_t n_in_work = std::min<std::uint64_t>(n_at_once, most_queries);
    const std::uint64_t need = phase1.own_kv + workspace + (has_queries ? n_in_work * query : 0);
    const std::uint64_t peak = backend->peak_bytes() - loaded;
    EXPECT_LE(peak, std::max(need, phase1.total()) + pinned) << n_at_once << " at once";
    if (has_queries && need > phase1.total()) {
      EXPECT_GE(peak * 2, need) << n_at_once << " at once";
    }
    if (testing::on_gpu() && world.is_root()) {
      fmt::print("{}: predicted {} and {}, peak {} and {} MiB\n", c.name, phase1.total() >> 20,
                 need >> 20, after_phase1 >> 20, peak >> 20);
    }
  }
}

// To pin memory takes seconds, which are hidden behind the block before.
TEST(PinnedMemory, IsMadeOneBlockAhead) {
  if (testing::on_gpu()) GTEST_SKIP() << "a GPU's peak leaves pinned memory out";
  const Communicator world = Communicator::world();
  const ModelConfig config = testing::tiny_config();
  const ModelWeights weights = ModelWeights::random(config, Dtype::bf16, 7);
  for (const TokenShare recall : {TokenShare{}, TokenShare{.divisor = 2}}) {
    const auto backend = testing::test_backend(1);
    Decoder decoder(config, weights, *backend, std::max(backend->chunk_rows(), Answerer::kMaxRows));
    PlanRequest request;
    request.block_size = backend->chunk_rows();
    request.recall = recall;
    const std::int64_t n_context = 6 * world.size() * backend->chunk_rows();
    const BlockPlan plan = BlockPlan::make(request, n_context, world.size());
    Encoder encoder(decoder, world);
    std::vector<std::uint64_t> peaks;
    std::uint64_t block_bytes = 0;
    EncodeOptions options{.kv_memory = KvMemory::host};
    options.block_done = [&](BlockId, const KvCache& cache) {
      peaks.push_back(backend->peak_bytes());
      block_bytes = cache.n_bytes();
    };
    encoder.encode(plan, testing::random_tokens(n_context, 1), options);
    ASSERT_EQ(peaks.size(), 6U);
    for (std::size_t i = 1; i < 5; ++i) EXPECT_GE(peaks[i], peaks[i - 1] + block_bytes) << i;
    EXPECT_LT(peaks[5], peaks[4] + block_bytes);  // the last has none behind it
  }
}

INSTANTIATE_TEST_SUITE_P(
    Plans, Memory,
    ::testing::Values(
        Case{.name = "star"}, Case{.name = "recompute", .anchor_mode = AnchorMode::recompute},
        Case{.name = "reach", .reach = 2}, Case{.name = "ring", .attention = Attention::ring},
        Case{.name = "host", .kv_memory = KvMemory::host},
        Case{.name = "recall", .recall = {.divisor = 2}},
        Case{.name = "star_fp8", .has_f8_kv = true},
        Case{.name = "ring_fp8", .attention = Attention::ring, .has_f8_kv = true},
        Case{.name = "recall_fp8", .recall = {.divisor = 2}, .has_f8_kv = true},
        Case{.name = "recall_small_anchor",
             .recall = {.divisor = 2},
             .anchor_size = {{.divisor = 16}}},
        Case{.name = "recall_host", .kv_memory = KvMemory::host, .recall = {.divisor = 2}},
        Case{.name = "window", .window = 300}, Case{.name = "wide_window", .window = 1500},
        Case{.name = "window_host", .kv_memory = KvMemory::host, .window = 300},
        Case{.name = "window_fp8", .has_f8_kv = true, .window = 300},
        Case{.name = "window_recall", .recall = {.divisor = 2}, .window = 300},
        Case{.name = "spread", .layout = {.spread_queries = true}},
        Case{.name = "tree", .layout = {.tree_merge = true}},
        Case{.name = "shared", .layout = {.n_shares = 1}},
        Case{.name = "shared_window", .layout = {.n_shares = 1}, .window = 300},
        Case{.name = "shared_experts", .layout = {.n_shares = 1}, .has_experts = true},
        Case{.name = "shared_expert", .has_experts = true, .has_shared_expert = true},
        Case{.name = "shared_shared_expert",
             .layout = {.n_shares = 1},
             .has_experts = true,
             .has_shared_expert = true},
        Case{.name = "many_blocks", .layout = {.spread_queries = true}, .n_blocks = 37}),
    [](const auto& test) { return std::string(test.param.name); });

}  // namespace
}  // namespace starattn
