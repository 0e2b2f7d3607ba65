// SPDX-License-Identifier: Apache-2.0
#include "run/document_runner.h"

#include <algorithm>

#include "base/error.h"
#include "base/log.h"
#include "base/text.h"
#include "mpi/runtime.h"
#include "run/kv_memory.h"
#include "run/stop_search.h"
#include "star/encode.h"

namespace starattn {
namespace {

DocumentNeeds needs_of(const DocumentOptions& options, const LoadedModel& model,
                       const BlockPlan& plan, KvMemory kv_memory,
                       std::span<const QueryTask> queries) {
  return {model,
          plan,
          options.anchor_mode(),
          kv_memory,
          {options.spreads_queries(), options.merges_along_tree(), model.answering->n_shares()},
          queries};
}

}  // namespace

DocumentRunner::DocumentRunner(const DocumentOptions& options, const Ranks& ranks,
                               LoadedModel& model, std::function<void()> poll, Progress& progress,
                               bool says_documents)
    : options_(options),
      ranks_(ranks),
      model_(model),
      poll_(std::move(poll)),
      store_(options.checkpoint_dir, model, ranks.group),
      progress_(progress),
      says_documents_(says_documents) {}

BlockPlan DocumentRunner::plan(const DocumentTask& task, const PlanRequest& request) const {
  BlockPlan plan;
  collectively(ranks_.group, [&] {
    plan = BlockPlan::make(request, static_cast<std::int64_t>(task.context.size()),
                           ranks_.group.size(), model_.config.widest_window());
    refuse_too_large(options_, model_, plan, task.queries);
  });
  return plan;
}

DocumentKv DocumentRunner::encode(const DocumentTask& task, const BlockPlan& plan,
                                  bool complete_only) {
  const std::int64_t n_own = std::max<std::int64_t>(
      1, static_cast<std::int64_t>(plan.blocks_of(ranks_.group.rank()).size()));
  const std::int64_t chunks_a_block =
      (std::min(plan.block_size(), plan.n_context()) + model_.backend->chunk_rows() - 1) /
      model_.backend->chunk_rows();
  progress_.start_phase_1(task.id, plan.n_context(),
                          n_own * chunks_a_block * model_.config.n_layers);
  EncodeOptions encode;
  encode.anchor_mode = options_.anchor_mode();
  encode.kv_memory = kv_memory_ = kv_memory_for(task, plan);
  if (says_documents_ && ranks_.is_first()) say(task, plan, needs(task.queries, plan, kv_memory_));
  encode.poll = [this] {
    progress_.step();
    poll_();
  };
  return store_.load_or_encode(task.id, plan, task.context, complete_only, std::move(encode));
}

AnswerOptions DocumentRunner::answer_options(const DocumentTask& task,
                                             std::span<const QueryTask> queries,
                                             const BlockPlan& plan) const {
  AnswerOptions answer;
  answer.eos_tokens = model_.eos_tokens;
  answer.n_logprobs = options_.logprobs;
  answer.n_lookup = options_.n_lookup();
  answer.adapts_lookup = options_.adapts_lookup();
  answer.context = task.context;
  answer.spread_queries = options_.spreads_queries();
  answer.tree_merge = options_.merges_along_tree();
  answer.query_kv_bytes =
      needs(queries, plan, kv_memory_)
          .room_for_queries(ranks_.group.rank(), model_.sharers, model_.memory_share);
  answer.poll = [this] {
    progress_.step();
    poll_();
  };
  answer.check = [this] { model_.watch.check(); };
  if (store_.keeps()) answer.stop = stop_requested;
  // Ranks that draw no tokens need no grammars.
  const bool has_queries =
      model_.answering->n_shares() > 0 || answer.spread_queries || ranks_.group.is_root();
  for (const QueryTask& query : queries)
    answer.guides.push_back(has_queries ? guide_of(query) : Guide{});
  std::vector<StopSearch> searches;
  for (const QueryTask& query : queries) searches.push_back(search_of(query));
  answer.stops_by_text = [searches = std::move(searches)](std::size_t i, Token next) mutable {
    return searches[i].found_after(next);
  };
  return answer;
}

void DocumentRunner::refuse_overflow(std::span<const QueryTask> queries,
                                     std::span<const QueryResult> results) const {
  collectively(ranks_.group, [&] {
    for (std::size_t i = 0; i < results.size(); ++i) {
      if (results[i].reason == FinishReason::overflow)
        fail(Exit::bad_data, "query '{}': {}", queries[i].id, results[i].error);
    }
  });
}

std::string DocumentRunner::text_of(const QueryTask& query, std::span<const Token> tokens) const {
  const std::string text = model_.tokenizer->decode({tokens.begin(), tokens.end()}, true);
  return text.substr(0, first_stop(query.stop, text));
}

Thought DocumentRunner::thought_of(const QueryTask& query, std::span<const Token> tokens) const {
  if (!model_.text_options.splits_thinking()) return {std::nullopt, text_of(query, tokens)};
  Thought thought = split_thought(text_with_tags(*model_.tokenizer, tokens), query.opens_thinking);
  thought.answer.resize(std::min(first_stop(query.stop, thought.answer), thought.answer.size()));
  return thought;
}

Guide DocumentRunner::guide_of(const QueryTask& query) const {
  Guide guide{grammar_of(query, model_), {}};
  if (!guide.grammar) return guide;
  guide.state = guide.grammar->start();
  for (const Token token : query.begun) guide.state = guide.grammar->after(guide.state, token);
  return guide;
}

StopSearch DocumentRunner::search_of(const QueryTask& query) const {
  const auto thinking = !model_.text_options.splits_thinking() ? StopSearch::Thinking::none
                        : query.opens_thinking                 ? StopSearch::Thinking::open
                                                               : StopSearch::Thinking::perhaps;
  StopSearch search(*model_.tokenizer, query.stop, thinking);
  for (const Token token : query.begun) search.found_after(token);
  return search;
}

// Memory only where it is a quarter more than has been said: a batch may have thousands of
// documents.
void DocumentRunner::say(const DocumentTask& task, const BlockPlan& plan,
                         const DocumentNeeds& needs) {
  log::event("document",
             {{"document", task.id},
              {"tokens", plan.n_context()},
              {"blocks", plan.n_blocks()},
              {"block_size", plan.block_size()},
              {"anchor_size", plan.anchor_size()},
              {"reach", plan.reach()},
              {"recall", plan.recall()},
              {"queries", task.queries.size()}},
             describe(task, plan, options_));
  const std::uint64_t n_bytes = needs.fullest().total() + needs.fullest().host_kv;
  if (n_bytes <= most_said_ + most_said_ / 4) return;
  most_said_ = n_bytes;
  log::info("memory of the fullest rank: {}", needs.arithmetic());
}

DocumentNeeds DocumentRunner::needs(std::span<const QueryTask> queries, const BlockPlan& plan,
                                    KvMemory kv_memory) const {
  return needs_of(options_, model_, plan, kv_memory, queries);
}

// On the device where this rank's needs fit what is free there, and those of all ranks of the group
// that share it fit their parts.
KvMemory DocumentRunner::kv_memory_for(const DocumentTask& task, const BlockPlan& plan) const {
  std::optional<bool> fits;
  if (!model_.backend->is_host_memory()) {
    const DocumentNeeds need = needs(task.queries, plan, KvMemory::device);
    fits = need.beside_weights(ranks_.group.rank()) <= model_.backend->free_bytes() &&
           need.beside_weights(model_.sharers) <= model_.memory_share * model_.sharers.size();
  }
  return choose_kv_memory(options_.kv_memory, fits, ranks_.group);
}

// What this group's ranks on one node, or one GPU, need together. A node has the weights once, a
// GPU once a rank. Groups beside this one are at documents of their own, which nobody knows here.
void refuse_too_large(const DocumentOptions& options, const LoadedModel& model,
                      const BlockPlan& plan, std::span<const QueryTask> queries) {
  const bool on_host = model.backend->is_host_memory();
  const bool kv_on_device = on_host || options.kv_memory == "device";
  const DocumentNeeds least =
      needs_of(options, model, plan, kv_on_device ? KvMemory::device : KvMemory::host, queries);
  const std::uint64_t n_weights = model.n_copies(model.sharers.size());
  const std::uint64_t together =
      n_weights * model.weight_bytes + least.beside_weights(model.sharers);
  const std::uint64_t pinned =
      least.host_kv(model.sharers) + model.sharers.size() * model.pinned_weight_bytes;
  const std::uint64_t available = on_host ? memory_of_node() : model.backend->memory_bytes();
  if (together <= available && pinned <= memory_of_node()) return;
  const bool is_device_full = together > available;
  fail(Exit::bad_data,
       "the document does not fit: {} rank(s) need {} together, this {} has {}; the fullest needs "
       "{}. Use more ranks on more nodes, a smaller --block-size or --max-new-tokens, or a smaller "
       "document",
       model.sharers.size(), human_bytes(is_device_full ? together : pinned),
       is_device_full && !on_host ? "GPU" : "node",
       human_bytes(is_device_full ? available : memory_of_node()), least.arithmetic());
}

namespace {

// What blocks see beside the anchor and themselves.
std::string describe_sight(const BlockPlan& plan) {
  if (plan.recall() > 0)
    return fmt::format(", recall {} by {} rows", with_commas(plan.recall()),
                       with_commas(plan.recall_rows()));
  return plan.reach() == 0 ? "" : fmt::format(", reach {}", plan.reach());
}

}  // namespace

std::string describe(const DocumentTask& task, const BlockPlan& plan,
                     const MethodOptions& options) {
  const auto n = [](std::int64_t count, const char* one, const char* many) {
    return fmt::format("{} {}", with_commas(count), count == 1 ? one : many);
  };
  const bool is_auto = options.block_size == "auto" && options.attention == "star";
  return fmt::format("document '{}': {}, {} of {}{}, anchor {}{}, {}", task.id,
                     n(plan.n_context(), "token", "tokens"), n(plan.n_blocks(), "block", "blocks"),
                     with_commas(plan.block_size()), is_auto ? " (auto)" : "",
                     with_commas(plan.anchor_size()), describe_sight(plan),
                     n(std::ssize(task.queries), "query", "queries"));
}

}  // namespace starattn
