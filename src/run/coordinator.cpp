// SPDX-License-Identifier: Apache-2.0
#include "run/coordinator.h"

#include "base/file_purposes.h"
#include "base/log.h"
#include "base/text.h"
#include "checkpoint/digest.h"
#include "io/answer.h"
#include "io/answer_stream.h"
#include "io/answer_writer.h"
#include "io/document.h"
#include "mpi/runtime.h"
#include "run/model_settings.h"
#include "run/progress.h"

namespace starattn {
namespace {

// What makes two runs' answers comparable. Nothing of ranks, threads or devices.
Json settings_of(const Options& options, const LoadedModel& session) {
  const PlanRequest plan = options.plan_request();
  Json json = model_settings(options, session);
  json["attention"] = options.attention;
  json["block_size"] = plan.block_size ? Json(*plan.block_size) : Json("auto");
  json["anchor_size"] = "block size";
  if (plan.anchor_size) {
    json["anchor_size"] = plan.anchor_size->divisor == 0 ? Json(plan.anchor_size->n_tokens)
                                                         : Json(plan.anchor_size->text('b'));
  }
  json["reach"] = options.reach;
  if (options.recall != "0") {  // outputs of runs before there was recall are continued
    json["recall"] = plan.recall.text('b');
    json["recall_rows"] = plan.recall_rows ? plan.recall_rows->text('b') : "auto";
    json["recall_rule"] = kRecallRule;
  }
  json["anchor"] = options.anchor;
  json["max_new_tokens"] = options.max_new_tokens;
  json["stop"] = options.stop;
  json["temperature"] = options.temperature;
  json["top_p"] = options.top_p;
  json["seed"] = options.seed;
  json["logprobs"] = options.logprobs;
  json["output_format"] = options.output_format;
  return json;
}

}  // namespace

Coordinator::Coordinator(const Options& options, const LoadedModel& session, bool has_output)
    : options_(options), reader_(options.input, stop_requested) {
  options.shard_numbers(shard_, n_shards_);
  if (!has_output) return;
  if (options.output == kStandardStream) {
    writer_ = std::make_unique<AnswerStream>();
    log::info("answers go to standard output as they finish; a rerun begins from the start");
  } else {
    writer_ = std::make_unique<AnswerWriter>(
        options.output, settings_of(options, session), options.overwrite,
        options.output_format == "starattn" ? check_output_line : check_published_line);
  }
}

std::optional<Job> Coordinator::next(bool is_asked_to_stop) {
  if (is_asked_to_stop || stop_requested()) end_early(Exit::stopped);
  while (!ended_early_) {
    const std::optional<Line> line = next_line();
    if (!line) break;
    if (line->index % n_shards_ != shard_) continue;
    if (std::optional<Job> job = job_of(*line)) return job;
  }
  return std::nullopt;
}

// Input that cannot be read any further ends the batch; what is at work is finished and saved.
std::optional<Line> Coordinator::next_line() {
  try {
    return reader_.next();
  } catch (const Error& error) {
    if (error.exit() == Exit::stopped) {
      end_early(Exit::stopped);
    } else {
      broken(error);
    }
    return std::nullopt;
  }
}

void Coordinator::take(AnswerLine answer) {
  OpenDocument& document = open_.at(answer.number);
  writer_->put(document.id, document.query_ids.at(static_cast<std::size_t>(answer.query)),
               answer.line);
  ++n_answers_;
  if (--document.n_left == 0) open_.erase(answer.number);
  digest_ += answer.digest;
  if (answer.score) {
    score_ += *answer.score;
    ++n_scores_;
  }
  if (since_said_.seconds() >= Progress::kSecondsBetween) {
    log::info("{} new answer(s) so far", with_commas(n_answers_));
    since_said_ = Stopwatch();
  }
}

void Coordinator::failed(std::int64_t number, const Error& error) {
  const auto document = open_.extract(number);
  report_bad_line(number, document ? document.mapped().id : "", error.what(),
                  /*is_expected=*/true);
}

void Coordinator::stopped(const std::string& saved) {
  saved_ += saved + "; ";
  end_early(Exit::stopped);
}

void Coordinator::broken(const Error& error) {
  log::error("{}", error.what());
  end_early(error.exit());
}

// A failure outranks a signal.
void Coordinator::end_early(Exit exit) {
  if (ended_early_.value_or(Exit::stopped) == Exit::stopped) ended_early_ = exit;
}

Exit Coordinator::finish() {
  // Answers to lines of other shards may be in the output, too.
  if (writer_ && !ended_early_) writer_->finish(/*knows_every_key=*/n_shards_ == 1);
  if (n_scores_ > 0) {
    log::info("score: mean {:.4f} over {} answer(s) with references",
              score_ / static_cast<double>(n_scores_), n_scores_);
  }
  if (writer_) {
    log::info(
        "{} new answer(s), {} already there, {} bad line(s); digest of the new {:016x}; output: {}",
        n_answers_, n_skipped_, n_bad_, digest_,
        options_.output == kStandardStream ? "standard output" : options_.output);
  }
  if (ended_early_ == Exit::stopped) {
    const bool is_kept = writer_ && options_.output != kStandardStream;
    log::warn("stopped early, as asked; {}{}run the same command again to go on", saved_,
              is_kept ? "every answer so far is saved; " : "");
  }
  return ended_early_.value_or(n_bad_ > 0 ? Exit::bad_data : Exit::ok);
}

std::optional<Job> Coordinator::job_of(const Line& line) {
  const std::string where = fmt::format("{}:{}", name_of_input(options_.input), line.number);
  Job job{line.number, {}, {}};
  try {
    job.document = parse_document(line.text, line.number, where);
    if (writer_) refuse_repeated(job.document, where);
  } catch (const Error& error) {
    report_bad_line(line.number, readable_id(line.text, line.number), error.what(),
                    /*is_expected=*/false);
    return std::nullopt;
  }
  const Document& document = job.document;
  std::vector<std::string> query_ids;
  for (std::size_t i = 0; i < document.queries.size(); ++i) {
    query_ids.push_back(document.queries[i].id);
    const bool done = writer_ && writer_->is_answered(document.id, query_ids.back());
    if (done) ++n_skipped_;
    if (!done) job.todo.push_back(static_cast<std::int64_t>(i));
  }
  for (const std::string& query_id : query_ids) {
    if (writer_) writer_->expect(document.id, query_id, line.number);
  }
  if (job.todo.empty()) return std::nullopt;
  if (writer_) open_[line.number] = {document.id, std::move(query_ids), job.todo.size()};
  return job;
}

// Answers are known by document and query: of two lines that share one, the later is refused.
void Coordinator::refuse_repeated(const Document& document, const std::string& where) {
  for (const Query& query : document.queries) {
    const Digest key = digest_of(fmt::format("{}:{}{}", document.id.size(), document.id, query.id));
    const auto [first, is_new] = line_of_.emplace(key, document.line);
    if (is_new) continue;
    fail(Exit::bad_data,
         "{}: document '{}', query '{}' was there before, in line {}: answers could not be told "
         "apart. Give each document an id of its own",
         where, document.id, query.id, first->second);
  }
}

void Coordinator::report_bad_line(std::int64_t line, const std::string& id,
                                  const std::string& error, bool is_expected) {
  log::error("{}", error);
  ++n_bad_;
  if (writer_ && is_expected) writer_->put_error(line, to_error_line(line, id, error));
  if (writer_ && !is_expected) writer_->expect_error(to_error_line(line, id, error));
  if (options_.strict) end_early(Exit::bad_data);
}

}  // namespace starattn
