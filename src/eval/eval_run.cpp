// SPDX-License-Identifier: Apache-2.0
#include "eval/eval_run.h"

#include <map>
#include <memory>

#include "base/clock.h"
#include "base/text.h"
#include "benchmark/document_maker.h"
#include "eval/eval_coordinator.h"
#include "eval/setting.h"
#include "run/document_runner.h"
#include "run/main_job.h"

namespace starattn {
namespace {

// One group's samples, each in every setting that is asked for.
class SampleRunner {
 public:
  SampleRunner(const EvalRunOptions& options, const Ranks& ranks, LoadedModel& model,
               EvalQueue& queue, Progress& progress)
      : options_(options),
        ranks_(ranks),
        model_(model),
        queue_(queue),
        progress_(progress),
        runner_(
            options.run, ranks, model, [&queue] { queue.poll(); }, progress,
            /*says_documents=*/false) {
    collectively(ranks.world, [&] {
      if (ranks_.group.is_root()) materials_ = options_.benchmark.read_materials();
    });
  }

  // Collective over the group; the sample is on its first rank.
  void work_on(const EvalSample* given) {
    const EvalSample sample = bcast_packed(ranks_.group, given ? *given : EvalSample{}, 0);
    const TaskInfo& task = *find_task(sample.task);
    Document document;
    std::string question;
    DocumentTask tokens;
    collectively(ranks_.group, [&] {
      if (!given) return;
      const std::string line =
          maker_of(task, sample.length).line(sample.number, RecordFormat::starattn);
      const std::string where =
          fmt::format("{} {}, sample {}", sample.task, sample.length, sample.number);
      document = parse_document(line, 1, where);
      question =
          question_text(parse_json(line, where)["queries"][0], document.queries.front().text);
      tokens = tokenize(document, {0}, "", options_.run, model_);
    });
    share(tokens, ranks_.group);
    for (const std::string& setting : sample.settings) {
      const trace::At at(
          {.document = trace::document(fmt::format("{}, {}", document.id, setting))});
      Trial trial = run(tokens, Setting::parse(setting));
      if (!given) continue;
      trial.id = document.id;
      trial.setting = setting;
      trial.task = sample.task;
      trial.length = sample.length;
      trial.seed = options_.benchmark.seed;
      score(trial, task, document.queries.front(), question);
      queue_.send(std::move(trial));
    }
    progress_.end_document();
  }

 private:
  const DocumentMaker& maker_of(const TaskInfo& task, std::int64_t length) {
    const auto found = makers_.find({task.name, length});
    if (found != makers_.end()) return found->second;
    return makers_
        .emplace(std::pair(task.name, length), DocumentMaker(task, length, options_.benchmark.seed,
                                                             *model_.tokenizer, materials_))
        .first->second;
  }

  Trial run(const DocumentTask& task, const Setting& setting) {
    const auto n_context = static_cast<std::int64_t>(task.context.size());
    BlockPlan plan;
    try {
      plan = runner_.plan(task, setting.plan_request(n_context));
    } catch (const AgreedError& error) {
      throw AgreedError(error.within(
          fmt::format("--setting {}, {} tokens", setting.name(), with_commas(n_context))));
    }
    if (!std::exchange(is_warm_, true)) runner_.encode(task, plan);  // pages, clocks, libraries
    ranks_.group.barrier();
    const Stopwatch clock;
    const DocumentKv kv = runner_.encode(task, plan);
    ranks_.group.barrier();
    Trial trial;
    trial.n_context = n_context;
    trial.encode_seconds = clock.seconds();
    trial.basis = basis_of(plan, model_);
    Answerer answerer =
        model_.answering->answerer(kv, runner_.answer_options(task, task.queries, plan));
    progress_.start_phase_2(task.id, 1);
    const std::vector<QueryResult> results = answerer.answer({{task.queries.front().job}});
    progress_.count_query();
    runner_.refuse_overflow(task.queries, results);
    const QueryResult& result = results.front();
    trial.n_new_tokens = std::ssize(result.tokens);
    trial.answer_seconds = result.seconds;
    trial.answer = runner_.text_of(task.queries.front(), result.tokens);
    return trial;
  }

  const EvalRunOptions& options_;
  const Ranks& ranks_;
  LoadedModel& model_;
  EvalQueue& queue_;
  Progress& progress_;
  DocumentRunner runner_;
  Materials materials_;  // on the group's first rank, as the makers
  std::map<std::pair<std::string_view, std::int64_t>, DocumentMaker> makers_;
  bool is_warm_ = false;
};

}  // namespace

Exit run_eval(const EvalRunOptions& options) {
  return run_main_job(options.run, [&](const Ranks& ranks, LoadedModel& model, Progress& progress) {
    std::unique_ptr<EvalCoordinator> coordinator;
    collectively(ranks.world, [&] {
      if (ranks.is_first())
        coordinator = std::make_unique<EvalCoordinator>(options, model, progress);
    });
    EvalQueue queue(ranks.world, ranks.group, ranks.n_groups, coordinator.get());
    SampleRunner samples(options, ranks, model, queue, progress);
    queue.run([&](const EvalSample* sample) { samples.work_on(sample); });
    Exit result = Exit::ok;
    collectively(ranks.world, [&] {
      if (coordinator) result = coordinator->finish();
    });
    return result;
  });
}

}  // namespace starattn
