// SPDX-License-Identifier: Apache-2.0
#include "run/coordinator.h"

#include <filesystem>

#include "base/file_purposes.h"
#include "base/log.h"
#include "base/text.h"
#include "checkpoint/digest.h"
#include "io/answer.h"
#include "io/answer_stream.h"
#include "io/answer_writer.h"
#include "io/completion.h"
#include "io/document.h"
#include "io/request.h"
#include "mpi/runtime.h"
#include "run/model_settings.h"
#include "trace/range.h"

namespace starattn {
namespace {

// What makes two runs' answers comparable. Nothing of ranks, threads or devices.
Json settings_of(const Options& options, const LoadedModel& model, bool is_of_requests) {
  const PlanRequest plan = options.plan_request();
  Json json = model_settings(model);
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
  if (options.thinking != "text") json["thinking"] = options.thinking;
  if (options.thinking_tokens > 0) json["thinking_tokens"] = options.thinking_tokens;
  json["max_new_tokens"] = options.max_new_tokens;
  json["stop"] = options.stop;
  json["temperature"] = options.temperature;
  json["top_p"] = options.top_p;
  json["seed"] = options.seed;
  json["logprobs"] = options.logprobs;
  if (model.form.kind != AnswerForm::Kind::text)
    json["answer_form"] = {name_of(model.form.kind), model.form.texts};
  json["output_format"] = is_of_requests ? "openai-batch" : options.output_format;
  if (!options.question_marker.empty()) json["question_marker"] = options.question_marker;
  return json;
}

std::unique_ptr<AnswerWriter> open_output(const Options& options, const LoadedModel& model,
                                          bool is_of_requests) {
  const Json settings = settings_of(options, model, is_of_requests);
  if (is_of_requests) {
    return std::make_unique<AnswerWriter>(options.output, settings, options.overwrite,
                                          check_completion_line, key_of_completion);
  }
  return std::make_unique<AnswerWriter>(
      options.output, settings, options.overwrite,
      options.output_format == "starattn" ? check_output_line : check_published_line);
}

}  // namespace

Coordinator::Coordinator(const Options& options, const LoadedModel& model, bool has_output,
                         Progress& progress)
    : options_(options), progress_(progress), reader_(options.input, stop_requested) {
  options.shard_numbers(shard_, n_shards_);
  const bool is_of_requests = is_request_file(options.input);
  if (is_of_requests) {
    if (options.output_format != "starattn") {
      fail(Exit::usage,
           "--output-format {}: {} is an OpenAI batch file, whose answers are written as that "
           "format has them; leave the option out",
           options.output_format, options.input);
    }
    requests_ = std::make_unique<RequestIndex>(options.input, options.question_marker);
  }
  if (!requests_) progress_.expect(n_documents_of_shard());
  if (!has_output) return;
  if (options.output == kStandardStream) {
    writer_ = std::make_unique<AnswerStream>();
    log::info("answers go to standard output as they finish; a rerun begins from the start");
  } else {
    writer_ = open_output(options, model, is_of_requests);
  }
}

std::optional<Job> Coordinator::next(bool is_asked_to_stop) {
  if (is_asked_to_stop || stop_requested()) end_early(Exit::stopped);
  if (requests_) return next_requests();
  while (!ended_early_) {
    const std::optional<Line> line = next_line();
    if (!line) break;
    if (!is_of_shard(line->index)) continue;
    if (std::optional<Job> job = job_of(*line)) {
      progress_.begin_document(line->index / n_shards_ + 1);
      return job;
    }
  }
  return std::nullopt;
}

// 0 where counting them would mean to read what cannot be read twice, or very much.
std::int64_t Coordinator::n_documents_of_shard() const {
  constexpr std::uintmax_t kMostBytes = std::uintmax_t{1} << 30;
  std::error_code error;
  if (!std::filesystem::is_regular_file(options_.input, error) ||
      std::filesystem::file_size(options_.input, error) > kMostBytes || error)
    return 0;
  try {
    std::int64_t n = 0;
    LineReader reader(options_.input, stop_requested);
    while (const auto line = reader.next()) n += is_of_shard(line->index);
    return n;
  } catch (const Error&) {  // whoever reads it in earnest will say so
    return 0;
  }
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
  if (!answer.error.empty()) return failed_requests(answer.number, answer.query, answer.error);
  OpenJob& job = open_.at(answer.number);
  const auto open = job.answers.extract(answer.query);
  writer_->put(open.mapped().id, open.mapped().query_id, answer.line);
  ++n_answers_;
  progress_.count_answer();
  if (job.answers.empty()) open_.erase(answer.number);
  digest_ += answer.digest;
  if (answer.score) {
    score_ += *answer.score;
    ++n_scores_;
  }
}

void Coordinator::commit() {
  if (writer_) writer_->commit();
}

void Coordinator::failed(std::int64_t number, const Error& error) {
  if (requests_) return failed_requests(number, std::nullopt, error.what());
  const auto document = open_.extract(number);
  report_bad_line(number, document ? document.mapped().id : "", error.what(),
                  /*is_expected=*/true);
}

// query: one of them, or all that have no line yet.
void Coordinator::failed_requests(std::int64_t number, std::optional<std::int64_t> query,
                                  const std::string& error) {
  const auto found = open_.find(number);
  if (found == open_.end()) {  // `encode` keeps no answers open
    log::error("{}", error);
    if (!writer_) count_bad_line();
    return;
  }
  auto& answers = found->second.answers;
  const auto first = query ? answers.find(*query) : answers.begin();
  STARATTN_CHECK(first != answers.end());
  const auto end = query ? std::next(first) : answers.end();
  const std::int64_t n_requests = std::distance(first, end);
  log::error("request '{}'{}: {}", first->second.id,
             n_requests > 1 ? fmt::format(" and {} with its context", n_requests - 1) : "", error);
  for (auto answer = first; answer != end; ++answer) {
    const OpenAnswer& open = answer->second;
    writer_->put_error(open.line, to_completion_error(open.id, error));
    count_bad_line();
  }
  answers.erase(first, end);
  if (answers.empty()) open_.erase(found);
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
    log::event("answers",
               {{"new", n_answers_}, {"already_there", n_skipped_}, {"bad_lines", n_bad_}},
               fmt::format(
                   "{} new answer(s), {} already there, {} bad line(s); digest of the new {:016x}; "
                   "output: {}",
                   n_answers_, n_skipped_, n_bad_, digest_,
                   options_.output == kStandardStream ? "standard output" : options_.output));
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
    if (writer_) seen_.add(job.document, where);
  } catch (const Error& error) {
    report_bad_line(line.number, readable_id(line.text, line.number), error.what(),
                    /*is_expected=*/false);
    return std::nullopt;
  }
  const Document& document = job.document;
  OpenJob open{document.id, {}};
  for (std::size_t i = 0; i < document.queries.size(); ++i) {
    const std::string& query_id = document.queries[i].id;
    const bool done = writer_ && writer_->is_answered(document.id, query_id);
    if (done) ++n_skipped_;
    if (done) continue;
    const auto index = static_cast<std::int64_t>(i);
    job.todo.push_back(index);
    open.answers[index] = {document.id, query_id, line.number};
  }
  for (const Query& query : document.queries)
    if (writer_) writer_->expect(document.id, query.id, line.number);
  if (job.todo.empty()) return std::nullopt;
  if (writer_) open_[job.number] = std::move(open);
  return job;
}

// Once, before the first job. All that is expected of the output is said here, in input order.
void Coordinator::index_requests() {
  const trace::Range range("index", trace::Lane::files);
  while (const std::optional<Line> line = next_line()) {
    index_request(*line);
    if (stop_requested()) end_early(Exit::stopped);
    if (ended_early_) return;
  }
  is_indexed_ = true;
  progress_.expect(requests_->n_contexts());
  log::info("{} request(s) to answer over {} context(s)", with_commas(requests_->n_requests()),
            with_commas(requests_->n_contexts()));
}

void Coordinator::index_request(const Line& line) {
  const std::string where = fmt::format("{}:{}", options_.input, line.number);
  try {
    const Document request = parse_request(line.text, line.number, where, options_.question_marker);
    const std::int64_t context = requests_->context_of(request);
    if (!is_of_shard(context)) return;
    if (writer_) seen_.add(request, where);
    const bool done = writer_ && writer_->is_answered(request.id, request.id);
    if (writer_) writer_->expect(request.id, request.id, line.number);
    if (done) ++n_skipped_;
    if (!done) requests_->add(context, line);
  } catch (const Error& error) {
    if (error.exit() != Exit::bad_data) throw;  // the output's disk is at fault, not the line
    if (!is_of_shard(line.index)) return;
    report_bad_line(line.number, readable_custom_id(line.text), error.what(),
                    /*is_expected=*/false);
  }
}

std::optional<Job> Coordinator::next_requests() {
  if (!is_indexed_ && !ended_early_) index_requests();
  if (ended_early_) return std::nullopt;
  std::optional<Document> document;
  try {
    document = requests_->next();
  } catch (const Error& error) {
    broken(error);
  }
  if (!document) return std::nullopt;
  Job job{n_jobs_++, {}, std::move(*document)};
  progress_.begin_document(n_jobs_);
  OpenJob open{job.document.id, {}};
  for (const Query& query : job.document.queries) {
    const std::int64_t index = std::ssize(job.todo);
    job.todo.push_back(index);
    open.answers[index] = {query.id, query.id, query.request.line};
  }
  if (writer_) open_[job.number] = std::move(open);
  return job;
}

std::string Coordinator::error_line(std::int64_t line, const std::string& id,
                                    const std::string& error) const {
  return requests_ ? to_completion_error(id, error) : to_error_line(line, id, error);
}

void Coordinator::report_bad_line(std::int64_t line, const std::string& id,
                                  const std::string& error, bool is_expected) {
  log::error("{}", error);
  if (writer_ && is_expected) writer_->put_error(line, error_line(line, id, error));
  if (writer_ && !is_expected) writer_->expect_error(error_line(line, id, error));
  count_bad_line();
}

void Coordinator::count_bad_line() {
  ++n_bad_;
  progress_.count_bad_line();
  if (options_.strict) end_early(Exit::bad_data);
}

}  // namespace starattn
