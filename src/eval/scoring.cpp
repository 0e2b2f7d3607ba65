// SPDX-License-Identifier: Apache-2.0
#include "eval/scoring.h"

#include <algorithm>
#include <cmath>
#include <set>

#include "base/error.h"
#include "benchmark/story.h"
#include "io/answer.h"

namespace starattn {
namespace {

// Up to the first full stop or line end after its first word.
std::string first_sentence(const std::string& text) {
  const std::size_t first = text.find_first_not_of(" \t\r\n");
  if (first == std::string::npos) return "";
  return text.substr(first, text.find_first_of(".!?\n", first) - first);
}

std::set<std::string_view> labels_in(const std::string& text, std::string_view task) {
  std::set<std::string_view> found;
  for (const std::string_view label : story_labels(task))
    if (share_contained(text, {std::string(label)}) == 1) found.insert(label);
  return found;
}

bool names_only(const TaskInfo& task, const std::string& answer, const std::string& target,
                const std::string& question) {
  std::set<std::string_view> found = labels_in(first_sentence(answer), task.name);
  for (const std::string_view label : labels_in(question, task.name)) found.erase(label);
  return found.size() == 1 && labels_in(target, task.name) == found;
}

}  // namespace

std::string question_text(const Json& query, const std::string& text) {
  if (!query.is_object() || !query.contains("meta")) return text;
  const Json& meta = query["meta"];
  if (!meta.is_object() || !meta.contains("question") || !meta["question"].is_string()) return text;
  return meta["question"].get<std::string>();
}

double score_answer(const TaskInfo& task, const std::string& answer,
                    const std::vector<std::string>& references, const std::string& question) {
  STARATTN_CHECK(!references.empty());
  switch (task.rule) {
    case ScoreRule::all:
      return share_contained(answer, references);
    case ScoreRule::any:
      return share_contained(answer, references) > 0 ? 1 : 0;
    case ScoreRule::labels:
      return names_only(task, answer, references.front(), question) ? 1 : 0;
  }
  return 0;
}

Interval wilson_interval(double mean, std::int64_t n) {
  if (n <= 0) return {};
  constexpr double kZ = 1.959963984540054;
  const auto count = static_cast<double>(n);
  const double z2 = kZ * kZ / count;
  const double middle = (mean + z2 / 2) / (1 + z2);
  const double half = kZ * std::sqrt(mean * (1 - mean) / count + z2 / (4 * count)) / (1 + z2);
  return {std::max(0.0, middle - half), std::min(1.0, middle + half)};
}

// Cornish and Fisher's expansion around the normal quantile z; one and two degrees in closed form.
double student_t95(std::int64_t n_degrees) {
  STARATTN_CHECK(n_degrees >= 1);
  if (n_degrees == 1) return 12.706205;
  if (n_degrees == 2) return 4.302653;
  const double z = 1.959963984540054;
  const double z2 = z * z;
  const auto n = static_cast<double>(n_degrees);
  const double g1 = z * (z2 + 1) / 4;
  const double g2 = z * ((5 * z2 + 16) * z2 + 3) / 96;
  const double g3 = z * (((3 * z2 + 19) * z2 + 17) * z2 - 15) / 384;
  const double g4 = z * ((((79 * z2 + 776) * z2 + 1482) * z2 - 1920) * z2 - 945) / 92160;
  return z + (g1 + (g2 + (g3 + g4 / n) / n) / n) / n;
}

}  // namespace starattn
