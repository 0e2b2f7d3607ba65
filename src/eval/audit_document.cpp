// SPDX-License-Identifier: Apache-2.0
#include "eval/audit_document.h"

#include <memory>
#include <numeric>

#include "base/clock.h"
#include "base/error.h"
#include "base/text.h"
#include "eval/divergence.h"

namespace starattn {
namespace {

std::string trimmed(const std::string& text) {
  const char* space = " \t\r\n";
  const std::size_t first = text.find_first_not_of(space);
  if (first == std::string::npos) return "";
  return text.substr(first, text.find_last_not_of(space) - first + 1);
}

// [answer tokens, vocab] on the group's first rank: what the answerer expects at each token of
// `answer`, the tokens before it given. Collective.
std::vector<float> logits_along(Answerer& answerer, const QueryTask& query,
                                const std::vector<Token>& answer) {
  if (answer.empty()) return {};
  std::vector<Token> tokens = query.job.tokens;
  tokens.insert(tokens.end(), answer.begin(), answer.end() - 1);
  return answerer.logits_of(tokens, std::ssize(answer));
}

// The exact answers decide how far everybody goes along.
void share_tokens(std::vector<Token>& tokens, const Communicator& group) {
  tokens.resize(group.bcast_value(tokens.size(), 0));
  group.bcast(std::as_writable_bytes(std::span(tokens)), 0);
}

}  // namespace

struct DocumentAuditor::Pass {
  std::unique_ptr<DocumentKv> kv;  // stays where it is: the answerer refers to it
  double encode_seconds = 0;
  TimingBasis basis;
  std::unique_ptr<Answerer> answerer;
  std::vector<QueryResult> results;  // by query; tokens on every rank
};

DocumentAuditor::DocumentAuditor(const AuditOptions& options, const Ranks& ranks,
                                 LoadedModel& model, std::function<void()> poll, Progress& progress)
    : options_(options),
      ranks_(ranks),
      model_(model),
      progress_(progress),
      runner_(options.run, ranks, model, std::move(poll), progress, /*says_documents=*/false) {}

std::vector<AuditLine> DocumentAuditor::audit(const Document* document) {
  DocumentTask task;
  collectively(ranks_.group, [&] {
    if (!document) return;
    std::vector<std::int64_t> all(document->queries.size());
    std::iota(all.begin(), all.end(), 0);
    task = tokenize(*document, all, options_.run.input, options_.run, model_);
    check_logits_memory(task);
  });
  share(task, ranks_.group);
  const trace::At at({.document = trace::document(task.id)});

  const PlanRequest star = options_.run.plan_request();
  PlanRequest exact;
  exact.attention = Attention::dense;
  if (options_.exact == "ring") {  // the same blocks, so that the bits do not depend on ranks
    exact.attention = Attention::ring;
    exact.block_size = runner_.plan(task, star).block_size();
  }
  Pass pass = encode_and_answer(task, exact);
  const std::vector<QueryResult> exact_results = std::move(pass.results);
  const double exact_seconds = pass.encode_seconds;
  const TimingBasis exact_basis = pass.basis;
  std::vector<std::vector<float>> exact_logits;
  for (std::size_t i = 0; i < task.queries.size(); ++i)
    exact_logits.push_back(logits_along(*pass.answerer, task.queries[i], exact_results[i].tokens));
  pass = {};  // its KV makes room
  pass = encode_and_answer(task, star);

  std::vector<AuditLine> lines;
  for (std::size_t i = 0; i < task.queries.size(); ++i) {
    const QueryTask& query = task.queries[i];
    const std::vector<Token>& answer = exact_results[i].tokens;
    const std::vector<float> logits = logits_along(*pass.answerer, query, answer);
    collectively(ranks_.group, [&] {
      if (!document) return;
      const AnswerDivergence divergence =
          compare_logits(exact_logits[i], logits, model_.config.vocab_size);
      AuditLine one;
      one.id = task.id;
      one.query_id = document->queries[i].id;
      one.n_context = std::ssize(task.context);
      one.n_positions = std::ssize(answer);
      one.kl_sum = divergence.sum();
      one.kl_max = divergence.max();
      one.n_same_top = divergence.n_same_top;
      one.exact = runner_.text_of(query, answer);
      one.star = runner_.text_of(query, pass.results[i].tokens);
      one.is_same_tokens = answer == pass.results[i].tokens;
      one.is_same_text = trimmed(one.exact) == trimmed(one.star);
      one.exact_seconds = exact_seconds;
      one.star_seconds = pass.encode_seconds;
      one.exact_basis = exact_basis;
      one.star_basis = pass.basis;
      lines.push_back(std::move(one));
    });
  }
  progress_.end_document();
  return lines;
}

DocumentAuditor::Pass DocumentAuditor::encode_and_answer(const DocumentTask& task,
                                                         const PlanRequest& request) {
  const BlockPlan plan = runner_.plan(task, request);
  // The first encoding reads the weights and sets libraries up: not the exact pass's fault.
  if (!std::exchange(is_warm_, true)) runner_.encode(task, plan);
  Pass pass;
  ranks_.group.barrier();
  const Stopwatch clock;
  pass.kv = std::make_unique<DocumentKv>(runner_.encode(task, plan));
  ranks_.group.barrier();
  pass.encode_seconds = clock.seconds();
  pass.basis = basis_of(plan, model_);
  pass.answerer = std::make_unique<Answerer>(
      model_.answering->answerer(*pass.kv, runner_.answer_options(task, task.queries, plan)));
  std::vector<QueryJob> jobs;
  for (const QueryTask& query : task.queries) jobs.push_back(query.job);
  progress_.start_phase_2(task.id, std::ssize(jobs));
  pass.results = pass.answerer->answer(jobs);
  runner_.refuse_overflow(task.queries, pass.results);
  for (QueryResult& result : pass.results) share_tokens(result.tokens, ranks_.group);
  return pass;
}

// A quarter of the node's memory, for the longest answers there can be.
void DocumentAuditor::check_logits_memory(const DocumentTask& task) const {
  std::uint64_t n_tokens = 0;
  for (const QueryTask& query : task.queries)
    n_tokens += static_cast<std::uint64_t>(query.job.max_new_tokens);
  const std::uint64_t n_bytes =
      n_tokens * static_cast<std::uint64_t>(model_.config.vocab_size) * sizeof(float);
  if (n_bytes > memory_of_node() / 4) {
    fail(Exit::bad_data,
         "document '{}': the logits of {} possible answer tokens need {}, a quarter of this node's "
         "memory is {}. Lower --max-new-tokens, or ask less about one document",
         task.id, with_commas(static_cast<std::int64_t>(n_tokens)), human_bytes(n_bytes),
         human_bytes(memory_of_node() / 4));
  }
}

}  // namespace starattn
