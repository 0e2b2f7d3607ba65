// SPDX-License-Identifier: Apache-2.0
#include "command/plan_sizes.h"

#include "base/text.h"
#include "star/auto_setting.h"

namespace starattn {
namespace {

Json to_json(const MemoryNeed& need) {
  return {{"weights", need.weights}, {"own_kv", need.own_kv},       {"host_kv", need.host_kv},
          {"anchor", need.anchor},   {"workspace", need.workspace}, {"total", need.total()}};
}

// Bytes of the matrices as a GPU has them. Norms and biases count as part of their layer.
struct WeightsOfGpu {
  std::uint64_t all, a_layer, of_layers;
};

WeightsOfGpu weights_of_gpu(const ModelConfig& config) {
  const std::uint64_t all = bytes_of_weights(config, Dtype::bf16);
  const std::uint64_t tables = static_cast<std::uint64_t>(config.vocab_size * config.hidden_size) *
                               size_of(Dtype::bf16) * (config.tied_embeddings ? 1 : 2);
  return {all, (all - tables) / static_cast<std::uint64_t>(config.n_layers), all - tables};
}

}  // namespace

std::uint64_t bytes_of_weights(const ModelConfig& config, Dtype wide_dtype) {
  const std::uint64_t n = n_parameters(config);
  const std::uint64_t wide = size_of(wide_dtype);
  const auto table = static_cast<std::uint64_t>(config.vocab_size * config.hidden_size);
  std::uint64_t n_f8 = 0;
  if (config.fp8.scales != Fp8Config::Scales::none)
    n_f8 = n - table * (config.tied_embeddings ? 1 : 2);
  else if (config.mixture.are_f8)
    n_f8 = n_expert_parameters(config, config.mixture.n_experts);
  return n_f8 + (n - n_f8) * wide;
}

PlanSizes::PlanSizes(const ModelConfig& config, const BlockPlan& plan, const SizesRequest& request)
    : config_(config),
      plan_(plan),
      request_(request),
      dtype_(request.on_gpu ? Dtype::bf16 : Dtype::f32),
      kv_dtype_(request.has_f8_kv ? Dtype::f8 : dtype_),
      chunk_rows_(request.on_gpu ? 8192 : 512),
      answering_(answer_workspaces(config, plan, {}, kv_dtype_, dtype_, chunk_rows_).front()),
      query_token_(query_kv_bytes(config, 1, 0, dtype_)),
      flops_(phase1_flops(config, plan, request.anchor_mode)),
      slowest_(slowest_rank_flops(config, plan, request.anchor_mode)),
      step_(step_bytes(config, plan, request.on_gpu ? Dtype::bf16 : config.dtype, kv_dtype_)) {}

MemoryNeed PlanSizes::need(KvMemory where) const {
  return fullest(memory_needs(config_, plan_, request_.anchor_mode,
                              bytes_of_weights(config_, config_.dtype), kv_dtype_, dtype_,
                              chunk_rows_, where));
}

std::string PlanSizes::to_text() const {
  return fmt::format(
             "context  {} tokens in {} block(s) of {} tokens, anchor {} tokens, reach {}, recall "
             "{}, on {} rank(s)\n",
             with_commas(plan_.n_context()), plan_.n_blocks(), with_commas(plan_.block_size()),
             with_commas(plan_.anchor_size()), plan_.reach(), with_commas(plan_.recall()),
             plan_.n_ranks()) +
         blocks() + expected_of_recall() + memory() + phase_1() + phase_2();
}

std::string PlanSizes::blocks() const {
  constexpr BlockId kShown = 16;
  std::string text = "block   tokens                     owner   attends to\n";
  for (BlockId i = 0; i < plan_.n_blocks(); ++i) {
    if (plan_.n_blocks() > kShown && i == kShown - 1) {
      text += fmt::format("  ... {} more\n", plan_.n_blocks() - kShown);
      i = plan_.n_blocks() - 1;
    }
    const TokenRange block = plan_.block(i);
    std::string sees;
    if (plan_.anchor_of(i).n_tokens > 0)
      sees += fmt::format("anchor ({}), ", with_commas(plan_.anchor_of(i).n_tokens));
    if (plan_.first_reached(i) < i)
      sees += fmt::format("blocks {}-{}, ", plan_.first_reached(i), i - 1);
    if (plan_.n_recalled(i) > 0)
      sees += fmt::format("{} of {} earlier tokens, ", with_commas(plan_.n_recalled(i)),
                          with_commas(plan_.recallable(i).n_tokens));
    text += fmt::format("{:>5}   {:<24}  {:>6}   {}itself\n", i,
                        fmt::format("{} .. {}", with_commas(block.first_doc),
                                    with_commas(block.first_doc + block.n_tokens - 1)),
                        plan_.owner(i), sees);
  }
  return text;
}

// Of the setting that docs/recall.md recommends: what it kept there.
std::string PlanSizes::expected_of_recall() const {
  const bool is_recommended =
      plan_.recall() > 0 && plan_.recall() == auto_recall().of(plan_.block_size()) &&
      plan_.anchor_size() == auto_anchor(plan_.block_size(), /*recalls=*/true) &&
      plan_.recall_rows() == auto_recall_rows(plan_.block_size());
  if (!is_recommended || plan_.n_blocks() < 2) return "";
  const char* kept = "this has not been measured with so many blocks";
  if (plan_.n_blocks() <= 16)
    kept =
        "with 16 blocks 44 of 48 scores of a small model\n         could not be told from exact "
        "attention's, and the others lost 5 to 14 points";
  if (plan_.n_blocks() <= 4)
    kept =
        "with 4 blocks none of 48 scores of a small model\n         was more than 3 points below "
        "exact attention's";
  return fmt::format("         recall as auto chooses it: {} (docs/recall.md)\n", kept);
}

std::string PlanSizes::memory() const {
  std::string text;
  if (config_.n_windows() > 0) {
    text = fmt::format(
        "         in {} of {} layers a token sees the last {} tokens alone, of whichever blocks\n",
        config_.n_windows(), config_.n_layers, with_commas(config_.widest_window()));
  }
  text += fmt::format("memory   fullest rank, {}: {}\n", name_of(kv_dtype_),
                      need(KvMemory::device).arithmetic());
  if (request_.on_gpu) {
    text += fmt::format("         with --kv-memory host, or auto where the GPU has less: {}\n",
                        need(KvMemory::host).arithmetic());
    if (plan_.n_ranks() > 1) text += shared_weights();
    text += streamed_weights();
  }
  return text + fmt::format(
                    "         in phase 2 the query rank takes {} beside weights and own KV, and "
                    "each query in work {} a\n         token, of its own and of the longest answer "
                    "it may get\n",
                    human_bytes(answering_), human_bytes(query_token_));
}

// With --shard-weights: each GPU has its part of all matrices and two whole layers, bf16 or FP8.
std::string PlanSizes::shared_weights() const {
  const auto n_ranks = static_cast<std::uint64_t>(plan_.n_ranks());
  const WeightsOfGpu weights = weights_of_gpu(config_);
  MemoryNeed shared = need(KvMemory::device);
  shared.weights = (weights.all + n_ranks - 1) / n_ranks + 2 * weights.a_layer;
  const StepBytes step = step_bytes(config_, plan_, Dtype::bf16, Dtype::bf16);
  return fmt::format(
      "         with weights shared out, where all are on one node and GPUs reach each other: {}; "
      "a step\n         reads {} of weights on each\n",
      shared.arithmetic(), human_bytes(step.weights / n_ranks));
}

// With --weight-memory host: a GPU has two layers at a time.
MemoryNeed PlanSizes::need_with_streamed_weights() const {
  const WeightsOfGpu weights = weights_of_gpu(config_);
  MemoryNeed streamed = need(KvMemory::device);
  streamed.weights = weights.all - weights.of_layers + 2 * weights.a_layer;
  return streamed;
}

std::string PlanSizes::streamed_weights() const {
  const std::string in_host = human_bytes(weights_of_gpu(config_).of_layers);
  return fmt::format(
      "         with --weight-memory host, or auto where the GPU has less: {}, and {} of "
      "weights in host memory, all of which a step fetches over the bus\n",
      need_with_streamed_weights().arithmetic(), in_host);
}

std::string PlanSizes::phase_1() const {
  std::string text =
      fmt::format("phase 1  {:.3g} TFLOP: linear {:.3g}, attention {:.3g}{}\n",
                  flops_.total() * 1e-12, flops_.linear * 1e-12, flops_.attention * 1e-12,
                  plan_.recall() == 0 ? "" : fmt::format(", asking {:.3g}", flops_.asking * 1e-12));
  text += fmt::format("         slowest rank {:.3g} TFLOP, {:.0f} % of an even share\n",
                      slowest_ * 1e-12, 100 * slowest_ * plan_.n_ranks() / flops_.total());
  if (request_.gflops > 0) {
    text += fmt::format("         at least {} at {} GFLOP/s a rank\n",
                        human_seconds(least_phase_1_seconds()), request_.gflops);
  }
  return text;
}

std::string PlanSizes::phase_2() const {
  std::string text = fmt::format(
      "phase 2  a step reads {} of weights on the query rank, {} of keys and values on the "
      "fullest\n",
      human_bytes(step_.weights), human_bytes(step_.kv));
  if (request_.read_rate > 0) {
    text += fmt::format("         at least {:.2f} ms at {} GB/s a rank\n",
                        least_step_seconds() * 1e3, request_.read_rate);
  }
  return text;
}

Json PlanSizes::to_json() const {
  Json json;
  json["tokens"] = plan_.n_context();
  json["ranks"] = plan_.n_ranks();
  json["blocks"] = plan_.n_blocks();
  json["block_size"] = plan_.block_size();
  json["anchor_size"] = plan_.anchor_size();
  json["reach"] = plan_.reach();
  json["recall"] = plan_.recall();
  json["recall_rows"] = plan_.recall_rows();
  json["kv_dtype"] = name_of(kv_dtype_);
  json["memory_bytes"] = starattn::to_json(need(KvMemory::device));
  if (request_.on_gpu) {
    json["memory_bytes_with_host_kv"] = starattn::to_json(need(KvMemory::host));
    json["memory_bytes_with_host_weights"] = starattn::to_json(need_with_streamed_weights());
    json["host_weight_bytes"] = weights_of_gpu(config_).of_layers;
  }
  json["phase_2_memory_bytes"] = answering_;
  json["query_token_bytes"] = query_token_;
  json["phase_1_flop"] = {{"linear", flops_.linear},
                          {"attention", flops_.attention},
                          {"asking", flops_.asking},
                          {"total", flops_.total()},
                          {"slowest_rank", slowest_}};
  if (request_.gflops > 0) json["phase_1_least_seconds"] = least_phase_1_seconds();
  json["step_bytes"] = {{"weights", step_.weights}, {"kv", step_.kv}};
  if (request_.read_rate > 0) json["step_least_seconds"] = least_step_seconds();
  return json;
}

}  // namespace starattn
