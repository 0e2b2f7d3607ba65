// SPDX-License-Identifier: Apache-2.0
// plan: blocks, memory and arithmetic of a document on so many ranks, before any of it is spent.
// Reads config.json only; needs no launcher.
#include <algorithm>
#include <iostream>
#include <optional>

#include "base/json.h"
#include "base/log.h"
#include "base/text.h"
#include "command/commands.h"
#include "command/plan_goal.h"
#include "command/plan_history.h"
#include "command/plan_sizes.h"
#include "command/plan_times.h"
#include "model/config.h"
#include "model/shapes.h"
#include "run/document_task.h"
#include "run/input_check.h"
#include "run/option_checks.h"
#include "run/options.h"

namespace starattn {
namespace {

struct PlanOptions {
  Options common;
  std::string tokens;
  int n_ranks = 1;
  double gflops = 0;
  double read_rate = 0;
  std::string machine;  // its file; none: no times but by the two rates
  int ranks_per_node = 0;
  double network_rate = 50;    // GB/s
  double network_latency = 5;  // us
  bool simulate = false;
  TimesRequest times;  // as far as options are of it alone; the rest by times_request()
  bool json = false;
  std::string deadline;
  Goal goal;
  std::string memory;
  std::vector<std::string> history;
  std::string shape;  // in place of a model
  std::int64_t n_layers = 0;

  bool has_goal() const { return !deadline.empty() || goal.min_score > 0; }
  TimesRequest times_request() const {
    TimesRequest request = times;
    if (ranks_per_node > 0) request.cluster.ranks_per_node = ranks_per_node;
    request.cluster.network = {network_latency * 1e-6, network_rate * 1e9};
    request.layout = {.tree_merge = common.merges_along_tree(),
                      .n_shares = common.shard_weights == "on" ? n_ranks : 0};
    request.phase1 = {common.anchor_mode(),
                      common.kv_memory == "host" ? KvMemory::host : KvMemory::device,
                      std::max(1, request.layout.n_shares)};
    return request;
  }
};

Machine machine_of(const PlanOptions& options) {
  Machine machine = read_machine(options.machine);
  return options.common.kv_dtype == "fp8" ? with_f8_kv(std::move(machine)) : machine;
}

// None without --history.
std::optional<History> history_of(const PlanOptions& options, const ModelConfig& config,
                                  const Machine& machine) {
  if (options.history.empty()) return std::nullopt;
  return History::read(options.history, config, machine, options.times_request().cluster,
                       options.common.plan_request(), options.n_ranks);
}

PlanSizes sizes_of(const PlanOptions& options, const ModelConfig& config, const BlockPlan& plan) {
  return {config,
          plan,
          {.anchor_mode = options.common.anchor_mode(),
           .on_gpu = options.common.device == "cuda",
           .has_f8_kv = options.common.kv_dtype == "fp8",
           .gflops = options.gflops,
           .read_rate = options.read_rate}};
}

Json to_json(const InputCounts& counts) {
  return {{"documents", counts.n_documents},
          {"queries", counts.n_queries},
          {"tokens", counts.n_tokens},
          {"bad", counts.n_bad}};
}

// docs/metrics.md has the keys.
Json to_json(const PlanOptions& options, const ModelConfig& config, const BlockPlan& plan,
             const InputCounts& counts) {
  Json json = {{"schema", "starattn-plan-1"}};
  json.update(sizes_of(options, config, plan).to_json());
  json["attention"] = options.common.attention;
  if (!options.common.input.empty()) json["input"] = to_json(counts);
  if (options.machine.empty()) return json;
  const Machine machine = machine_of(options);
  TimesRequest request = options.times_request();
  if (const auto history = history_of(options, config, machine)) {
    request.experience = history->experience();
    json["history"] = history->to_json();
  }
  json["modelled"] = to_json(times_of(request, config, plan, machine));
  if (options.simulate)
    json["simulated_seconds"] = to_json(study_of(request, config, plan, machine));
  return json;
}

std::string times_text(const PlanOptions& options, const ModelConfig& config,
                       const BlockPlan& plan) {
  const Machine machine = machine_of(options);
  TimesRequest request = options.times_request();
  std::string text;
  if (const auto history = history_of(options, config, machine)) {
    request.experience = history->experience();
    text = history->to_text();
  }
  text +=
      fmt::format("time     by {} ({}), modelled, not measured\n", options.machine, machine.name);
  text += to_text(times_of(request, config, plan, machine), request);
  if (options.simulate) text += to_text(study_of(request, config, plan, machine), request);
  return text;
}

void refuse_too_long(const ModelConfig& config, std::int64_t n_tokens, bool allow_long) {
  if (n_tokens > config.max_positions && !allow_long) {
    fail(Exit::bad_data,
         "--tokens: {} tokens, but the model has {} positions; --allow-long goes beyond",
         with_commas(n_tokens), with_commas(config.max_positions));
  }
  if (n_tokens > config.sliding_window) {
    fail(
        Exit::bad_data,
        "--tokens: {} tokens, but attention of the model slides over {} positions, and it was made "
        "for no more",
        with_commas(n_tokens), with_commas(config.sliding_window));
  }
}

// What is to be done: one document of --tokens, or those of --input, tokenized.
Work work_of(const PlanOptions& options, const ModelConfig& config, InputCounts& counts) {
  Work work;
  work.n_queries = options.times.n_queries.front();
  work.n_query_tokens = options.times.n_query_tokens;
  work.n_new_tokens = options.times.n_new_tokens;
  if (options.common.input.empty()) {
    work.lengths = {parse_tokens(options.tokens, "--tokens")};
    refuse_too_long(config, work.lengths[0], options.common.allow_long);
    return work;
  }
  const TextModel model = open_text_model(options.common.model, options.common, options.common);
  std::int64_t n_query_tokens = 0;
  const auto take = [&](const Document& document) {
    std::vector<std::int64_t> all;
    for (std::size_t i = 0; i < document.queries.size(); ++i)
      all.push_back(static_cast<std::int64_t>(i));
    const DocumentTask task = tokenize(document, all, options.common.input, options.common, model);
    for (const BadQuery& bad : task.bad) log::error("{}", bad.error);
    counts.n_bad += std::ssize(task.bad);
    work.lengths.push_back(std::ssize(task.context));
    counts.n_queries += std::ssize(task.queries);
    for (const QueryTask& query : task.queries) n_query_tokens += std::ssize(query.job.tokens);
  };
  for_each_document(options.common, take, [&](const Error& error) {
    log::error("{}", error.what());
    ++counts.n_bad;
  });
  if (work.lengths.empty()) fail(Exit::bad_data, "{}: no document in it", options.common.input);
  counts.n_documents = std::ssize(work.lengths);
  for (const std::int64_t n : work.lengths) {
    counts.n_tokens += n;
    counts.most_tokens = std::max(counts.most_tokens, n);
  }
  const auto mean = [](std::int64_t sum, std::int64_t n) {
    return n == 0 ? 1 : std::max<std::int64_t>(1, (sum + n / 2) / n);
  };
  work.n_queries = mean(counts.n_queries, counts.n_documents);
  work.n_query_tokens = mean(n_query_tokens, counts.n_queries);
  return work;
}

Exit print_goal(const PlanOptions& options, const ModelConfig& config, const Work& work) {
  if (options.machine.empty())
    fail(Exit::usage, "--deadline and --min-score need --machine, a file that has times");
  const Machine machine = machine_of(options);
  Goal goal = options.goal;
  if (!options.deadline.empty()) goal.deadline = parse_duration(options.deadline, "--deadline");
  if (!options.memory.empty()) goal.memory_bytes = parse_bytes(options.memory, "--memory");
  goal.most_ranks = options.n_ranks;
  if (const auto history = history_of(options, config, machine)) {
    goal.experience = history->experience();
    std::cout << history->to_text();
  }
  const std::vector<Choice> all = choices(config, machine, options.times_request().cluster, goal,
                                          work, bytes_of_weights(config, config.dtype));
  std::cout << fmt::format("times    by {} ({}), modelled, not measured, without loading\n",
                           options.machine, machine.name);
  std::cout << to_table(all);
  if (goal.scores.empty())
    std::cout << "sees: share of the pairs that exact attention sees. It is no score; eval and "
                 "--scores have that\n";
  const Choice* choice = best(all, goal);
  if (!choice) {
    std::cout << "none meets the goal\n";
    return Exit::unfit;
  }
  std::cout << fmt::format("choice   {} on {} rank(s): {}, {:.4g} hours of a rank\n",
                           choice->setting, choice->n_ranks, human_seconds(choice->seconds),
                           choice->rank_hours());
  std::cout << "submit   " << sbatch_line(*choice, options.ranks_per_node) << "\n";
  return Exit::ok;
}

Exit print_plan(PlanOptions options) {
  if (options.common.model.empty() == options.shape.empty())
    fail(Exit::usage, "plan: expected either --model or --shape");
  if (options.common.model.empty() && !options.common.input.empty())
    fail(Exit::usage, "plan: --input needs --model, whose tokenizer counts its tokens");
  if (options.json && options.has_goal()) {
    fail(Exit::usage,
         "--json: only without --deadline and --min-score, which print a table of settings");
  }
  ModelConfig config = options.shape.empty() ? read_model_config(options.common.model)
                                             : model_shape(options.shape, options.n_layers);
  options.common.settle_precision(config.fp8);
  if (options.common.input.empty() == options.tokens.empty())
    fail(Exit::usage, "plan: expected either --tokens or --input");
  if (!options.machine.empty() && options.common.device == "auto")
    options.common.device = read_machine(options.machine).dtype == Dtype::bf16 ? "cuda" : "cpu";
  std::string model = describe(config);
  if (options.common.device == "cuda" && config.fp8.is_widened_on_gpu()) {
    model += "; a GPU widens its FP8 weights while they load";
    config.fp8 = {};
  }
  InputCounts counts;
  const Work work = work_of(options, config, counts);
  const Exit input = counts.n_bad > 0 ? Exit::bad_data : Exit::ok;
  if (!options.common.input.empty() && !options.json)
    std::cout << fmt::format("input    {}: {}\n", options.common.input, counts.text());
  if (options.has_goal()) {
    const Exit goal = print_goal(options, config, work);
    return goal == Exit::ok ? input : goal;
  }
  const BlockPlan plan =
      BlockPlan::make(options.common.plan_request(), *std::ranges::max_element(work.lengths),
                      options.n_ranks, config.widest_window());
  if (options.json) {
    std::cout << to_line(to_json(options, config, plan, counts)) << "\n";
    return input;
  }
  // What may fail comes before what is printed.
  const std::string times = options.machine.empty() ? "" : times_text(options, config, plan);
  std::cout << fmt::format("model    {}\n", model) << sizes_of(options, config, plan).to_text()
            << times;
  return input;
}

}  // namespace

Command add_plan(CLI::App& parser) {
  auto options = std::make_shared<PlanOptions>();
  CLI::App* app = parser.add_subcommand(
      "plan", "Show blocks, memory and arithmetic of a document (no launcher, no GPU)");
  CLI::Option* model =
      app->add_option("--model", options->common.model, "Model folder (Hugging Face layout)");
  CLI::Option* shape =
      app->add_option("--shape", options->shape, "In place of a model its shape, as bench has them")
          ->check(CLI::IsMember(shape_names()))
          ->excludes(model);
  app->add_option("--layers", options->n_layers, "Fewer or more layers than the shape has")
      ->check(CLI::Range(1, 1000))
      ->needs(shape);
  app->add_option("--tokens", options->tokens, "Tokens of the context: 128k, 1m");
  app->add_option("--input", options->common.input,
                  "In place of --tokens: documents and queries, every line of which is checked and "
                  "counted; the plan is of the longest");
  app->add_option("--ranks", options->n_ranks, "Ranks that share the document")
      ->check(CLI::Range(1, 1 << 20))
      ->capture_default_str();
  app->add_option("--gflops", options->gflops, "Rate of one rank, for a time; bench measures it")
      ->check(between(0.001, 1e7));
  app->add_option("--read-rate", options->read_rate,
                  "GB/s that one rank reads, for the time of a step of phase 2; bench measures it")
      ->check(between(0.001, 1e7));
  app->add_option("--machine", options->machine,
                  "Machine file, for times of both phases; bench --calibrate makes one")
      ->check(CLI::ExistingFile);
  app->add_option("--history", options->history,
                  "What finished runs on that machine have written (bench --json, run --output, "
                  "--progress-file): times are scaled by what these took; repeatable")
      ->allow_extra_args(false)
      ->check(CLI::ExistingFile)
      ->needs(app->get_option("--machine"));
  app->add_option("--ranks-per-node", options->ranks_per_node,
                  "Ranks that share a node's memory; by default all do")
      ->check(CLI::Range(1, 1 << 20));
  app->add_flag("--simulate", options->simulate,
                "Also the schedule with a slow rank, the exact ring, and both merges of phase 2")
      ->needs(app->get_option("--machine"));
  app->add_option("--slow", options->times.slow, "How many times as long the slow rank takes")
      ->check(between(1, 1000))
      ->capture_default_str();
  app->add_option("--network-rate", options->network_rate,
                  "GB/s of each rank between nodes, where the machine file has none")
      ->check(between(0.001, 1e6))
      ->capture_default_str();
  app->add_option("--network-latency", options->network_latency, "Microseconds of a message there")
      ->check(between(0, 1e6))
      ->capture_default_str();
  app->add_option("--merge", options->common.merge,
                  "How partials of phase 2 meet: gather, or tree for hundreds of ranks")
      ->check(CLI::IsMember({"gather", "tree"}))
      ->capture_default_str();
  app->add_option("--shard-weights", options->common.shard_weights,
                  "Whether the ranks of a node share the weights in phase 2: on, off; auto is off "
                  "here")
      ->check(CLI::IsMember({"auto", "on", "off"}))
      ->capture_default_str();
  app->add_option("--queries", options->times.n_queries, "Queries that come together: 1,32")
      ->delimiter(',')
      ->check(CLI::Range(1, 4096))
      ->capture_default_str();
  app->add_option("--query-tokens", options->times.n_query_tokens, "Tokens of each")
      ->check(CLI::Range(1, 1 << 20))
      ->capture_default_str();
  app->add_option("--new-tokens", options->times.n_new_tokens, "New tokens of each")
      ->check(CLI::Range(1, 1 << 20))
      ->capture_default_str();
  const char* goal = "Goal";
  app->add_option("--deadline", options->deadline,
                  "Of several settings and of 1 to --ranks ranks those that are done in this time: "
                  "20s, 5m")
      ->group(goal);
  app->add_option("--min-score", options->goal.min_score,
                  "Those that keep this share of the exact score: 0.95")
      ->check(between(0, 10))
      ->group(goal);
  app->add_option("--scores", options->goal.scores, "What eval --output wrote; repeatable")
      ->allow_extra_args(false)
      ->check(CLI::ExistingFile)
      ->group(goal);
  app->add_option("--setting", options->goal.settings,
                  "A setting to choose from, as in eval; repeatable. By default those of --scores, "
                  "or a list")
      ->allow_extra_args(false)
      ->group(goal);
  app->add_option("--memory", options->memory, "What a rank has: 80GB")->group(goal);
  app->add_option(
         "--device", options->common.device,
         "auto, cpu or cuda: decides the compute type; auto is as the machine file, or a CPU")
      ->check(CLI::IsMember({"auto", "cpu", "cuda"}))
      ->capture_default_str();
  app->add_flag("--json", options->json, "Print one line of JSON instead, in bytes and seconds");
  add_precision_options(*app, options->common);
  add_plan_options(*app, options->common);
  add_anchor_options(*app, options->common);
  add_kv_memory_options(*app, options->common);
  add_length_options(*app, options->common);
  add_text_options(*app, options->common);
  app->add_option("--question-marker", options->common.question_marker,
                  "As run has it, where the input is an OpenAI batch file");
  return {app, [options] { return print_plan(*options); }, [] { return false; }};
}

}  // namespace starattn
