// SPDX-License-Identifier: Apache-2.0
#include "eval/eval_coordinator.h"

#include <algorithm>
#include <iostream>

#include "base/error.h"
#include "base/file.h"
#include "base/log.h"
#include "base/text.h"
#include "benchmark/document_maker.h"
#include "eval/accuracy_report.h"
#include "eval/setting.h"
#include "io/line_digest.h"
#include "io/line_reader.h"
#include "mpi/runtime.h"
#include "run/model_settings.h"
#include "version.h"

namespace starattn {
namespace {

// The longest length that the model has positions for in every task. Chat markup comes on top of a
// length; the answer, which is part of it, takes no position before it is begun, but must not reach
// a sliding window either.
std::int64_t longest_length(const std::vector<const TaskInfo*>& tasks, const LoadedModel& model,
                            bool allow_long) {
  const auto n_markup = static_cast<std::int64_t>(
      wrap_context(model.chat, *model.tokenizer, "", SpecialTokens::text).size() +
      wrap_query(model.chat, *model.tokenizer, "", SpecialTokens::text).size() -
      model.tokenizer->prefix().size());
  std::int64_t n_answer = INT64_MAX;
  for (const TaskInfo* task : tasks) n_answer = std::min(n_answer, task->max_new_tokens);
  const std::int64_t longest =
      allow_long ? std::int64_t{1} << 24
                 : model.config.max_positions - std::max<std::int64_t>(0, n_markup - n_answer);
  return std::min(longest, model.config.sliding_window - n_markup);
}

EvalRules rules_of(const EvalRunOptions& options, const LoadedModel& model) {
  EvalRules rules;
  rules.tasks = options.benchmark.chosen_tasks();
  rules.lengths = options.benchmark.chosen_lengths();
  if (rules.tasks.empty() || rules.lengths.empty() || options.settings.empty()) {
    fail(Exit::usage,
         "eval compares with --task, --length and --setting: at least one of each is needed. To "
         "score a file of answers, pass --input and --answers");
  }
  for (const std::string& text : options.settings) {
    const std::string name = Setting::parse(text).name();
    if (std::ranges::find(rules.settings, name) != rules.settings.end())
      fail(Exit::usage, "--setting: {} is there twice", name);
    rules.settings.push_back(name);
  }
  if (options.find_limit > 0 && rules.lengths.size() != 1) {
    fail(Exit::usage, "--find-limit doubles the length itself: expected one --length, got {}",
         rules.lengths.size());
  }
  rules.max_length = longest_length(rules.tasks, model, options.run.allow_long);
  for (const std::int64_t length : rules.lengths) {
    if (length > rules.max_length) {
      fail(
          Exit::usage,
          "--length: expected at most {} tokens (the model has {} positions), got {}. Shorten it{}",
          with_commas(rules.max_length), with_commas(model.config.max_positions),
          with_commas(length),
          options.run.allow_long
              ? ""
              : ", or pass --allow-long to go beyond what the model was made for");
    }
  }
  // Of tasks that would come to it only hours later, too.
  const Materials materials = options.benchmark.read_materials();
  for (const TaskInfo* task : rules.tasks)
    for (const std::int64_t length : rules.lengths)
      DocumentMaker::require_length(*task, length, options.benchmark.seed, *model.tokenizer,
                                    materials);
  rules.count = options.count;
  rules.until = options.until;
  rules.find_limit = options.find_limit;
  return rules;
}

// What trials in one file must agree on. Tasks, lengths and settings may be added to.
Json settings_of(const EvalRunOptions& options, const LoadedModel& model) {
  Json json = model_settings(model);
  json["seed"] = options.benchmark.seed;
  json["data"] = options.benchmark.data;
  json["haystack"] = options.benchmark.haystack;
  return json;
}

Comparison read_comparison(const std::string& path) {
  Comparison comparison;
  add_trials(path, comparison);
  return comparison;
}

}  // namespace

void add_trials(const std::string& path, Comparison& comparison) {
  LineReader lines(path);
  while (const auto line = lines.next()) {
    const std::string where = fmt::format("{}:{}", path, line->number);
    refuse_changed(line->text, where);
    comparison.add(parse_trial(line->text, where));
  }
}

EvalCoordinator::EvalCoordinator(const EvalRunOptions& options, const LoadedModel& model,
                                 Progress& progress)
    : options_(options),
      progress_(progress),
      plan_(rules_of(options, model)),
      writer_(options.run.output, settings_of(options, model), options.run.overwrite,
              [this](const Json& line, const std::string& where) {
                Trial trial = trial_of(line, where);
                TrialKey key{trial.id, trial.setting};
                stored_.emplace(std::move(key), std::move(trial));
              }) {
  if (!plan_.depends_on_results()) {
    const std::size_t n_cells =
        options.benchmark.chosen_tasks().size() * options.benchmark.chosen_lengths().size();
    progress.expect(options.count * static_cast<std::int64_t>(n_cells));
  }
  // Faults of files that are needed at the end are said now.
  if (!options.baseline.empty()) read_comparison(options.baseline);
  require_creatable(cells_path());
  if (!options.html.empty()) require_creatable(options.html);
  if (!stored_.empty())
    log::info("{}: {} trial(s) of an earlier run", options_.run.output, stored_.size());
}

std::optional<EvalSample> EvalCoordinator::next(bool is_asked_to_stop) {
  is_stopped_ = is_stopped_ || is_asked_to_stop || stop_requested();
  while (!has_ended() && !waits_for_results()) {
    std::optional<EvalSample> sample = plan_.next(found_);
    if (!sample) {
      say_full_cells(/*is_last_full=*/true);
      break;
    }
    OpenCell& cell = open_cell_of(*sample);
    ++cell.n_samples;
    progress_.begin_document(++n_samples_);
    const std::string id = document_id(*find_task(sample->task), sample->length, sample->number);
    std::erase_if(sample->settings, [&](const std::string& setting) {
      writer_.expect(id, setting);
      auto stored = stored_.extract(TrialKey{id, setting});
      if (stored) found_.add(std::move(stored.mapped()));
      return !stored.empty();
    });
    cell.n_left += std::ssize(sample->settings);
    n_left_ += std::ssize(sample->settings);
    if (!sample->settings.empty()) return sample;
  }
  return std::nullopt;
}

bool EvalCoordinator::waits_for_results() const {
  return !has_ended() && n_left_ > 0 && plan_.depends_on_results();
}

EvalCoordinator::OpenCell& EvalCoordinator::open_cell_of(const EvalSample& sample) {
  if (open_.empty() || open_.back().task != sample.task || open_.back().length != sample.length) {
    say_full_cells(/*is_last_full=*/true);
    open_.push_back({sample.task, sample.length, sample.settings});
  }
  return open_.back();
}

void EvalCoordinator::take(Trial trial) {
  writer_.put(trial.id, trial.setting, to_line(trial));
  for (OpenCell& cell : open_) {
    if (cell.task == trial.task && cell.length == trial.length) --cell.n_left;
  }
  --n_left_;
  ++n_new_;
  progress_.count_answer();
  found_.add(std::move(trial));
  say_full_cells(/*is_last_full=*/false);
}

// A line for each task and length, when the last of its trials is in. is_last_full: no further
// sample of the last one comes.
void EvalCoordinator::say_full_cells(bool is_last_full) {
  while (!open_.empty() && open_.front().n_left == 0 && (is_last_full || open_.size() > 1)) {
    say(open_.front());
    open_.pop_front();
  }
}

void EvalCoordinator::say(const OpenCell& cell) const {
  std::string scores;
  for (const std::string& setting : cell.settings) {
    const Estimate score = found_.cell(cell.task, cell.length, setting).score;
    scores += fmt::format("{}{} {:.1f} %", scores.empty() ? "" : ", ", setting, 100 * score.mean);
  }
  log::info("{}, {} tokens, {} sample(s): {} ({})", cell.task, with_commas(cell.length),
            cell.n_samples, scores, human_seconds(clock_.seconds()));
}

void EvalCoordinator::failed(std::int64_t, const Error& error) {
  broken(error);
}

void EvalCoordinator::stopped(const std::string&) {
  is_stopped_ = true;
}

void EvalCoordinator::broken(const Error& error) {
  if (!error_) error_ = error;
}

// Beside the output itself, as its journal and settings.
std::string EvalCoordinator::cells_path() const {
  return real_path(options_.run.output) + ".cells.jsonl";
}

Exit EvalCoordinator::finish() {
  const std::string& output = options_.run.output;
  log::info("{} new trial(s); output: {}", with_commas(n_new_), output);
  if (error_) throw Error(*error_);
  if (is_stopped_) {
    log::warn(
        "stopped early, as asked; every trial so far is saved; run the same command again to "
        "go on");
    return Exit::stopped;
  }
  writer_.finish(/*knows_every_key=*/false);  // it may hold more samples than these
  const std::vector<Cell> cells = found_.cells();
  std::cout << to_terminal(cells);
  for (const Limit& limit : plan_.limits()) {
    std::cout << fmt::format(
        "{}, {}: {:.0f} % {}{}\n", limit.task, limit.setting, 100 * options_.find_limit,
        limit.holds > 0 ? fmt::format("held up to {} tokens", with_commas(limit.holds))
                        : "held at no length",
        limit.fails > 0 ? fmt::format(", not at {}", with_commas(limit.fails)) : "");
  }
  std::cout.flush();
  write_file_durably(cells_path(), to_json_lines(cells));
  if (!options_.html.empty()) {
    const ReportHead head{options_.run.model, command_line(), "starattn " STARATTN_VERSION};
    write_file_durably(options_.html, to_html(cells, head));
    log::info("report: {}", options_.html);
  }
  return options_.baseline.empty() ? Exit::ok : compare_with_baseline();
}

Exit EvalCoordinator::compare_with_baseline() const {
  std::int64_t n_compared = 0;
  const auto worse = found_.regressions(read_comparison(options_.baseline), n_compared);
  if (n_compared == 0) {
    fail(Exit::bad_data,
         "{}: expected trials of the same tasks, lengths, settings and seed as here, got none",
         options_.baseline);
  }
  for (const std::string& line : worse) log::error("worse than {}: {}", options_.baseline, line);
  if (worse.empty()) log::info("not worse than {} in {} cell(s)", options_.baseline, n_compared);
  return worse.empty() ? Exit::ok : Exit::worse;
}

}  // namespace starattn
