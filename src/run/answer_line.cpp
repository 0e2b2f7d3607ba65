// SPDX-License-Identifier: Apache-2.0
#include "run/answer_line.h"

#include <ctime>

#include "checkpoint/digest.h"
#include "io/completion.h"

namespace starattn {

std::vector<Token> tokens_of(const QueryTask& query, const QueryResult& result) {
  std::vector<Token> tokens = query.begun;
  tokens.insert(tokens.end(), result.tokens.begin(), result.tokens.end());
  return tokens;
}

Answer answer_of(const QueryTask& query, const Document& document, const BlockPlan& plan,
                 const QueryResult& result, Thought thought, double encode_seconds) {
  const Query& asked = document.queries[static_cast<std::size_t>(query.index)];
  Answer answer;
  answer.id = document.is_of_requests() ? asked.id : document.id;
  answer.query_id = asked.id;
  answer.tokens = tokens_of(query, result);
  answer.text = std::move(thought.answer);
  answer.reasoning = std::move(thought.reasoning);
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

AnswerLine line_of(const Job& job, std::int64_t query, const Answer& answer,
                   const std::string& format) {
  const Document& document = job.document;
  const bool is_published = format == "star-attention";
  AnswerLine line{job.number, query, "", 0, is_published ? std::nullopt : answer.score, ""};
  if (document.is_of_requests()) {
    line.line = to_completion_line(answer, document.kind,
                                   document.queries[static_cast<std::size_t>(query)].request,
                                   std::time(nullptr));
  } else {
    line.line = is_published ? to_published_line(answer, document) : to_output_line(answer);
  }
  line.digest = digest_of(to_line({answer.id, answer.query_id, answer.text})).low;
  return line;
}

}  // namespace starattn
