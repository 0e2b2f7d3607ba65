// SPDX-License-Identifier: Apache-2.0
// What rank 0 gives to a group, and what comes back: a document with queries to answer, and a line
// of the output.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "io/document.h"
#include "run/work_queue.h"

namespace starattn {

struct Job {
  std::int64_t number = 0;         // of the line in the input file; of requests, counted from 0
  std::vector<std::int64_t> todo;  // indices of the queries that are not answered yet
  Document document;

  static void fields(auto& job, auto& archive) {
    auto& [number, todo, document] = job;
    archive(number, todo, document);
  }
};

// An answer on its way to the output.
struct AnswerLine {
  std::int64_t number = 0;  // the job's
  std::int64_t query = 0;   // index among the document's
  std::string line;
  std::uint64_t digest = 0;     // of its ids and text
  std::optional<double> score;  // where there were references
  std::string error;            // of a request: why it has no answer

  static void fields(auto& answer, auto& archive) {
    auto& [number, query, line, digest, score, error] = answer;
    archive(number, query, line, digest, score, error);
  }
};

using JobQueue = WorkQueue<Job, AnswerLine>;

}  // namespace starattn
