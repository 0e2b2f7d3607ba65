// SPDX-License-Identifier: Apache-2.0
#include "command/batch_run.h"

#include <algorithm>
#include <memory>

#include "base/clock.h"
#include "base/log.h"
#include "base/text.h"
#include "batch/answer.h"
#include "batch/answer_writer.h"
#include "batch/document.h"
#include "batch/line_reader.h"
#include "command/document_store.h"
#include "command/document_task.h"
#include "command/progress.h"
#include "command/session.h"
#include "command/watchdog.h"
#include "command/work_queue.h"
#include "mpi/runtime.h"
#include "obs/range.h"
#include "star/cost.h"
#include "star/encode.h"

namespace starattn {
namespace {

// What makes two runs' answers comparable. Nothing of ranks, threads or devices.
Json settings_of(const Options& options, const Session& session) {
  const PlanRequest plan = options.plan_request();
  Json json;
  json["model"] = describe(session.config);
  json["weights_bytes"] = session.weights.total_bytes();
  json["attention"] = options.attention;
  json["block_size"] = plan.block_size ? Json(*plan.block_size) : Json("auto");
  json["anchor_size"] = plan.anchor_size ? Json(*plan.anchor_size) : Json("block size");
  json["reach"] = options.reach;
  json["dtype"] = name_of(session.backend->kv_dtype());
  json["max_new_tokens"] = options.max_new_tokens;
  json["stop"] = options.stop;
  json["temperature"] = options.temperature;
  json["top_p"] = options.top_p;
  json["seed"] = options.seed;
  json["logprobs"] = options.logprobs;
  json["chat"] = options.chat;
  json["special_tokens"] = options.special_tokens;
  json["output_format"] = options.output_format;
  return json;
}

std::string describe(const DocumentTask& task, const BlockPlan& plan) {
  const auto n = [](std::int64_t count, const char* one, const char* many) {
    return fmt::format("{} {}", with_commas(count), count == 1 ? one : many);
  };
  return fmt::format("document '{}': {}, {} of {}, anchor {}{}, {}", task.id,
                     n(plan.n_context(), "token", "tokens"), n(plan.n_blocks(), "block", "blocks"),
                     with_commas(plan.block_size()), with_commas(plan.anchor_size()),
                     plan.reach() == 0 ? "" : fmt::format(", reach {}", plan.reach()),
                     n(std::ssize(task.queries), "query", "queries"));
}

// Rank 0's side: lines of the input become jobs, finished lines go to the output.
class Desk {
 public:
  Desk(const Options& options, const Session& session, Work work)
      : options_(options), reader_(options.input), encode_only_(work == Work::encode) {
    options.shard_numbers(shard_, n_shards_);
    if (!encode_only_)
      writer_ = std::make_unique<AnswerWriter>(options.output, settings_of(options, session),
                                               options.overwrite);
  }

  std::optional<Job> next() {
    while (!stopped_) {
      stopped_ = stop_requested();
      if (stopped_) break;
      const std::optional<Line> line = reader_.next();
      if (!line) break;
      if (line->index % n_shards_ != shard_) continue;
      if (std::optional<Job> job = job_of(*line)) return job;
    }
    return std::nullopt;
  }

  void answered(std::int64_t seq, std::int64_t query, const std::string& line) {
    const auto& [id, query_ids] = open_.at(seq);
    writer_->put(id, query_ids.at(static_cast<std::size_t>(query)), line);
    ++n_answers_;
    if (since_said_.seconds() >= Progress::kSecondsBetween) {
      log::info("{} new answer(s) so far", with_commas(n_answers_));
      since_said_ = Stopwatch();
    }
    const Json json = parse_json(line, "answer");
    if (json.contains("score")) {
      score_ += json["score"].get<double>();
      ++n_scores_;
    }
  }

  void failed(std::int64_t seq, const std::string& error) {
    const auto& [id, query_ids] = open_.at(seq);
    report_bad_line(seq, id, error, /*is_expected=*/true);
  }

  // Phase 1 ended early; no new document is started.
  void stopped(std::int64_t seq, const std::string& saved) {
    saved_ += fmt::format("document '{}': {}; ", open_.at(seq).first, saved);
    stopped_ = true;
  }

  Exit finish() {
    if (writer_ && !stopped_) writer_->finish();
    if (n_scores_ > 0) {
      log::info("score: mean {:.4f} over {} answer(s) with references",
                score_ / static_cast<double>(n_scores_), n_scores_);
    }
    if (writer_) {
      log::info("{} new answer(s), {} already there, {} bad line(s); output: {}", n_answers_,
                n_skipped_, n_bad_, options_.output);
    }
    if (stopped_ && !strict_stop_) {
      log::warn("stopped early, as asked; {}{}run the same command again to go on", saved_,
                writer_ ? "every answer so far is saved; " : "");
      return Exit::stopped;
    }
    return n_bad_ > 0 ? Exit::bad_data : Exit::ok;
  }

 private:
  std::optional<Job> job_of(const Line& line) {
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
      if (writer_) writer_->expect(document.id, query_id);
    }
    if (job.todo.empty()) return std::nullopt;
    open_[line.number] = {document.id, query_ids};
    return job;
  }

  void report_bad_line(std::int64_t line, const std::string& id, const std::string& error,
                       bool is_expected) {
    log::error("{}", error);
    ++n_bad_;
    if (writer_ && is_expected) writer_->put_error(id, to_error_line(line, id, error));
    if (writer_ && !is_expected) writer_->expect_error(to_error_line(line, id, error));
    if (options_.strict) stopped_ = strict_stop_ = true;
  }

  const Options& options_;
  LineReader reader_;
  bool encode_only_;
  std::unique_ptr<AnswerWriter> writer_;
  std::int64_t shard_ = 0;
  std::int64_t n_shards_ = 1;
  std::map<std::int64_t, std::pair<std::string, std::vector<std::string>>>
      open_;  // by line: id, query ids
  bool stopped_ = false;
  std::string saved_;  // what groups saved of documents that they left
  bool strict_stop_ = false;
  std::int64_t n_bad_ = 0;
  std::int64_t n_answers_ = 0;
  std::int64_t n_skipped_ = 0;
  std::int64_t n_scores_ = 0;
  double score_ = 0;
  Stopwatch since_said_;
};

// One document at a time, on one group of ranks.
class GroupRun {
 public:
  GroupRun(const Options& options, const Ranks& ranks, Session& session, WorkQueue& queue,
           Work work)
      : options_(options),
        ranks_(ranks),
        session_(session),
        queue_(queue),
        work_(work),
        store_(options.checkpoint_dir, session, ranks.group),
        progress_(!ranks.is_first()) {}

  // False when the queue is empty.
  bool next_document() {
    std::optional<Job> job;
    Document document;
    DocumentTask task;
    std::string error;
    if (ranks_.group.is_root()) {
      job = queue_.next();
      if (job) {
        const std::string where = fmt::format("{}:{}", options_.input, job->line);
        try {
          document = parse_document(job->text, job->line, where);
          task = tokenize(document, job->todo, options_.input, options_, session_);
        } catch (const Error& bad) {
          error =
              std::string(bad.what()).starts_with(where) ? bad.what() : bad.within(where).what();
        }
      }
    }
    // 0: nothing left, 1: a document, 2: a bad one
    const int state = ranks_.group.bcast_value(!job ? 0 : error.empty() ? 1 : 2, 0);
    if (state == 0) return false;
    if (state == 1) {
      share(task, ranks_.group);
      try {
        work_on(task, document, job);
      } catch (const AgreedError& bad) {
        if (bad.exit() == Exit::stopped) {
          if (job) queue_.stopped(job->seq, bad.what());
          return true;
        }
        // The document is at fault, not the machine: the batch goes on.
        if (bad.exit() != Exit::bad_data && bad.exit() != Exit::no_input) throw;
        error = bad.within(fmt::format("document '{}'", task.id)).what();
      }
    }
    if (job && !error.empty()) queue_.failed(job->seq, error);
    return true;
  }

 private:
  void work_on(const DocumentTask& task, const Document& document, const std::optional<Job>& job) {
    BlockPlan plan;
    collectively(ranks_.group, [&] {
      plan = BlockPlan::make(options_.plan_request(),
                             static_cast<std::int64_t>(task.context.size()), ranks_.group.size());
      check_memory(plan);
    });
    const Stopwatch clock;
    const DocumentKv kv = encode(task, plan);
    const double encode_seconds = clock.seconds();
    if (work_ == Work::encode) return;

    std::vector<QueryJob> jobs;
    for (const QueryTask& query : task.queries) jobs.push_back(query.job);
    AnswerOptions answer_options;
    answer_options.eos_tokens = session_.eos_tokens;
    answer_options.sampling = {options_.temperature, options_.top_p, options_.seed};
    answer_options.n_logprobs = options_.logprobs;
    answer_options.spread_queries = options_.query_ranks == "all";
    answer_options.tree_merge = options_.merge == "tree";
    answer_options.poll = [this] { queue_.poll(); };
    if (store_.keeps()) answer_options.stop = stop_requested;
    answer_options.stops_by_text = [&](std::size_t query, std::span<const Token> tokens) {
      return first_stop(task.queries[query], tokens) != std::string::npos;
    };
    const auto make_answer = [&](std::size_t i, const QueryResult& result) {
      return answer_of(task, document, plan, i, result, encode_seconds);
    };
    answer_options.finished = [&](std::size_t i, const QueryResult& result) {
      if (job && !answer_options.spread_queries)
        send(document, *job, task.queries[i].index, make_answer(i, result));
    };
    Answerer answerer(*session_.decoder, ranks_.group, kv, answer_options);
    const std::vector<QueryResult> results = answerer.answer(jobs);
    if (answer_options.spread_queries) collect_and_send(task, document, job, results, make_answer);
    if (answerer.n_left() > 0) {
      throw AgreedError(Exit::stopped,
                        fmt::format("every block is saved in {}, {} of {} queries wait",
                                    options_.checkpoint_dir, answerer.n_left(), jobs.size()));
    }
  }

  DocumentKv encode(const DocumentTask& task, const BlockPlan& plan) {
    const std::int64_t n_own = std::max<std::int64_t>(
        1, static_cast<std::int64_t>(plan.blocks_of(ranks_.group.rank()).size()));
    const std::int64_t chunks_a_block =
        (std::min(plan.block_size(), plan.n_context()) + session_.backend->chunk_rows() - 1) /
        session_.backend->chunk_rows();
    progress_.start(fmt::format("document '{}'", task.id), plan.n_context(),
                    n_own * chunks_a_block * session_.config.n_layers);
    if (ranks_.is_first()) {
      log::info("{}", describe(task, plan));
    }
    EncodeHooks hooks;
    hooks.poll = [this] {
      progress_.step();
      queue_.poll();
    };
    return store_.load_or_encode(plan, task.context, options_.anchor_mode(), work_ == Work::answer,
                                 hooks);
  }

  // Needs the weights once a node; everything else once a rank.
  void check_memory(const BlockPlan& plan) const {
    const MemoryNeed need =
        memory_need(session_.config, plan, options_.anchor_mode(), session_.weights.total_bytes(),
                    session_.backend->kv_dtype(), session_.backend->activation_dtype(),
                    session_.backend->chunk_rows());
    const bool on_host = session_.backend->is_host_memory();
    const std::uint64_t available = on_host ? memory_of_node() : session_.backend->memory_bytes();
    if (need.total() > available) {
      fail(Exit::unfit,
           "the document does not fit: a rank needs {}, this {} has {}. Use more ranks, a smaller "
           "--block-size, or a smaller document",
           need.arithmetic(), on_host ? "node" : "GPU", human_bytes(available));
    }
  }

  // Byte position of the earliest stop string in the text of `tokens`, npos if there is none.
  std::size_t first_stop(const QueryTask& query, std::span<const Token> tokens) const {
    if (query.stop.empty()) return std::string::npos;
    const std::string text = session_.tokenizer->decode({tokens.begin(), tokens.end()}, true);
    std::size_t first = std::string::npos;
    for (const std::string& stop : query.stop) {
      if (!stop.empty()) first = std::min(first, text.find(stop));
    }
    return first;
  }

  Answer answer_of(const DocumentTask& task, const Document& document, const BlockPlan& plan,
                   std::size_t i, const QueryResult& result, double encode_seconds) const {
    const QueryTask& query = task.queries[i];
    Answer answer;
    answer.id = task.id;
    answer.tokens = result.tokens;
    answer.text = session_.tokenizer->decode(result.tokens, true);
    const std::size_t stop = first_stop(query, result.tokens);
    if (stop != std::string::npos) answer.text.resize(stop);
    answer.finish_reason = result.reason == FinishReason::stop ? "stop" : "length";
    answer.n_context = plan.n_context();
    answer.n_query = static_cast<std::int64_t>(query.job.tokens.size());
    answer.block_size = plan.block_size();
    answer.anchor_size = plan.anchor_size();
    answer.reach = plan.reach();
    answer.n_blocks = plan.n_blocks();
    answer.encode_seconds = encode_seconds;
    answer.answer_seconds = result.seconds;
    answer.ms_per_token = result.tokens.empty()
                              ? 0
                              : 1e3 * result.seconds / static_cast<double>(result.tokens.size());
    answer.logprobs.assign(result.logprobs.begin(), result.logprobs.end());
    if (ranks_.group.is_root()) {
      const Query& asked = document.queries[static_cast<std::size_t>(query.index)];
      answer.query_id = asked.id;
      if (!asked.answers.empty()) answer.score = share_contained(answer.text, asked.answers);
    }
    return answer;
  }

  void send(const Document& document, const Job& job, std::int64_t query, const Answer& answer) {
    const bool published = options_.output_format == "star-attention";
    queue_.answered(job.seq, query,
                    published ? to_published_line(answer, document) : to_output_line(answer));
  }

  // Queries spread over ranks: their results come to the group's first rank at the end.
  void collect_and_send(const DocumentTask& task, const Document& document,
                        const std::optional<Job>& job, const std::vector<QueryResult>& results,
                        const std::function<Answer(std::size_t, const QueryResult&)>& make_answer) {
    Json mine = Json::array();
    for (std::size_t i = 0; i < results.size(); ++i) {
      if (results[i].reason == FinishReason::not_begun) continue;  // or another rank's
      mine.push_back({i, results[i].tokens, results[i].reason == FinishReason::stop,
                      results[i].logprobs, results[i].seconds});
    }
    std::map<std::size_t, QueryResult> all;
    for (const std::string& text : ranks_.group.gather_texts(mine.dump(), 0)) {
      for (const Json& entry : parse_json(text, "results")) {
        QueryResult& result = all[entry[0].get<std::size_t>()];
        result.tokens = entry[1].get<std::vector<Token>>();
        result.reason = entry[2].get<bool>() ? FinishReason::stop : FinishReason::length;
        result.logprobs = entry[3].get<std::vector<std::pair<Token, float>>>();
        result.seconds = entry[4].get<double>();
      }
    }
    for (const auto& [i, result] : all)
      send(document, *job, task.queries[i].index, make_answer(i, result));
  }

  const Options& options_;
  const Ranks& ranks_;
  Session& session_;
  WorkQueue& queue_;
  Work work_;
  DocumentStore store_;
  Progress progress_;
};

// What the first document would take, from rank 0; nothing is computed and no output is touched.
void print_dry_run(const Options& options, const Ranks& ranks, const Session& session) {
  if (!ranks.is_first()) return;
  LineReader reader(options.input);
  const std::optional<Line> line = reader.next();
  if (!line) fail(Exit::bad_data, "{}: no document in it", options.input);
  const Document document =
      parse_document(line->text, line->number, fmt::format("{}:{}", options.input, line->number));
  std::vector<std::int64_t> all;
  for (std::size_t i = 0; i < document.queries.size(); ++i)
    all.push_back(static_cast<std::int64_t>(i));
  const DocumentTask task = tokenize(document, all, options.input, options, session);
  const BlockPlan plan = BlockPlan::make(
      options.plan_request(), static_cast<std::int64_t>(task.context.size()), ranks.group.size());
  const MemoryNeed need =
      memory_need(session.config, plan, options.anchor_mode(), session.weights.total_bytes(),
                  session.backend->kv_dtype(), session.backend->activation_dtype(),
                  session.backend->chunk_rows());
  log::info("{}", describe(task, plan));
  for (Rank rank = 0; rank < ranks.group.size(); ++rank) {
    log::info("rank {} of its group: block(s) {}", rank, fmt::join(plan.blocks_of(rank), " "));
  }
  log::info("memory of the fullest rank: {}", need.arithmetic());
  log::info("phase 1: {:.3g} TFLOP",
            phase1_flops(session.config, plan, options.anchor_mode()).total() * 1e-12);
}

}  // namespace

Exit run_batch(const Options& options, Work work) {
  const Stopwatch clock;
  const Ranks ranks = arrange_ranks(options);
  const Watchdog watchdog(options.timeout, ranks.world.rank());
  if (!options.trace.empty()) {
    ranks.world.barrier();  // one time 0 for all
    obs::start_trace();
  }
  const std::unique_ptr<Session> session = open_session(options, ranks);
  print_banner(options, ranks, *session);
  if (options.dry_run) {
    collectively(ranks.world, [&] { print_dry_run(options, ranks, *session); });
    return Exit::ok;
  }

  std::unique_ptr<Desk> desk;
  collectively(ranks.world, [&] {
    options.plan_request();
    if (ranks.is_first()) desk = std::make_unique<Desk>(options, *session, work);
  });
  JobSource source;
  if (desk) {
    source.next = [&] { return desk->next(); };
    source.answered = [&](std::int64_t seq, std::int64_t query, const std::string& line) {
      desk->answered(seq, query, line);
    };
    source.failed = [&](std::int64_t seq, const std::string& error) { desk->failed(seq, error); };
    source.stopped = [&](std::int64_t seq, const std::string& saved) { desk->stopped(seq, saved); };
  }
  WorkQueue queue(ranks.world, ranks.group.is_root(), ranks.n_groups, std::move(source));
  GroupRun group(options, ranks, *session, queue, work);
  while (group.next_document()) {
  }
  queue.finish();
  ranks.world.barrier();

  print_phase_table(ranks, clock.seconds());
  write_trace(options, ranks);
  const Exit result = desk ? desk->finish() : Exit::ok;
  return static_cast<Exit>(ranks.world.bcast_value(static_cast<int>(result), 0));
}

}  // namespace starattn
