// SPDX-License-Identifier: Apache-2.0
#include "run/dry_run.h"

#include <algorithm>

#include "base/log.h"
#include "io/text_source.h"
#include "run/document_runner.h"
#include "run/input_check.h"
#include "star/cost.h"

namespace starattn {
namespace {

void say_first(const Options& options, const Ranks& ranks, const LoadedModel& model,
               const DocumentTask& task, const BlockPlan& plan) {
  log::info("{}", describe(task, plan, options));
  for (Rank rank = 0; rank < ranks.group.size(); ++rank)
    log::info("rank {} of its group: block(s) {}", rank, fmt::join(plan.blocks_of(rank), " "));
  const MemoryNeed need = fullest(memory_needs(
      model.config, plan, options.anchor_mode(), model.weight_bytes, model.backend->kv_dtype(),
      model.backend->activation_dtype(), model.backend->chunk_rows()));
  log::info("memory of the fullest rank: {}", need.arithmetic());
  log::info("phase 1: {:.3g} TFLOP",
            phase1_flops(model.config, plan, options.anchor_mode()).total() * 1e-12);
}

}  // namespace

Exit dry_run(const Options& options, const Ranks& ranks, const LoadedModel& model) {
  // What is wrong with the options is no document's fault.
  const PlanRequest request = options.plan_request();
  InputCounts counts;
  const auto take = [&](const Document& document) {
    std::vector<std::int64_t> all;
    for (std::size_t i = 0; i < document.queries.size(); ++i)
      all.push_back(static_cast<std::int64_t>(i));
    DocumentTask task = tokenize(document, all, options.input, options, model);
    for (const BadQuery& bad : task.bad) log::error("{}", bad.error);
    counts.n_bad += std::ssize(task.bad);
    const auto n_tokens = static_cast<std::int64_t>(task.context.size());
    const BlockPlan plan =
        BlockPlan::make(request, n_tokens, ranks.group.size(), model.config.widest_window());
    if (counts.n_documents == 0) say_first(options, ranks, model, task, plan);
    refuse_too_large(options, model, plan, task.queries);
    ++counts.n_documents;
    counts.n_queries += std::ssize(task.queries);
    counts.n_tokens += n_tokens;
    counts.most_tokens = std::max(counts.most_tokens, n_tokens);
  };
  for_each_document(options, take, [&](const Error& error) {
    log::error("{}", error.what());
    ++counts.n_bad;
  });
  if (counts.n_documents + counts.n_bad == 0)
    fail(Exit::bad_data, "{}: no document in it", name_of_input(options.input));
  log::info("{}: {}", name_of_input(options.input), counts.text());
  return counts.n_bad > 0 ? Exit::bad_data : Exit::ok;
}

}  // namespace starattn
