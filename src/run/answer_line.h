// SPDX-License-Identifier: Apache-2.0
// An answer of phase 2 as a line of the output.
#pragma once

#include <cstdint>
#include <string>

#include "io/answer.h"
#include "run/document_task.h"
#include "run/job.h"
#include "run/thinking.h"
#include "star/plan.h"
#include "star/query.h"

namespace starattn {

// All tokens of the query's answer, those of a first round too.
std::vector<Token> tokens_of(const QueryTask& query, const QueryResult& result);

// thought: what these tokens say.
Answer answer_of(const QueryTask& query, const Document& document, const BlockPlan& plan,
                 const QueryResult& result, Thought thought, double encode_seconds);

// query: index among the document's. format: --output-format; a request's line is as its own format
// has it.
AnswerLine line_of(const Job& job, std::int64_t query, const Answer& answer,
                   const std::string& format);

}  // namespace starattn
