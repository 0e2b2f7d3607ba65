// SPDX-License-Identifier: Apache-2.0
#include "run/batch.h"

#include <algorithm>
#include <ctime>
#include <memory>
#include <numeric>
#include <utility>

#include "base/clock.h"
#include "base/function_ref.h"
#include "base/log.h"
#include "base/text.h"
#include "checkpoint/digest.h"
#include "io/answer.h"
#include "io/completion.h"
#include "io/document.h"
#include "mpi/runtime.h"
#include "run/coordinator.h"
#include "run/document_runner.h"
#include "run/dry_run.h"
#include "run/loaded_model.h"
#include "run/progress.h"
#include "run/recording.h"
#include "run/thinking.h"
#include "run/token_logprobs.h"
#include "run/watchdog.h"
#include "trace/range.h"

namespace starattn {
namespace {

// One document at a time, on one group of ranks.
class GroupRun {
 public:
  GroupRun(const Options& options, const Ranks& ranks, LoadedModel& model, JobQueue& queue,
           Work work, Progress& progress)
      : options_(options),
        ranks_(ranks),
        model_(model),
        queue_(queue),
        work_(work),
        progress_(progress),
        runner_(
            options, ranks, model, [&queue] { queue.poll(); }, progress,
            /*says_documents=*/true) {}

  // Tokens of the contexts this group has encoded or loaded; on its first rank.
  std::int64_t n_context_tokens() const { return n_context_tokens_; }
  // Bytes of its texts that the vocabulary has no token for; on its first rank.
  std::int64_t n_dropped_bytes() const { return n_dropped_bytes_; }

  // Collective over the group; the job is on its first rank.
  void work_on(const Job* job) {
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

 private:
  // The document is at fault, not the machine.
  static bool is_of_document(const Error& error) {
    return error.exit() == Exit::bad_data || error.exit() == Exit::no_input ||
           error.exit() == Exit::usage;
  }

  // Whatever keeps a document from becoming tokens is its own fault.
  DocumentTask task_of(const Job& job) {
    try {
      DocumentTask task = tokenize(job.document, job.todo, options_.input, options_, model_);
      n_dropped_bytes_ += task.n_dropped_bytes;
      return task;
    } catch (const Error& error) {
      if (job.document.is_of_requests()) fail(Exit::bad_data, "{}", error.what());
      fail(Exit::bad_data, "{}:{}: {}", name_of_input(options_.input), job.number, error.what());
    }
  }

  // A request that has no answer.
  void report(const Job* job, std::int64_t query, const std::string& error) {
    if (job) queue_.send({job->number, query, "", 0, std::nullopt, error});
  }

  // Requests that do not fit into the memory beside the document are left out and reported: each
  // has to find the same fate whatever the others ask.
  BlockPlan plan(DocumentTask& task, const Job* job) {
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

  void encode_and_answer(DocumentTask& task, const Job* job) {
    const BlockPlan plan = this->plan(task, job);
    if (task.queries.empty()) return;
    const Stopwatch clock;
    const DocumentKv kv = runner_.encode(task, plan, /*complete_only=*/work_ == Work::answer);
    const double encode_seconds = clock.seconds();
    if (job) n_context_tokens_ += plan.n_context();
    if (work_ == Work::encode) return;

    n_left_ = 0;
    std::vector<QueryTask> queries = task.queries;
    for (QueryTask& query : queries) limit_thinking(query);
    const auto make_answer = [&](const QueryTask& query, const QueryResult& result) {
      return answer_of(query, job->document, plan, result, encode_seconds);
    };
    while (!queries.empty()) queries = ask(task, queries, plan, kv, job, make_answer);
    if (n_left_ > 0) {
      throw AgreedError(Exit::stopped,
                        fmt::format("every block is saved in {}, {} of {} queries wait",
                                    options_.checkpoint_dir, n_left_, task.queries.size()));
    }
  }

  using MakeAnswer = FunctionRef<Answer(const QueryTask& query, const QueryResult& result)>;

  // One round of phase 2. What has to be asked again with what it has answered so far.
  std::vector<QueryTask> ask(const DocumentTask& task, const std::vector<QueryTask>& queries,
                             const BlockPlan& plan, const DocumentKv& kv, const Job* job,
                             MakeAnswer make_answer) {
    std::vector<QueryJob> jobs;
    for (const QueryTask& query : queries) jobs.push_back(query.job);
    const auto goes_on = [&](std::size_t i, const QueryResult& result) {
      return queries[i].n_later > 0 && result.reason == FinishReason::length;
    };
    AnswerOptions answer_options = runner_.answer_options(task, queries, plan);
    answer_options.finished = [&](std::size_t i, const QueryResult& result) {
      progress_.count_query();
      const bool is_whole = !queries[i].n_logprobs && !goes_on(i, result);
      if (job && is_whole) send(*job, queries[i].index, make_answer(queries[i], result));
    };
    progress_.start_phase_2(task.id, std::ssize(jobs));
    Answerer answerer = model_.answering->answerer(kv, answer_options);
    const std::vector<QueryResult> results = answerer.answer(jobs);
    report_overflow(task, queries, results, job);
    if (ranks_.is_first() && options_.lookup > 0 && answerer.tokens_a_step() > 0)
      log::info("document '{}': {:.2f} tokens a step with --lookup", task.id,
                answerer.tokens_a_step());
    n_left_ += answerer.n_left();

    std::vector<QueryTask> again;
    for (std::size_t i = 0; i < queries.size(); ++i) {
      const QueryTask& query = queries[i];
      if (!query.n_logprobs && query.n_later == 0) continue;
      const bool is_again = ranks_.group.bcast_value(goes_on(i, results[i]), 0);
      const std::vector<Token> tokens = tokens_of_answer(results[i]);
      if (is_again) {
        again.push_back(continued(query, tokens, results[i].seconds));
      } else if (query.n_logprobs && !tokens.empty()) {
        std::vector<TokenLogprobs> logprobs = logprobs_of(answerer, query, tokens);
        if (!job) continue;
        Answer answer = make_answer(query, results[i]);
        answer.token_logprobs = std::move(logprobs);
        send(*job, query.index, answer);
      }
    }
    return again;
  }

  // --thinking-tokens: a first round of that many, and what it leaves for a second one, where the
  // end of the thinking finds room.
  void limit_thinking(QueryTask& query) const {
    if (options_.thinking_tokens == 0) return;
    const std::int64_t n_all = query.job.max_new_tokens;
    const std::int64_t n_first =
        std::min(options_.thinking_tokens, n_all - std::ssize(end_of_thinking()) - 1);
    if (n_first < 1) return;
    query.job.max_new_tokens = n_first;
    query.n_later = n_all - n_first;
  }

  // The second round. Thinking that is not over is ended by the tokens that end it.
  QueryTask continued(QueryTask query, const std::vector<Token>& tokens, double seconds) const {
    query.begun = tokens;
    if (split_thought(text_with_tags(*model_.tokenizer, tokens), query.opens_thinking).is_open) {
      const std::vector<Token> end = end_of_thinking();
      query.begun.insert(query.begun.end(), end.begin(), end.end());
    }
    query.begun_seconds = seconds;
    query.job.max_new_tokens = query.job.max_new_tokens + query.n_later - std::ssize(query.begun);
    query.job.tokens.insert(query.job.tokens.end(), query.begun.begin(), query.begun.end());
    query.job.sampling_key = sampling_key(query.job.sampling_key, "", "second round");
    query.n_later = 0;
    return query;
  }

  // As the models themselves write it.
  std::vector<Token> end_of_thinking() const {
    return model_.tokenizer->encode(fmt::format("\n{}\n\n", kThinkEnd), SpecialTokens::parse);
  }

  // Of the whole answer. tokens: of this round. Collective.
  std::vector<TokenLogprobs> logprobs_of(Answerer& answerer, QueryTask query,
                                         const std::vector<Token>& tokens) const {
    query.job.tokens.resize(query.job.tokens.size() - query.begun.size());
    query.begun.insert(query.begun.end(), tokens.begin(), tokens.end());
    return token_logprobs(answerer, query, query.begun, *model_.tokenizer, ranks_.group.is_root());
  }

  // On every rank what the first one has; none of a query without an answer. Collective.
  std::vector<Token> tokens_of_answer(const QueryResult& result) const {
    const bool is_answered =
        result.reason == FinishReason::stop || result.reason == FinishReason::length;
    std::vector<Token> tokens(ranks_.group.bcast_value(is_answered ? result.tokens.size() : 0, 0));
    if (ranks_.group.is_root()) std::ranges::copy(result.tokens, tokens.begin());
    ranks_.group.bcast(std::as_writable_bytes(std::span(tokens)), 0);
    return tokens;
  }

  // Of a document the first overflow is its error; each request has its own.
  void report_overflow(const DocumentTask& task, std::span<const QueryTask> queries,
                       std::span<const QueryResult> results, const Job* job) {
    if (!task.is_of_requests) return runner_.refuse_overflow(queries, results);
    for (std::size_t i = 0; i < queries.size(); ++i) {
      if (results[i].reason == FinishReason::overflow)
        report(job, queries[i].index, results[i].error);
    }
  }

  Answer answer_of(const QueryTask& query, const Document& document, const BlockPlan& plan,
                   const QueryResult& result, double encode_seconds) const {
    const Query& asked = document.queries[static_cast<std::size_t>(query.index)];
    Answer answer;
    answer.id = document.is_of_requests() ? asked.id : document.id;
    answer.query_id = asked.id;
    answer.tokens = query.begun;
    answer.tokens.insert(answer.tokens.end(), result.tokens.begin(), result.tokens.end());
    Thought thought = runner_.thought_of(query, answer.tokens);
    answer.text = std::move(thought.answer);
    if (options_.thinking == "keep") answer.reasoning = std::move(thought.reasoning);
    answer.finish_reason = result.reason == FinishReason::stop ? "stop" : "length";
    answer.n_context = plan.n_context();
    answer.n_query = std::ssize(query.job.tokens) - std::ssize(query.begun);
    answer.block_size = plan.block_size();
    answer.anchor_size = plan.anchor_size();
    answer.reach = plan.reach();
    answer.recall = plan.recall();
    answer.recall_rows = plan.recall_rows();
    answer.n_blocks = plan.n_blocks();
    answer.encode_seconds = encode_seconds;
    answer.answer_seconds = query.begun_seconds + result.seconds;
    if (!answer.tokens.empty())
      answer.ms_per_token = 1e3 * answer.answer_seconds / static_cast<double>(answer.tokens.size());
    answer.logprobs.assign(result.logprobs.begin(), result.logprobs.end());
    if (!asked.answers.empty()) answer.score = share_contained(answer.text, asked.answers);
    return answer;
  }

  void send(const Job& job, std::int64_t query, const Answer& answer) {
    const bool published = options_.output_format == "star-attention";
    queue_.send({job.number, query, line_of(job.document, query, answer),
                 digest_of(to_line({answer.id, answer.query_id, answer.text})).low,
                 published ? std::nullopt : answer.score, ""});
  }

  std::string line_of(const Document& document, std::int64_t query, const Answer& answer) const {
    if (document.is_of_requests()) {
      return to_completion_line(answer, document.kind,
                                document.queries[static_cast<std::size_t>(query)].request,
                                std::time(nullptr));
    }
    return options_.output_format == "star-attention" ? to_published_line(answer, document)
                                                      : to_output_line(answer);
  }

  const Options& options_;
  const Ranks& ranks_;
  LoadedModel& model_;
  JobQueue& queue_;
  Work work_;
  Progress& progress_;
  DocumentRunner runner_;
  std::int64_t n_context_tokens_ = 0;
  std::int64_t n_dropped_bytes_ = 0;
  std::int64_t n_left_ = 0;  // queries of this document that were not begun
};

// Collective.
void warn_of_dropped_bytes(const Ranks& ranks, std::int64_t mine) {
  const std::vector<std::int64_t> all = ranks.world.allgather(mine);
  const std::int64_t n = std::accumulate(all.begin(), all.end(), std::int64_t{0});
  if (n > 0 && ranks.is_first()) {
    log::warn(
        "{} byte(s) of the input have no token in the model's vocabulary: left out, as Hugging "
        "Face's tokenizers library does",
        with_commas(n));
  }
}

Exit work_through(const Options& options, Work work, const Ranks& ranks, const Stopwatch& clock,
                  Recording& recording, Progress& progress) {
  const std::unique_ptr<LoadedModel> model = open_model(options, ranks);
  progress.watch_energy([&] { return model->backend->energy_joules(); });
  print_banner(options, ranks, *model);
  if (options.dry_run) {
    Exit result = Exit::ok;
    collectively(ranks.world, [&] {
      if (!ranks.is_first()) return;
      options.check_thinking();
      check_form(*model, options);
      result = dry_run(options, ranks, *model);
    });
    return static_cast<Exit>(ranks.world.bcast_value(static_cast<int>(result), 0));
  }

  std::unique_ptr<Coordinator> coordinator;
  collectively(ranks.world, [&] {
    options.plan_request();
    options.check_thinking();
    if (!ranks.is_first()) return;
    check_form(*model, options);
    coordinator = std::make_unique<Coordinator>(options, *model, work != Work::encode, progress);
  });
  JobQueue queue(ranks.world, ranks.group, ranks.n_groups, coordinator.get());
  GroupRun group(options, ranks, *model, queue, work, progress);
  queue.run([&](const Job* job) { group.work_on(job); });
  ranks.world.barrier();

  print_phase_table(ranks, clock.seconds(), group.n_context_tokens());
  warn_of_dropped_bytes(ranks, group.n_dropped_bytes());
  const Exit result = coordinator ? coordinator->finish() : Exit::ok;
  recording.finish(*model->backend);
  progress.finish(result);
  return static_cast<Exit>(ranks.world.bcast_value(static_cast<int>(result), 0));
}

}  // namespace

Exit run_batch(const Options& options, Work work) {
  const Stopwatch clock;
  const Ranks ranks = arrange_ranks(options);
  const Watchdog watchdog(options.timeout, ranks.world.rank());
  Recording recording(options, ranks);
  Progress progress(!ranks.is_first() || options.dry_run, ranks.world.size(),
                    {options.progress_file, options.metrics_file});
  return progress.run(
      [&] { return work_through(options, work, ranks, clock, recording, progress); });
}

}  // namespace starattn
