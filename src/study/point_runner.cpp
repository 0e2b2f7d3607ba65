// SPDX-License-Identifier: Apache-2.0
#include "study/point_runner.h"

#include <algorithm>
#include <map>
#include <numeric>

#include "base/clock.h"
#include "checkpoint/digest.h"
#include "run/kv_memory.h"
#include "star/answer.h"
#include "star/cost.h"
#include "trace/range.h"

namespace starattn {
namespace {

std::vector<Token> context_of(std::int64_t n, std::int64_t vocab_size) {
  std::vector<Token> context;
  for (std::int64_t i = 0; i < n; ++i)
    context.push_back(static_cast<Token>((i * 7919 + i / 13) % vocab_size));
  return context;
}

std::vector<Token> query_of(int number) {
  return std::vector<Token>(8, static_cast<Token>(number + 5));
}

// What this rank's ranges say, as the other ranks get it.
Json totals_as_json() {
  Json json = Json::object();
  for (const trace::Total& total : trace::totals())
    json[total.name] = {total.seconds, total.n_bytes};
  return json;
}

}  // namespace

PointRunner::PointRunner(const DocumentOptions& options, bool profiles, const Ranks& ranks,
                         LoadedModel& model, Answering& answering)
    : options_(options),
      profiles_(profiles),
      ranks_(ranks),
      model_(model),
      answering_(answering),
      encoder_(*model.decoder, ranks.group) {}

std::vector<Measurement> PointRunner::run(const StudyPoint& point, std::span<const int> n_queries,
                                          std::int64_t n_new_tokens) {
  const std::vector<Token> context = context_of(point.plan.n_context(), model_.config.vocab_size);
  DocumentKv kv;
  std::vector<Measurement> all = {encode(point, context, kv)};
  all.front().digest = digest_of_logits(kv);
  if (point.anchor == AnchorMode::broadcast)
    for (const int n : n_queries) all.push_back(step(point, kv, n, n_new_tokens));
  collectively(ranks_.group, [&] { model_.watch.check(); });
  return all;
}

// In the device's memory where both phases fit what is free there.
KvMemory PointRunner::kv_memory(const BlockPlan& plan) const {
  const Backend& backend = *model_.backend;
  std::optional<bool> fits;
  if (!backend.is_host_memory()) {
    const MemoryNeed need =
        fullest(memory_needs(model_.config, plan, AnchorMode::recompute, model_.weight_bytes,
                             backend.kv_dtype(), backend.activation_dtype(), backend.chunk_rows()));
    const std::vector<std::uint64_t> answering = answer_workspaces(
        model_.config, plan,
        {options_.spreads_queries(), options_.merges_along_tree(), answering_.n_shares()},
        backend.kv_dtype(), backend.activation_dtype(), backend.chunk_rows());
    const std::uint64_t most =
        std::max(need.total() - need.weights, need.own_kv + *std::ranges::max_element(answering));
    const int n_sharers = sharers_of_device(ranks_.world, ranks_, backend).size();
    fits = most <= backend.free_bytes() / static_cast<std::uint64_t>(n_sharers);
  }
  return choose_kv_memory(options_.kv_memory, fits, ranks_.group);
}

Measurement PointRunner::encode(const StudyPoint& point, std::span<const Token> context,
                                DocumentKv& kv) {
  const KvMemory where = kv_memory(point.plan);
  trace::reset();
  ranks_.world.barrier();
  const Stopwatch clock;
  kv = encoder_.encode(point.plan, context, {.anchor_mode = point.anchor, .kv_memory = where});
  Measurement one = measured(point, clock.seconds());
  one.operation = "phase-1";
  one.flop = phase1_flops(model_.config, point.plan, point.anchor).total();
  one.slowest_flop = slowest_rank_flops(model_.config, point.plan, point.anchor);
  return one;
}

Measurement PointRunner::step(const StudyPoint& point, const DocumentKv& kv, int n_queries,
                              std::int64_t n_new_tokens) {
  std::vector<QueryJob> jobs;
  for (int i = 0; i < n_queries; ++i) jobs.push_back({query_of(i), n_new_tokens, 0});
  Answerer answerer = answering_.answerer(kv, answer_options());
  trace::reset();
  ranks_.world.barrier();
  const Stopwatch clock;
  const std::vector<QueryResult> results = answerer.answer(jobs);
  Measurement one = measured(point, clock.seconds() / static_cast<double>(n_new_tokens));
  one.operation = "step";
  one.n_queries = n_queries;
  one.n_new_tokens = n_new_tokens;
  const Dtype kv_dtype = model_.backend->kv_dtype();
  one.read_bytes = static_cast<std::int64_t>(
                       step_bytes(model_.config, point.plan, Dtype::bf16, kv_dtype).weights) +
                   point.plan.n_context() *
                       static_cast<std::int64_t>(model_.config.kv_bytes_per_token(kv_dtype));
  StreamDigest digest;
  for (const QueryResult& result : results) digest.add(std::as_bytes(std::span(result.tokens)));
  digest.add(digest_of_logits(kv));
  one.digest = digest.value().hex();
  return one;
}

// All bits of what the context makes a query's next token, which every key and value goes into.
std::string PointRunner::digest_of_logits(const DocumentKv& kv) {
  Answerer answerer = answering_.answerer(kv, answer_options());
  const std::vector<float> logits = answerer.logits_of(query_of(0), 1);
  return digest_of(std::as_bytes(std::span(logits))).hex();
}

AnswerOptions PointRunner::answer_options() const {
  AnswerOptions options;
  options.spread_queries = options_.spreads_queries();
  options.tree_merge = options_.merges_along_tree();
  return options;
}

// What the point is, and what the ranks' clocks and ranges have counted since the last reset.
Measurement PointRunner::measured(const StudyPoint& point, double seconds) const {
  Measurement one;
  one.n_ranks = ranks_.group.size();
  one.n_context = point.plan.n_context();
  one.setting = point.setting;
  one.anchor = point.anchor == AnchorMode::recompute ? "recompute" : "broadcast";
  one.block_size = point.plan.block_size();
  one.anchor_size = point.plan.anchor_size();
  one.reach = point.plan.reach();
  one.recall = point.plan.recall();
  one.recall_rows = point.plan.recall_rows();
  for (const double mine : ranks_.world.allgather(seconds))
    one.seconds = std::max(one.seconds, mine);
  const std::uint64_t peak =
      model_.backend->is_host_memory() ? trace::peak_memory_bytes() : model_.backend->peak_bytes();
  for (const std::uint64_t mine : ranks_.world.allgather(peak))
    one.peak_bytes = std::max(one.peak_bytes, static_cast<std::int64_t>(mine));

  const std::vector<std::string> texts = ranks_.world.gather_texts(to_line(totals_as_json()), 0);
  std::vector<double> waits(texts.size());
  std::map<std::string, std::vector<double>> seconds_by_phase;
  for (std::size_t rank = 0; rank < texts.size(); ++rank) {
    const Json totals = parse_json(texts[rank], "totals of a rank");
    for (const auto& [name, total] : totals.items()) {
      std::vector<double>& all = seconds_by_phase[name];
      all.resize(texts.size());
      all[rank] = total[0].get<double>();
      one.moved_bytes += total[1].get<std::int64_t>();
      if (name.starts_with("wait for ")) waits[rank] += all[rank];
    }
  }
  for (const auto& [name, all] : seconds_by_phase) {
    const auto [least, most] = std::ranges::minmax_element(all);
    const double sum = std::accumulate(all.begin(), all.end(), 0.0);
    one.phases[name] = {*least, sum / static_cast<double>(all.size()), *most,
                        static_cast<int>(most - all.begin())};
  }
  if (profiles_) one.profile = gather_profile(ranks_.world, !model_.backend->is_host_memory());
  if (!waits.empty()) {
    one.least_wait = std::ranges::min(waits);
    one.most_wait = std::ranges::max(waits);
  }
  return one;
}

}  // namespace starattn
