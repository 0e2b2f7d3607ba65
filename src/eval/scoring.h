// SPDX-License-Identifier: Apache-2.0
// The benchmarks' own rules for a right answer, and how sure a mean of such scores is.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/json.h"
#include "benchmark/task.h"

namespace starattn {

// The question without the answer's beginning: meta.question of a query that `generate` wrote, else
// all of its text.
std::string question_text(const Json& query, const std::string& text);

// 0 to 1. references: at least one. question: the text without the answer's beginning; only
// ScoreRule::labels looks at it. Case is ignored (ASCII).
double score_answer(const TaskInfo& task, const std::string& answer,
                    const std::vector<std::string>& references, const std::string& question);

struct Interval {
  double low = 0;
  double high = 1;
};

// Wilson's 95 % interval of a share, `mean` of n. For scores between 0 and 1 that are not all 0 or
// 1 it is wider than need be. n = 0: all of 0 .. 1.
Interval wilson_interval(double mean, std::int64_t n);

// t with P(|T| < t) = 0.95, n_degrees >= 1. Within 0.2 % of the tables.
double student_t95(std::int64_t n_degrees);

}  // namespace starattn
