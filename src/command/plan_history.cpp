// SPDX-License-Identifier: Apache-2.0
#include "command/plan_history.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <tuple>

#include "base/text.h"
#include "io/line_reader.h"
#include "study/measurement.h"
#include "study/median.h"

namespace starattn {
namespace {

constexpr JsonLimits kLimits{.max_bytes = std::size_t{1} << 26, .max_depth = 64};
constexpr std::int64_t kMost = std::int64_t{1} << 40;

struct Context {
  const ModelConfig& config;
  const Machine& machine;
  const Cluster& cluster;

  BlockPlan plan(const PlanRequest& request, std::int64_t n_tokens, int n_ranks) const {
    return BlockPlan::make(request, n_tokens, n_ranks, config.widest_window());
  }
};

std::string name_of(const std::string& setting, std::int64_t n_tokens, std::int64_t n_ranks) {
  return fmt::format("{}, {} tokens, {} rank{}", setting, with_commas(n_tokens), n_ranks,
                     n_ranks == 1 ? "" : "s");
}

PlanRequest request_of(const Measurement& one) {
  PlanRequest request;
  if (one.setting == "ring" || one.setting == "dense") {
    request.attention = one.setting == "ring" ? Attention::ring : Attention::dense;
    if (one.setting == "ring") request.block_size = one.block_size;
    return request;
  }
  request.block_size = one.block_size;
  request.anchor_size = TokenShare{one.anchor_size};
  request.recall = {one.recall};
  if (one.recall > 0) request.recall_rows = TokenShare{one.recall_rows};
  if (one.recall == 0) request.reach = one.reach;
  return request;
}

// A study: the median of each point's repeats.
void add_study(const std::string& path, const Context& context, std::vector<PastRun>& runs) {
  const Study study = read_study(path);
  const JsonObject head(study.head, path);
  const std::string model = head.get_string("model");
  if (model != describe(context.config))
    fail(Exit::bad_data, "--history {}: of another model, {}; planned is {}", path, model,
         describe(context.config));
  const bool is_shared = head.find_string("phase_2").value_or("").starts_with("weights shared out");
  using Key = std::tuple<std::int64_t, std::string, std::string, std::string, std::int64_t>;
  std::map<Key, std::vector<const Measurement*>> points;
  for (const Measurement& one : study.measurements)
    points[{one.n_ranks, one.setting, one.anchor, one.operation,
            one.n_context * 4096 + one.n_queries}]
        .push_back(&one);
  for (const auto& [key, repeats] : points) {
    const Measurement& one = *repeats.front();
    std::vector<double> seconds;
    for (const Measurement* repeat : repeats) seconds.push_back(repeat->seconds);
    const int n_ranks = static_cast<int>(one.n_ranks);
    const int n_shares = is_shared ? n_ranks : 1;
    const BlockPlan plan = context.plan(request_of(one), one.n_context, n_ranks);
    PastRun run{name_of(one.setting, one.n_context, one.n_ranks), one.operation == "step",
                median_of(seconds).value};
    if (run.is_step) {
      constexpr std::int64_t kQueryTokens = 8;  // of each of bench's queries
      run.what += fmt::format(", {} {}", one.n_queries, one.n_queries == 1 ? "query" : "queries");
      const AnswerLayout layout{.n_shares = n_shares};
      run.modelled = simulate_answers(context.config, plan, context.machine, context.cluster,
                                      one.n_queries, kQueryTokens, one.n_new_tokens, layout)
                         .seconds /
                     static_cast<double>(one.n_new_tokens);
    } else {
      const bool is_again = one.anchor == "recompute";
      if (is_again) run.what += ", anchor again";
      const Phase1Options phase1{
          .anchor_mode = is_again ? AnchorMode::recompute : AnchorMode::broadcast,
          .n_shares = n_shares};
      run.modelled =
          simulate_phase1(context.config, plan, context.machine, context.cluster, phase1).seconds;
    }
    runs.push_back(run);
  }
}

// Answers of one document.
struct Answers {
  PlanRequest request;
  std::string setting;
  std::int64_t n_tokens = 0, n_queries = 0, n_query_tokens = 0, n_new_tokens = 0;
  double encode = 0, answer = 0;  // seconds; answer: of the query that was finished last
};

void add_answer(const JsonObject& line, std::map<std::string, Answers>& documents) {
  const auto size = [](const JsonObject& object, const char* key) {
    return object.get_int(key, 0, kMost);
  };
  Answers& all = documents[line.get_string("id")];
  const JsonObject plan = line.get_object("plan");
  const JsonObject seconds = line.get_object("seconds");
  Measurement as_measured;
  as_measured.block_size = size(plan, "block_size");
  as_measured.anchor_size = size(plan, "anchor_size");
  as_measured.reach = size(plan, "reach");
  if (plan.has("recall")) {
    as_measured.recall = size(plan, "recall");
    as_measured.recall_rows = size(plan, "recall_rows");
  }
  all.request = request_of(as_measured);
  all.n_tokens = line.get_int("n_context", 1, kMost);
  all.setting = fmt::format("b={}", as_measured.block_size);
  ++all.n_queries;
  all.n_query_tokens += std::max<std::int64_t>(1, size(line, "n_query"));
  all.n_new_tokens += std::max<std::int64_t>(1, std::ssize(line.get("tokens")));
  all.encode = std::max(all.encode, seconds.get_number("encode"));
  all.answer = std::max(all.answer, seconds.get_number("answer"));
}

void add_documents(const std::map<std::string, Answers>& documents, const Context& context,
                   int n_ranks, std::vector<PastRun>& runs) {
  for (const auto& [id, all] : documents) {
    const BlockPlan plan = context.plan(all.request, all.n_tokens, n_ranks);
    const std::string what =
        fmt::format("'{}', {}", id, name_of(all.setting, all.n_tokens, n_ranks));
    // One whose keys and values came from a checkpoint took no time.
    if (all.encode > 0)
      runs.push_back(
          {what, false, all.encode,
           simulate_phase1(context.config, plan, context.machine, context.cluster).seconds});
    if (all.answer <= 0) continue;
    const SimulatedAnswers modelled =
        simulate_answers(context.config, plan, context.machine, context.cluster, all.n_queries,
                         all.n_query_tokens / all.n_queries, all.n_new_tokens / all.n_queries);
    const auto n_steps = static_cast<double>(modelled.n_steps);
    runs.push_back({what, true, all.answer / n_steps, modelled.seconds / n_steps});
  }
}

// The documents that the first group of a finished run encoded, as if they were equally long.
void add_progress(const JsonObject& file, const PlanRequest& request, const Context& context,
                  std::vector<PastRun>& runs) {
  const auto n_documents = file.get_int("encoded_documents", 0, kMost);
  const auto n_tokens = file.get_int("encoded_tokens", 0, kMost);
  const int n_ranks = static_cast<int>(file.get_int("ranks_per_document", 1, 1 << 20));
  const double seconds = file.get_number("encode_seconds");
  if (file.get_string("state") != "finished" || n_documents == 0 || seconds <= 0)
    fail(Exit::bad_data, "--history {}: tells of no finished run that has encoded documents",
         file.where());
  const BlockPlan plan = context.plan(request, n_tokens / n_documents, n_ranks);
  runs.push_back({fmt::format("{} documents, {}", n_documents,
                              name_of("in the mean", plan.n_context(), n_ranks)),
                  false, seconds / static_cast<double>(n_documents),
                  simulate_phase1(context.config, plan, context.machine, context.cluster).seconds});
}

void add_file(const std::string& path, const PlanRequest& request, int n_ranks,
              const Context& context, std::vector<PastRun>& runs) {
  LineReader reader(path);
  std::map<std::string, Answers> documents;
  while (const auto line = reader.next()) {
    const std::string where = fmt::format("{}:{}", path, line->number);
    if (line->number == 1 && is_study(line->text)) return add_study(path, context, runs);
    const Json json = parse_json(line->text, where, kLimits);
    const JsonObject object(json, where);
    if (object.find_string("schema").value_or("") == "starattn-progress-1")
      return add_progress(object, request, context, runs);
    if (!object.has("error")) add_answer(object, documents);
  }
  if (documents.empty())
    fail(Exit::bad_data,
         "--history {}: expected what bench --json, run --output or "
         "--progress-file writes, and found no answer",
         path);
  add_documents(documents, context, n_ranks, runs);
}

// Of the ratios of one phase.
struct Ratios {
  std::int64_t n = 0;
  double mean = 1, least = 1, most = 1;
};

Ratios ratios_of(const std::vector<PastRun>& runs, bool is_step) {
  Ratios all;
  double sum = 0;
  for (const PastRun& run : runs) {
    if (run.is_step != is_step) continue;
    all.least = all.n == 0 ? run.ratio() : std::min(all.least, run.ratio());
    all.most = all.n == 0 ? run.ratio() : std::max(all.most, run.ratio());
    sum += std::log(run.ratio());
    ++all.n;
  }
  if (all.n > 0) all.mean = std::exp(sum / static_cast<double>(all.n));
  return all;
}

}  // namespace

History History::read(const std::vector<std::string>& files, const ModelConfig& config,
                      const Machine& machine, const Cluster& cluster, const PlanRequest& request,
                      int n_ranks) {
  History history;
  for (const std::string& path : files)
    add_file(path, request, n_ranks, {config, machine, cluster}, history.runs_);
  return history;
}

Experience History::experience() const {
  return {ratios_of(runs_, false).mean, ratios_of(runs_, true).mean};
}

std::string History::to_text() const {
  std::string text =
      fmt::format("{:<60}{:>13}{:>13}{:>8}\n", "history", "measured, s", "modelled, s", "ratio");
  constexpr std::size_t kShown = 40;
  for (const PastRun& run : std::span(runs_).first(std::min(kShown, runs_.size())))
    text += fmt::format("{:<60}{:>13.5g}{:>13.5g}{:>8.3f}\n",
                        (run.is_step ? "a step, " : "phase 1, ") + run.what, run.measured,
                        run.modelled, run.ratio());
  if (runs_.size() > kShown) text += fmt::format("... and {} more\n", runs_.size() - kShown);
  for (const bool is_step : {false, true}) {
    const Ratios all = ratios_of(runs_, is_step);
    const char* phase = is_step ? "phase 2" : "phase 1";
    text += all.n == 0
                ? fmt::format("         {}: nothing was measured; times are as modelled\n", phase)
                : fmt::format(
                      "         {}: took {:.3f} times as long as modelled ({:.3f} to {:.3f}, "
                      "{} measured); times below are scaled by that\n",
                      phase, all.mean, all.least, all.most, all.n);
  }
  return text;
}

Json History::to_json() const {
  Json json = Json::object();
  for (const bool is_step : {false, true}) {
    const Ratios all = ratios_of(runs_, is_step);
    json[is_step ? "phase_2" : "phase_1"] = {
        {"measured", all.n}, {"ratio", all.mean}, {"least", all.least}, {"most", all.most}};
  }
  return json;
}

}  // namespace starattn
