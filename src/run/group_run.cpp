// SPDX-License-Identifier: Apache-2.0
#include "run/group_run.h"

#include <algorithm>
#include <utility>

#include "base/clock.h"
#include "base/log.h"
#include "io/text_source.h"
#include "run/answer_line.h"
#include "run/token_logprobs.h"
#include "trace/range.h"

namespace starattn {
namespace {

// The document is at fault, not the machine.
bool is_of_document(const Error& error) {
  return error.exit() == Exit::bad_data || error.exit() == Exit::no_input ||
         error.exit() == Exit::usage;
}

}  // namespace

GroupRun::GroupRun(const Options& options, const Ranks& ranks, LoadedModel& model, JobQueue& queue,
                   Work work, Progress& progress)
    : options_(options),
      ranks_(ranks),
      model_(model),
      queue_(queue),
      work_(work),
      progress_(progress),
      runner_(
          options, ranks, model, [&queue] { queue.poll(); }, progress,
          /*says_documents=*/true),
      thinking_limit_(options.thinking_tokens, *model.tokenizer) {}

void GroupRun::work_on(const Job* job) {
  DocumentTask task;
  collectively(ranks_.group, [&] {
    if (job) task = task_of(*job);
  });
  share(task, ranks_.group);
  for (const BadQuery& bad : task.bad) report(job, bad.index, bad.error);
  if (task.queries.empty()) return;
  const trace::At at({.document = trace::document(task.id)});
  try {
    encode_and_answer(task, job);
    progress_.end_document();
  } catch (const AgreedError& error) {
    if (task.is_of_requests && is_of_document(error)) throw;  // whichever it has for a name
    throw AgreedError(error.within(fmt::format("document '{}'", task.id)));
  }
}

// Whatever keeps a document from becoming tokens is its own fault.
DocumentTask GroupRun::task_of(const Job& job) {
  try {
    DocumentTask task = tokenize(job.document, job.todo, options_.input, options_, model_);
    n_dropped_bytes_ += task.n_dropped_bytes;
    return task;
  } catch (const Error& error) {
    if (job.document.is_of_requests()) fail(Exit::bad_data, "{}", error.what());
    fail(Exit::bad_data, "{}:{}: {}", name_of_input(options_.input), job.number, error.what());
  }
}

void GroupRun::encode_and_answer(DocumentTask& task, const Job* job) {
  const BlockPlan plan = this->plan(task, job);
  if (task.queries.empty()) return;
  const Stopwatch clock;
  const DocumentKv kv = runner_.encode(task, plan, /*complete_only=*/work_ == Work::answer);
  const double encode_seconds = clock.seconds();
  if (job) n_context_tokens_ += plan.n_context();
  if (work_ == Work::encode) return;

  n_left_ = 0;
  std::vector<QueryTask> queries = task.queries;
  for (QueryTask& query : queries) thinking_limit_.limit(query);
  const auto make_answer = [&](const QueryTask& query, const QueryResult& result) {
    Thought thought = runner_.thought_of(query, tokens_of(query, result));
    if (options_.thinking != "keep") thought.reasoning.reset();
    return answer_of(query, job->document, plan, result, std::move(thought), encode_seconds);
  };
  while (!queries.empty()) queries = ask(task, queries, plan, kv, job, make_answer);
  if (n_left_ > 0) {
    throw AgreedError(Exit::stopped,
                      fmt::format("every block is saved in {}, {} of {} queries wait",
                                  options_.checkpoint_dir, n_left_, task.queries.size()));
  }
}

// Requests that do not fit into the memory beside the document are left out and reported: each has
// to find the same fate whatever the others ask.
BlockPlan GroupRun::plan(DocumentTask& task, const Job* job) {
  const PlanRequest request = options_.plan_request();
  if (!task.is_of_requests) return runner_.plan(task, request);
  for (bool fits_alone = false;;) {
    try {
      return runner_.plan(task, request);
    } catch (const AgreedError& error) {
      if (!is_of_document(error) || task.queries.empty()) throw;
      if (!std::exchange(fits_alone, true)) {
        const std::vector<QueryTask> queries = std::exchange(task.queries, {});
        runner_.plan(task, request);  // throws where the context is at fault
        task.queries = queries;
      }
      const auto largest = std::ranges::max_element(task.queries, {}, [](const QueryTask& query) {
        return std::ssize(query.job.tokens) + query.job.max_new_tokens;
      });
      report(job, largest->index, error.what());
      task.queries.erase(largest);
    }
  }
}

// One round of phase 2. What has to be asked again with what it has answered so far.
std::vector<QueryTask> GroupRun::ask(const DocumentTask& task,
                                     const std::vector<QueryTask>& queries, const BlockPlan& plan,
                                     const DocumentKv& kv, const Job* job, MakeAnswer make_answer) {
  std::vector<QueryJob> jobs;
  for (const QueryTask& query : queries) jobs.push_back(query.job);
  const auto goes_on = [&](std::size_t i, const QueryResult& result) {
    return queries[i].n_later > 0 && result.reason == FinishReason::length;
  };
  const auto send = [&](const QueryTask& query, const Answer& answer) {
    queue_.send(line_of(*job, query.index, answer, options_.output_format));
  };
  AnswerOptions answer_options = runner_.answer_options(task, queries, plan);
  answer_options.finished = [&](std::size_t i, const QueryResult& result) {
    progress_.count_query();
    const bool is_whole = !queries[i].n_logprobs && !goes_on(i, result);
    if (job && is_whole) send(queries[i], make_answer(queries[i], result));
  };
  progress_.start_phase_2(task.id, std::ssize(jobs));
  Answerer answerer = model_.answering->answerer(kv, answer_options);
  const std::vector<QueryResult> results = answerer.answer(jobs);
  report_overflow(task, queries, results, job);
  if (ranks_.is_first() && options_.n_lookup() > 0 && answerer.tokens_a_step() > 0)
    log::info("document '{}': {:.2f} tokens a step with --lookup", task.id,
              answerer.tokens_a_step());
  n_left_ += answerer.n_left();

  std::vector<QueryTask> again;
  for (std::size_t i = 0; i < queries.size(); ++i) {
    const QueryTask& query = queries[i];
    if (!query.n_logprobs && query.n_later == 0) continue;
    const bool is_again = ranks_.group.bcast_value(goes_on(i, results[i]), 0);
    const std::vector<Token> tokens = shared_tokens(results[i]);
    if (is_again) {
      again.push_back(thinking_limit_.second_round(query, tokens, results[i].seconds));
    } else if (query.n_logprobs && !tokens.empty()) {
      std::vector<TokenLogprobs> logprobs = logprobs_of(answerer, query, tokens);
      if (!job) continue;
      Answer answer = make_answer(query, results[i]);
      answer.token_logprobs = std::move(logprobs);
      send(query, answer);
    }
  }
  return again;
}

// Of the whole answer. tokens: of this round. Collective.
std::vector<TokenLogprobs> GroupRun::logprobs_of(Answerer& answerer, QueryTask query,
                                                 const std::vector<Token>& tokens) const {
  query.job.tokens.resize(query.job.tokens.size() - query.begun.size());
  query.begun.insert(query.begun.end(), tokens.begin(), tokens.end());
  return token_logprobs(answerer, query, query.begun, *model_.tokenizer, ranks_.group.is_root());
}

// On every rank what the first one has; none of a query without an answer. Collective.
std::vector<Token> GroupRun::shared_tokens(const QueryResult& result) const {
  const bool is_answered =
      result.reason == FinishReason::stop || result.reason == FinishReason::length;
  std::vector<Token> tokens(ranks_.group.bcast_value(is_answered ? result.tokens.size() : 0, 0));
  if (ranks_.group.is_root()) std::ranges::copy(result.tokens, tokens.begin());
  ranks_.group.bcast(std::as_writable_bytes(std::span(tokens)), 0);
  return tokens;
}

// Of a document the first overflow is its error; each request has its own.
void GroupRun::report_overflow(const DocumentTask& task, std::span<const QueryTask> queries,
                               std::span<const QueryResult> results, const Job* job) {
  if (!task.is_of_requests) return runner_.refuse_overflow(queries, results);
  for (std::size_t i = 0; i < queries.size(); ++i) {
    if (results[i].reason == FinishReason::overflow)
      report(job, queries[i].index, results[i].error);
  }
}

// A request that has no answer.
void GroupRun::report(const Job* job, std::int64_t query, const std::string& error) {
  if (job) queue_.send({job->number, query, "", 0, std::nullopt, error});
}

}  // namespace starattn
