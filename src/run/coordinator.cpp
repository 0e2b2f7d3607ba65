// SPDX-License-Identifier: Apache-2.0
#include "run/coordinator.h"

#include "base/file.h"
#include "base/log.h"
#include "base/text.h"
#include "checkpoint/digest.h"
#include "io/answer.h"
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
    : options_(options), reader_(options.input) {
  options.shard_numbers(shard_, n_shards_);
  if (has_output) {
    if (is_same_file(options.input, options.output)) {
      fail(Exit::usage, "--output: {} is the input; answers would destroy it", options.output);
    }
    writer_ = std::make_unique<AnswerWriter>(options.output, settings_of(options, session),
                                             options.overwrite);
  }
}

std::optional<Job> Coordinator::next(bool is_asked_to_stop) {
  if (is_asked_to_stop || stop_requested()) end_early(Exit::stopped);
  while (!ended_early_) {
    const std::optional<Line> line = reader_.next();
    if (!line) break;
    if (line->index % n_shards_ != shard_) continue;
    if (std::optional<Job> job = job_of(*line)) return job;
  }
  return std::nullopt;
}

void Coordinator::answered(std::int64_t seq, std::int64_t query, const std::string& line) {
  OpenDocument& document = open_.at(seq);
  writer_->put(document.id, document.query_ids.at(static_cast<std::size_t>(query)), line);
  ++n_answers_;
  if (--document.n_left == 0) open_.erase(seq);
  if (since_said_.seconds() >= Progress::kSecondsBetween) {
    log::info("{} new answer(s) so far", with_commas(n_answers_));
    since_said_ = Stopwatch();
  }
  const Json json = parse_json(line, "answer");
  const bool is_ours = options_.output_format == "starattn";
  digest_ +=
      digest_of(to_line({json["id"], json["query_id"], json[is_ours ? "answer" : "pred"]})).low;
  if (is_ours && json.contains("score")) {
    score_ += json["score"].get<double>();
    ++n_scores_;
  }
}

void Coordinator::failed(std::int64_t seq, const std::string& error) {
  const auto document = open_.extract(seq);
  report_bad_line(seq, document ? document.mapped().id : "", error, /*is_expected=*/true);
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
  if (writer_ && !ended_early_) writer_->finish();
  if (n_scores_ > 0) {
    log::info("score: mean {:.4f} over {} answer(s) with references",
              score_ / static_cast<double>(n_scores_), n_scores_);
  }
  if (writer_) {
    log::info(
        "{} new answer(s), {} already there, {} bad line(s); digest of the new {:016x}; output: {}",
        n_answers_, n_skipped_, n_bad_, digest_, options_.output);
  }
  if (ended_early_ == Exit::stopped) {
    log::warn("stopped early, as asked; {}{}run the same command again to go on", saved_,
              writer_ ? "every answer so far is saved; " : "");
  }
  return ended_early_.value_or(n_bad_ > 0 ? Exit::bad_data : Exit::ok);
}

std::optional<Job> Coordinator::job_of(const Line& line) {
  const std::string where = fmt::format("{}:{}", options_.input, line.number);
  Document document;
  try {
    document = parse_document(line.text, line.number, where);
    for (const Query& query : document.queries) {
      if (writer_ && writer_->is_repeated(document.id, query.id)) {
        fail(Exit::bad_data,
             "{}: document '{}', query '{}' was there before: answers could not be told apart",
             where, document.id, query.id);
      }
    }
  } catch (const Error& error) {
    report_bad_line(line.number, readable_id(line.text, line.number), error.what(),
                    /*is_expected=*/false);
    return std::nullopt;
  }
  Job job{line.number, line.number, line.text, {}};
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

void Coordinator::report_bad_line(std::int64_t line, const std::string& id,
                                  const std::string& error, bool is_expected) {
  log::error("{}", error);
  ++n_bad_;
  if (writer_ && is_expected) writer_->put_error(line, to_error_line(line, id, error));
  if (writer_ && !is_expected) writer_->expect_error(to_error_line(line, id, error));
  if (options_.strict) end_early(Exit::bad_data);
}

}  // namespace starattn
