// SPDX-License-Identifier: Apache-2.0
#include "eval/eval_run.h"

#include <map>
#include <memory>

#include "base/clock.h"
#include "base/text.h"
#include "benchmark/document_maker.h"
#include "eval/eval_coordinator.h"
#include "eval/setting.h"
#include "mpi/runtime.h"
#include "run/document_runner.h"
#include "run/loaded_model.h"
#include "run/watchdog.h"

namespace starattn {
namespace {

// One group's samples of a round, each in every setting that is asked for.
class SampleRunner {
 public:
  SampleRunner(const EvalRunOptions& options, const Ranks& ranks, LoadedModel& session)
      : options_(options),
        ranks_(ranks),
        session_(session),
        runner_(
            options.run, ranks, session, [] {}, DocumentRunner::Verbosity::quiet) {
    collectively(ranks.world, [&] {
      if (ranks_.group.is_root()) materials_ = options_.benchmark.read_materials();
    });
  }

  // Collective over the group. Trials on its first rank, nothing elsewhere.
  std::vector<Trial> work(const TaskInfo& task, std::int64_t length, const SampleRequest& sample) {
    Document document;
    std::string question;
    DocumentTask tokens;
    collectively(ranks_.group, [&] {
      if (!ranks_.group.is_root()) return;
      const std::string line = maker_of(task, length).line(sample.index, RecordFormat::starattn);
      const std::string where = fmt::format("{} {}, sample {}", task.name, length, sample.index);
      document = parse_document(line, 1, where);
      question =
          question_text(parse_json(line, where)["queries"][0], document.queries.front().text);
      tokens = tokenize(document, {0}, "", options_.run, session_);
    });
    share(tokens, ranks_.group);
    std::vector<Trial> trials;
    for (const std::string& setting : sample.settings) {
      Trial trial = run(tokens, Setting::parse(setting));
      if (!ranks_.group.is_root()) continue;
      trial.id = document.id;
      trial.setting = setting;
      trial.task = task.name;
      trial.length = length;
      trial.seed = options_.benchmark.seed;
      score(trial, task, document.queries.front(), question);
      trials.push_back(std::move(trial));
    }
    return trials;
  }

 private:
  const DocumentMaker& maker_of(const TaskInfo& task, std::int64_t length) {
    const auto found = makers_.find({task.name, length});
    if (found != makers_.end()) return found->second;
    return makers_
        .emplace(std::pair(task.name, length), DocumentMaker(task, length, options_.benchmark.seed,
                                                             *session_.tokenizer, materials_))
        .first->second;
  }

  Trial run(const DocumentTask& task, const Setting& setting) {
    const auto n_context = static_cast<std::int64_t>(task.context.size());
    BlockPlan plan;
    try {
      plan = runner_.plan(task, setting.plan_request(n_context));
    } catch (const AgreedError& error) {
      throw AgreedError(error.exit(), fmt::format("--setting {}, {} tokens: {}", setting.name(),
                                                  with_commas(n_context), error.what()));
    }
    if (!std::exchange(is_warm_, true)) runner_.encode(task, plan);  // pages, clocks, libraries
    ranks_.group.barrier();
    const Stopwatch clock;
    const DocumentKv kv = runner_.encode(task, plan);
    ranks_.group.barrier();
    Trial trial;
    trial.n_context = n_context;
    trial.encode_seconds = clock.seconds();
    trial.basis = basis_of(plan, session_);
    Answerer answerer = session_.answering->answerer(kv, runner_.answer_options(task, plan));
    const std::vector<QueryResult> results = answerer.answer({{task.queries.front().job}});
    runner_.refuse_overflow(task, results);
    const QueryResult& result = results.front();
    trial.n_new_tokens = std::ssize(result.tokens);
    trial.answer_seconds = result.seconds;
    trial.answer = runner_.text_of(task.queries.front(), result.tokens);
    return trial;
  }

  const EvalRunOptions& options_;
  const Ranks& ranks_;
  LoadedModel& session_;
  DocumentRunner runner_;
  Materials materials_;  // on the group's first rank, as the makers
  std::map<std::pair<std::string_view, std::int64_t>, DocumentMaker> makers_;
  bool is_warm_ = false;
};

// What this rank brings back from a round. Errors that its group agreed on are rank 0's to throw.
std::string report_of(const Ranks& ranks, SampleRunner& samples, const Announcement& round) {
  RoundReport report;
  try {
    for (std::size_t i = 0; i < round.samples.size(); ++i) {
      if (static_cast<int>(i) % ranks.n_groups != ranks.group_index) continue;
      for (const Trial& trial :
           samples.work(*find_task(round.task), round.length, round.samples[i]))
        report.trials.push_back(to_line(trial));
    }
  } catch (const AgreedError& error) {
    report.error = error.what();
    report.exit = error.exit();
  }
  report.is_asked_to_stop = stop_requested();
  return to_text(report);
}

}  // namespace

Exit run_survey(const EvalRunOptions& options) {
  const Ranks ranks = arrange_ranks(options.run);
  const Watchdog watchdog(options.run.timeout, ranks.world.rank());
  const std::unique_ptr<LoadedModel> session = open_session(options.run, ranks);
  print_banner(options.run, ranks, *session);

  std::unique_ptr<EvalCoordinator> coordinator;
  collectively(ranks.world, [&] {
    if (ranks.is_first())
      coordinator = std::make_unique<EvalCoordinator>(options, *session, ranks.n_groups);
  });
  SampleRunner samples(options, ranks, *session);
  for (;;) {
    const std::string text =
        ranks.world.bcast_text(coordinator ? coordinator->next_round() : "", 0);
    if (text.empty()) break;
    const auto reports =
        ranks.world.gather_texts(report_of(ranks, samples, parse_announcement(text)), 0);
    collectively(ranks.world, [&] {
      if (coordinator) coordinator->take(reports);
    });
  }
  Exit result = Exit::ok;
  collectively(ranks.world, [&] {
    if (coordinator) result = coordinator->finish();
  });
  return static_cast<Exit>(ranks.world.bcast_value(static_cast<int>(result), 0));
}

}  // namespace starattn
