// SPDX-License-Identifier: Apache-2.0
#include "run/batch.h"

#include <memory>
#include <numeric>

#include "base/clock.h"
#include "base/log.h"
#include "base/text.h"
#include "checkpoint/digest.h"
#include "io/answer.h"
#include "io/document.h"
#include "io/line_reader.h"
#include "mpi/runtime.h"
#include "run/coordinator.h"
#include "run/document_runner.h"
#include "run/loaded_model.h"
#include "run/watchdog.h"
#include "run/work_queue.h"
#include "star/cost.h"
#include "trace/range.h"

namespace starattn {
namespace {

// One document at a time, on one group of ranks.
class GroupRun {
 public:
  GroupRun(const Options& options, const Ranks& ranks, LoadedModel& session, JobQueue& queue,
           Work work)
      : options_(options),
        ranks_(ranks),
        session_(session),
        queue_(queue),
        work_(work),
        runner_(options, ranks, session, [&queue] { queue.poll(); }) {}

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
    try {
      encode_and_answer(task, job);
    } catch (const AgreedError& error) {
      throw AgreedError(error.within(fmt::format("document '{}'", task.id)));
    }
  }

 private:
  // Whatever keeps a document from becoming tokens is its own fault.
  DocumentTask task_of(const Job& job) {
    try {
      DocumentTask task = tokenize(job.document, job.todo, options_.input, options_, session_);
      n_dropped_bytes_ += task.n_dropped_bytes;
      return task;
    } catch (const Error& error) {
      fail(Exit::bad_data, "{}:{}: {}", name_of_input(options_.input), job.number, error.what());
    }
  }

  void encode_and_answer(const DocumentTask& task, const Job* job) {
    const BlockPlan plan = runner_.plan(task, options_.plan_request());
    const Stopwatch clock;
    const DocumentKv kv = runner_.encode(task, plan, /*complete_only=*/work_ == Work::answer);
    const double encode_seconds = clock.seconds();
    if (job) n_context_tokens_ += plan.n_context();
    if (work_ == Work::encode) return;

    std::vector<QueryJob> jobs;
    for (const QueryTask& query : task.queries) jobs.push_back(query.job);
    AnswerOptions answer_options = runner_.answer_options(task, plan);
    answer_options.finished = [&](std::size_t i, const QueryResult& result) {
      if (job) send(*job, task.queries[i], answer_of(task, *job, plan, i, result, encode_seconds));
    };
    Answerer answerer = session_.answering->answerer(kv, answer_options);
    runner_.refuse_overflow(task, answerer.answer(jobs));
    if (ranks_.is_first() && options_.lookup > 0 && answerer.tokens_a_step() > 0)
      log::info("document '{}': {:.2f} tokens a step with --lookup", task.id,
                answerer.tokens_a_step());
    if (answerer.n_left() > 0) {
      throw AgreedError(Exit::stopped,
                        fmt::format("every block is saved in {}, {} of {} queries wait",
                                    options_.checkpoint_dir, answerer.n_left(), jobs.size()));
    }
  }

  Answer answer_of(const DocumentTask& task, const Job& job, const BlockPlan& plan, std::size_t i,
                   const QueryResult& result, double encode_seconds) const {
    const QueryTask& query = task.queries[i];
    Answer answer;
    answer.id = task.id;
    answer.tokens = result.tokens;
    answer.text = runner_.text_of(query, result.tokens);
    answer.finish_reason = result.reason == FinishReason::stop ? "stop" : "length";
    answer.n_context = plan.n_context();
    answer.n_query = static_cast<std::int64_t>(query.job.tokens.size());
    answer.block_size = plan.block_size();
    answer.anchor_size = plan.anchor_size();
    answer.reach = plan.reach();
    answer.recall = plan.recall();
    answer.recall_rows = plan.recall_rows();
    answer.n_blocks = plan.n_blocks();
    answer.encode_seconds = encode_seconds;
    answer.answer_seconds = result.seconds;
    answer.ms_per_token = result.tokens.empty()
                              ? 0
                              : 1e3 * result.seconds / static_cast<double>(result.tokens.size());
    answer.logprobs.assign(result.logprobs.begin(), result.logprobs.end());
    const Query& asked = job.document.queries[static_cast<std::size_t>(query.index)];
    answer.query_id = asked.id;
    if (!asked.answers.empty()) answer.score = share_contained(answer.text, asked.answers);
    return answer;
  }

  void send(const Job& job, const QueryTask& query, const Answer& answer) {
    const bool published = options_.output_format == "star-attention";
    queue_.send({job.number, query.index,
                 published ? to_published_line(answer, job.document) : to_output_line(answer),
                 digest_of(to_line({answer.id, answer.query_id, answer.text})).low,
                 published ? std::nullopt : answer.score});
  }

  const Options& options_;
  const Ranks& ranks_;
  LoadedModel& session_;
  JobQueue& queue_;
  Work work_;
  DocumentRunner runner_;
  std::int64_t n_context_tokens_ = 0;
  std::int64_t n_dropped_bytes_ = 0;
};

// What the first document would take, from rank 0; nothing is computed and no output is touched.
void print_dry_run(const Options& options, const Ranks& ranks, const LoadedModel& session) {
  if (!ranks.is_first()) return;
  LineReader reader(options.input, stop_requested);
  const std::optional<Line> line = reader.next();
  if (!line) fail(Exit::bad_data, "{}: no document in it", name_of_input(options.input));
  const Document document = parse_document(
      line->text, line->number, fmt::format("{}:{}", name_of_input(options.input), line->number));
  std::vector<std::int64_t> all;
  for (std::size_t i = 0; i < document.queries.size(); ++i)
    all.push_back(static_cast<std::int64_t>(i));
  const DocumentTask task = tokenize(document, all, options.input, options, session);
  const BlockPlan plan = BlockPlan::make(
      options.plan_request(), static_cast<std::int64_t>(task.context.size()), ranks.group.size());
  const MemoryNeed need =
      fullest(memory_needs(session.config, plan, options.anchor_mode(), session.weight_bytes,
                           session.backend->kv_dtype(), session.backend->activation_dtype(),
                           session.backend->chunk_rows()));
  log::info("{}", describe(task, plan));
  for (Rank rank = 0; rank < ranks.group.size(); ++rank) {
    log::info("rank {} of its group: block(s) {}", rank, fmt::join(plan.blocks_of(rank), " "));
  }
  log::info("memory of the fullest rank: {}", need.arithmetic());
  log::info("phase 1: {:.3g} TFLOP",
            phase1_flops(session.config, plan, options.anchor_mode()).total() * 1e-12);
}

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

}  // namespace

Exit run_batch(const Options& options, Work work) {
  const Stopwatch clock;
  const Ranks ranks = arrange_ranks(options);
  const Watchdog watchdog(options.timeout, ranks.world.rank());
  start_trace(options, ranks);
  const std::unique_ptr<LoadedModel> session = open_session(options, ranks);
  print_banner(options, ranks, *session);
  if (options.dry_run) {
    collectively(ranks.world, [&] { print_dry_run(options, ranks, *session); });
    return Exit::ok;
  }

  std::unique_ptr<Coordinator> coordinator;
  collectively(ranks.world, [&] {
    options.plan_request();
    if (ranks.is_first())
      coordinator = std::make_unique<Coordinator>(options, *session, work != Work::encode);
  });
  JobQueue queue(ranks.world, ranks.group, ranks.n_groups, coordinator.get());
  GroupRun group(options, ranks, *session, queue, work);
  queue.run([&](const Job* job) { group.work_on(job); });
  ranks.world.barrier();

  print_phase_table(ranks, clock.seconds(), group.n_context_tokens());
  warn_of_dropped_bytes(ranks, group.n_dropped_bytes());
  const Exit result = coordinator ? coordinator->finish() : Exit::ok;
  write_trace(options, ranks);
  return static_cast<Exit>(ranks.world.bcast_value(static_cast<int>(result), 0));
}

}  // namespace starattn
