// SPDX-License-Identifier: Apache-2.0
#include "eval/eval_plan.h"

#include <algorithm>

#include "base/error.h"

namespace starattn {

EvalPlan::EvalPlan(EvalRules rules) : rules_(std::move(rules)) {
  STARATTN_CHECK(!rules_.tasks.empty() && !rules_.lengths.empty() && !rules_.settings.empty());
  begin_task();
}

void EvalPlan::begin_task() {
  settings_ = rules_.settings;
  length_index_ = 0;
  begin_length(rules_.lengths.front());
}

void EvalPlan::begin_length(std::int64_t length) {
  length_ = length;
  n_taken_ = 0;
}

bool EvalPlan::may_be_certain() const {
  return rules_.until > 0 && n_taken_ > 0 && n_taken_ % kStep == 0;
}

bool EvalPlan::depends_on_results() const {
  if (task_ == rules_.tasks.size()) return false;
  return n_taken_ < rules_.count ? may_be_certain() : rules_.find_limit > 0;
}

std::optional<EvalSample> EvalPlan::next(const Comparison& found) {
  while (task_ < rules_.tasks.size()) {
    if (n_taken_ < rules_.count && !is_certain(found))
      return EvalSample{n_taken_++, std::string(rules_.tasks[task_]->name), length_, settings_};
    if (next_length(found)) continue;
    ++task_;
    begin_task();
  }
  return std::nullopt;
}

bool EvalPlan::is_certain(const Comparison& found) const {
  if (!may_be_certain()) return false;
  return std::ranges::all_of(settings_, [&](const std::string& setting) {
    const Estimate score =
        found.cell(std::string(rules_.tasks[task_]->name), length_, setting).score;
    return (score.high - score.low) / 2 <= rules_.until;
  });
}

bool EvalPlan::next_length(const Comparison& found) {
  if (rules_.find_limit <= 0) {
    if (++length_index_ >= rules_.lengths.size()) return false;
    begin_length(rules_.lengths[length_index_]);
    return true;
  }
  const std::string task(rules_.tasks[task_]->name);
  std::erase_if(settings_, [&](const std::string& setting) {
    auto limit = std::ranges::find_if(limits_, [&](const Limit& known) {
      return known.task == task && known.setting == setting;
    });
    if (limit == limits_.end()) limit = limits_.insert(limit, {task, setting, 0, 0});
    const bool holds = found.cell(task, length_, setting).score.mean >= rules_.find_limit;
    (holds ? limit->holds : limit->fails) = length_;
    return !holds;
  });
  if (settings_.empty() || length_ > rules_.max_length / 2) return false;
  begin_length(2 * length_);
  return true;
}

}  // namespace starattn
