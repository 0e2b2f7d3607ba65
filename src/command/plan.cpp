// SPDX-License-Identifier: Apache-2.0
// plan: blocks, memory and arithmetic of a document on so many ranks, before any of it is spent.
// Reads config.json only; needs no launcher.
#include <algorithm>
#include <iostream>

#include "base/json.h"
#include "base/text.h"
#include "command/commands.h"
#include "model/config.h"
#include "run/option_checks.h"
#include "run/options.h"
#include "star/cost.h"

namespace starattn {
namespace {

struct PlanOptions {
  Options common;
  std::string tokens;
  int n_ranks = 1;
  double gflops = 0;
  double read_rate = 0;
  bool json = false;
};

// Embedding and head of an FP8 model are in its other type, and a GPU widens experts.
std::uint64_t bytes_of_weights(const ModelConfig& config, bool on_gpu) {
  const std::uint64_t n = n_parameters(config);
  const std::uint64_t wide = size_of(config.dtype);
  const bool is_f8 =
      config.fp8.scales != Fp8Config::Scales::none && !(on_gpu && config.mixture.n_experts > 0);
  if (!is_f8) return n * wide;
  const auto table = static_cast<std::uint64_t>(config.vocab_size * config.hidden_size);
  return n + (wide - 1) * table * (config.tied_embeddings ? 1 : 2);
}

void print_blocks(const BlockPlan& plan) {
  constexpr BlockId kShown = 16;
  std::cout << "block   tokens                     owner   attends to\n";
  for (BlockId i = 0; i < plan.n_blocks(); ++i) {
    if (plan.n_blocks() > kShown && i == kShown - 1) {
      std::cout << fmt::format("  ... {} more\n", plan.n_blocks() - kShown);
      i = plan.n_blocks() - 1;
    }
    const TokenRange block = plan.block(i);
    std::string sees;
    if (plan.anchor_of(i).n_tokens > 0)
      sees += fmt::format("anchor ({}), ", with_commas(plan.anchor_of(i).n_tokens));
    if (plan.first_reached(i) < i)
      sees += fmt::format("blocks {}-{}, ", plan.first_reached(i), i - 1);
    if (plan.n_recalled(i) > 0)
      sees += fmt::format("{} of {} earlier tokens, ", with_commas(plan.n_recalled(i)),
                          with_commas(plan.recallable(i).n_tokens));
    std::cout << fmt::format("{:>5}   {:<24}  {:>6}   {}itself\n", i,
                             fmt::format("{} .. {}", with_commas(block.first_doc),
                                         with_commas(block.first_doc + block.n_tokens - 1)),
                             plan.owner(i), sees);
  }
}

// With --shard-weights: each GPU has its part of all matrices and two whole layers, in bf16.
void print_shared(const ModelConfig& config, const BlockPlan& plan, MemoryNeed need) {
  const auto n_ranks = static_cast<std::uint64_t>(plan.n_ranks());
  const std::uint64_t all = n_parameters(config) * size_of(Dtype::bf16);
  const std::uint64_t tables = static_cast<std::uint64_t>(config.vocab_size * config.hidden_size) *
                               size_of(Dtype::bf16) * (config.tied_embeddings ? 1 : 2);
  const std::uint64_t a_layer = (all - tables) / static_cast<std::uint64_t>(config.n_layers);
  need.weights = (all + n_ranks - 1) / n_ranks + 2 * a_layer;
  const StepBytes step = step_bytes(config, plan, Dtype::bf16, Dtype::bf16);
  std::cout << fmt::format(
      "         with weights shared out, where all are on one node and GPUs reach each other: {}; "
      "a "
      "step\n         reads {} of weights on each\n",
      need.arithmetic(), human_bytes(step.weights / n_ranks));
}

Json to_json(const MemoryNeed& need) {
  return {{"weights", need.weights}, {"own_kv", need.own_kv},       {"host_kv", need.host_kv},
          {"anchor", need.anchor},   {"workspace", need.workspace}, {"total", need.total()}};
}

// docs/metrics.md has the keys. Tokens, bytes, operations, seconds.
Json to_json(const PlanOptions& options, const ModelConfig& config, const BlockPlan& plan) {
  const bool on_gpu = options.common.device == "cuda";
  const Dtype dtype = on_gpu ? Dtype::bf16 : Dtype::f32;
  const AnchorMode anchor_mode = options.common.anchor_mode();
  const std::uint64_t weight_bytes = bytes_of_weights(config, on_gpu);
  const std::int64_t chunk_rows = on_gpu ? 8192 : 512;
  const auto memory = [&](KvMemory where) {
    return to_json(fullest(
        memory_needs(config, plan, anchor_mode, weight_bytes, dtype, dtype, chunk_rows, where)));
  };
  const Phase1Flops flops = phase1_flops(config, plan, anchor_mode);
  const double slowest = slowest_rank_flops(config, plan, anchor_mode);
  const StepBytes step = step_bytes(config, plan, on_gpu ? Dtype::bf16 : config.dtype, dtype);
  Json json;
  json["schema"] = "starattn-plan-1";
  json["tokens"] = plan.n_context();
  json["ranks"] = plan.n_ranks();
  json["attention"] = options.common.attention;
  json["blocks"] = plan.n_blocks();
  json["block_size"] = plan.block_size();
  json["anchor_size"] = plan.anchor_size();
  json["reach"] = plan.reach();
  json["recall"] = plan.recall();
  json["recall_rows"] = plan.recall_rows();
  json["kv_dtype"] = name_of(dtype);
  json["memory_bytes"] = memory(KvMemory::device);
  if (on_gpu) json["memory_bytes_with_host_kv"] = memory(KvMemory::host);
  json["phase_2_memory_bytes"] =
      answer_workspaces(config, plan, {}, dtype, chunk_rows).front();  // of the query rank
  json["query_token_bytes"] = query_kv_bytes(config, 1, 0, dtype);
  json["phase_1_flop"] = {{"linear", flops.linear},
                          {"attention", flops.attention},
                          {"asking", flops.asking},
                          {"total", flops.total()},
                          {"slowest_rank", slowest}};
  if (options.gflops > 0) json["phase_1_least_seconds"] = slowest / (options.gflops * 1e9);
  json["step_bytes"] = {{"weights", step.weights}, {"kv", step.kv}};
  if (options.read_rate > 0)
    json["step_least_seconds"] = static_cast<double>(step.total()) / (options.read_rate * 1e9);
  return json;
}

Exit print_plan(const PlanOptions& options) {
  const ModelConfig config = read_model_config(options.common.model);
  const std::int64_t n_tokens = parse_tokens(options.tokens, "--tokens");
  if (n_tokens > config.max_positions && !options.common.allow_long) {
    fail(Exit::bad_data,
         "--tokens: {} tokens, but the model has {} positions; --allow-long goes beyond",
         with_commas(n_tokens), with_commas(config.max_positions));
  }
  if (n_tokens > config.sliding_window) {
    fail(Exit::bad_data,
         "--tokens: {} tokens, but attention of the model slides over {} positions, and sliding is "
         "not supported",
         with_commas(n_tokens), with_commas(config.sliding_window));
  }
  const BlockPlan plan = BlockPlan::make(options.common.plan_request(), n_tokens, options.n_ranks);
  if (options.json) {
    std::cout << to_line(to_json(options, config, plan)) << "\n";
    return Exit::ok;
  }
  const AnchorMode anchor_mode = options.common.anchor_mode();
  const bool on_gpu = options.common.device == "cuda";
  const Dtype dtype = on_gpu ? Dtype::bf16 : Dtype::f32;
  const std::uint64_t weight_bytes = bytes_of_weights(config, on_gpu);

  std::cout << fmt::format("model    {}\n", describe(config));
  std::cout << fmt::format(
      "context  {} tokens in {} block(s) of {} tokens, anchor {} tokens, reach {}, recall {}, on "
      "{} "
      "rank(s)\n",
      with_commas(n_tokens), plan.n_blocks(), with_commas(plan.block_size()),
      with_commas(plan.anchor_size()), plan.reach(), with_commas(plan.recall()), options.n_ranks);
  print_blocks(plan);
  const MemoryNeed need = fullest(
      memory_needs(config, plan, anchor_mode, weight_bytes, dtype, dtype, on_gpu ? 8192 : 512));
  std::cout << fmt::format("memory   fullest rank, {}: {}\n", name_of(dtype), need.arithmetic());
  if (on_gpu) {
    const MemoryNeed in_host_memory = fullest(
        memory_needs(config, plan, anchor_mode, weight_bytes, dtype, dtype, 8192, KvMemory::host));
    std::cout << fmt::format("         with --kv-memory host, or auto where the GPU has less: {}\n",
                             in_host_memory.arithmetic());
  }
  if (on_gpu && options.n_ranks > 1 && config.mixture.n_experts == 0)
    print_shared(config, plan, need);
  const std::vector<std::uint64_t> answering =
      answer_workspaces(config, plan, {}, dtype, on_gpu ? 8192 : 512);
  std::cout << fmt::format(
      "         in phase 2 the query rank takes {} beside weights and own KV, and each query in "
      "work "
      "{} a\n         token, of its own and of the longest answer it may get\n",
      human_bytes(answering.front()), human_bytes(query_kv_bytes(config, 1, 0, dtype)));
  const Phase1Flops flops = phase1_flops(config, plan, anchor_mode);
  std::cout << fmt::format(
      "phase 1  {:.3g} TFLOP: linear {:.3g}, attention {:.3g}{}\n", flops.total() * 1e-12,
      flops.linear * 1e-12, flops.attention * 1e-12,
      plan.recall() == 0 ? "" : fmt::format(", asking {:.3g}", flops.asking * 1e-12));
  const double slowest = slowest_rank_flops(config, plan, anchor_mode);
  std::cout << fmt::format("         slowest rank {:.3g} TFLOP, {:.0f} % of an even share\n",
                           slowest * 1e-12, 100 * slowest * options.n_ranks / flops.total());
  if (options.gflops > 0) {
    std::cout << fmt::format("         at least {} at {} GFLOP/s a rank\n",
                             human_seconds(slowest / (options.gflops * 1e9)), options.gflops);
  }
  const StepBytes step = step_bytes(config, plan, on_gpu ? Dtype::bf16 : config.dtype, dtype);
  std::cout << fmt::format(
      "phase 2  a step reads {} of weights on the query rank, {} of keys and values on the "
      "fullest\n",
      human_bytes(step.weights), human_bytes(step.kv));
  if (options.read_rate > 0) {
    const double seconds = static_cast<double>(step.total()) / (options.read_rate * 1e9);
    std::cout << fmt::format("         at least {:.2f} ms at {} GB/s a rank\n", seconds * 1e3,
                             options.read_rate);
  }
  return Exit::ok;
}

}  // namespace

Command add_plan(CLI::App& parser) {
  auto options = std::make_shared<PlanOptions>();
  CLI::App* app = parser.add_subcommand(
      "plan", "Show blocks, memory and arithmetic of a document (no launcher, no GPU)");
  add_model_options(*app, options->common);
  app->add_option("--tokens", options->tokens, "Tokens of the context: 128k, 1m")->required();
  app->add_option("--ranks", options->n_ranks, "Ranks that share the document")
      ->check(CLI::Range(1, 1 << 20))
      ->capture_default_str();
  app->add_option("--gflops", options->gflops, "Rate of one rank, for a time; bench measures it")
      ->check(between(0.001, 1e7));
  app->add_option("--read-rate", options->read_rate,
                  "GB/s that one rank reads, for the time of a step of phase 2; bench measures it")
      ->check(between(0.001, 1e7));
  app->add_option("--device", options->common.device,
                  "auto, cpu or cuda: decides the KV dtype; auto plans for a CPU")
      ->check(CLI::IsMember({"auto", "cpu", "cuda"}))
      ->capture_default_str();
  app->add_flag("--json", options->json, "Print one line of JSON instead, in bytes and seconds");
  add_plan_options(*app, options->common);
  add_anchor_options(*app, options->common);
  add_length_options(*app, options->common);
  return {app, [options] { return print_plan(*options); }, [] { return false; }};
}

}  // namespace starattn
