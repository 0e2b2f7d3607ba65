// SPDX-License-Identifier: Apache-2.0
#include "eval/comparison.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <set>

#include "base/text.h"
#include "eval/setting.h"

namespace starattn {
namespace {

constexpr double kZ = 1.959963984540054;
constexpr double kSlower = 0.95;  // less than this no timing can tell from chance

using Pairs = std::vector<std::pair<double, double>>;

// f of the trials of documents that both have, drawn with the same seed.
template <typename F, typename Matches>
Pairs pairs_of(const std::map<std::string, Trial>& a, const std::map<std::string, Trial>& b, F f,
               Matches matches) {
  Pairs pairs;
  for (const auto& [id, trial] : a) {
    const auto other = b.find(id);
    if (other != b.end() && other->second.seed == trial.seed && matches(trial, other->second))
      pairs.emplace_back(f(trial), f(other->second));
  }
  return pairs;
}

bool always(const Trial&, const Trial&) {
  return true;
}

bool on_equal_means(const Trial& a, const Trial& b) {
  return are_comparable(a.basis, b.basis);
}

double score_of(const Trial& trial) {
  return trial.score;
}

double encode_seconds_of(const Trial& trial) {
  return std::max(trial.encode_seconds, 1e-9);
}

void remember(std::vector<std::string>& list, const std::string& name) {
  if (std::ranges::find(list, name) == list.end()) list.push_back(name);
}

}  // namespace

Estimate paired_difference(const Pairs& pairs) {
  if (pairs.empty()) return {};
  double sum = 0;
  double sum2 = 1;  // of the two added pairs, half a point up and half a point down each way
  for (const auto& [a, b] : pairs) {
    sum += a - b;
    sum2 += (a - b) * (a - b);
  }
  const double n = static_cast<double>(pairs.size()) + 2;
  const double middle = sum / n;
  const double half = kZ * std::sqrt(std::max(0.0, sum2 - sum * sum / n)) / n;
  return {std::ssize(pairs), sum / static_cast<double>(pairs.size()), std::max(-1.0, middle - half),
          std::min(1.0, middle + half)};
}

Estimate paired_ratio(const Pairs& pairs) {
  if (pairs.empty()) return {};
  const auto n = static_cast<double>(pairs.size());
  double mean = 0;
  for (const auto& [a, b] : pairs) mean += std::log(a / b) / n;
  double sum2 = 0;
  for (const auto& [a, b] : pairs) sum2 += std::pow(std::log(a / b) - mean, 2);
  const double half = pairs.size() < 2
                          ? INFINITY
                          : student_t95(std::ssize(pairs) - 1) * std::sqrt(sum2 / (n - 1) / n);
  return {std::ssize(pairs), std::exp(mean), std::exp(mean - half), std::exp(mean + half)};
}

void Comparison::add(Trial trial) {
  remember(tasks_, trial.task);
  remember(settings_, trial.setting);
  if (exact_.empty() && Setting::parse(trial.setting).is_exact()) exact_ = trial.setting;
  Samples& samples = samples_[{trial.task, trial.length, trial.setting}];
  std::string id = trial.id;
  samples.emplace(std::move(id), std::move(trial));
}

const Comparison::Samples* Comparison::exact_of(const Key& key) const {
  const auto found = samples_.find({key.task, key.length, exact_});
  return found == samples_.end() ? nullptr : &found->second;
}

Cell Comparison::cell(const Key& key) const {
  Cell cell;
  cell.task = key.task;
  cell.length = key.length;
  cell.setting = key.setting;
  cell.is_exact = key.setting == exact_;
  const auto found = samples_.find(key);
  if (found == samples_.end()) return cell;
  const Samples& samples = found->second;
  double score = 0, right = 0, tokens = 0, encode = 0, new_tokens = 0, answer = 0;
  for (const auto& [id, trial] : samples) {
    score += trial.score;
    right += static_cast<double>(trial.n_right);
    tokens += static_cast<double>(trial.n_context);
    encode += trial.encode_seconds;
    new_tokens += static_cast<double>(trial.n_new_tokens);
    answer += trial.answer_seconds;
    cell.has_speeds = cell.has_speeds && !trial.basis.shares_device;
    const bool is_same = id == samples.begin()->first || cell.n_ranks == trial.basis.n_ranks;
    cell.n_ranks = is_same ? trial.basis.n_ranks : 0;
  }
  const auto n = static_cast<double>(samples.size());
  const Interval interval = wilson_interval(score / n, std::ssize(samples));
  cell.score = {std::ssize(samples), score / n, interval.low, interval.high};
  cell.n_right = right / n;
  cell.tokens_per_second = encode > 0 ? tokens / encode : 0;
  cell.ms_per_token = new_tokens > 0 ? 1e3 * answer / new_tokens : 0;
  if (const Samples* exact = exact_of(key); exact && !cell.is_exact) {
    cell.difference = paired_difference(pairs_of(samples, *exact, score_of, always));
  }
  compare_speed(key, cell);
  return cell;
}

// With the first exact setting that ran on as many ranks: dense attention has one rank, whatever
// the job has.
void Comparison::compare_speed(const Key& key, Cell& cell) const {
  const Samples& samples = samples_.at(key);
  for (const std::string& setting : settings_) {
    const auto exact = samples_.find({key.task, key.length, setting});
    if (cell.is_exact || setting == key.setting || exact == samples_.end()) continue;
    if (!Setting::parse(setting).is_exact()) continue;
    const Pairs pairs = pairs_of(exact->second, samples, encode_seconds_of, on_equal_means);
    if (pairs.empty()) continue;
    cell.speedup = paired_ratio(pairs);
    cell.faster_than = setting;
    return;
  }
}

Cell Comparison::cell(const std::string& task, std::int64_t length,
                      const std::string& setting) const {
  return cell(Key{task, length, setting});
}

std::vector<Cell> Comparison::cells() const {
  std::set<std::int64_t> lengths;
  for (const auto& [key, samples] : samples_) lengths.insert(key.length);
  std::vector<Cell> cells;
  for (const std::string& task : tasks_) {
    for (const std::int64_t length : lengths) {
      for (const std::string& setting : settings_) {
        const Key key{task, length, setting};
        if (samples_.contains(key)) cells.push_back(cell(key));
      }
    }
  }
  return cells;
}

std::vector<std::string> Comparison::regressions(const Comparison& before,
                                                 std::int64_t& n_compared) const {
  std::vector<std::string> worse;
  n_compared = 0;
  for (const auto& [key, samples] : samples_) {
    const auto old = before.samples_.find(key);
    if (old == before.samples_.end()) continue;
    const Estimate change = paired_difference(pairs_of(samples, old->second, score_of, always));
    if (change.n == 0) continue;
    ++n_compared;
    const std::string where =
        fmt::format("{}, {} tokens, {}", key.task, with_commas(key.length), key.setting);
    const Cell now = cell(key);
    const Cell then = before.cell(key);
    if (change.high < 0) {
      worse.push_back(
          fmt::format("{}: score {:.1f} %, stored {:.1f} %; difference over {} common sample(s) "
                      "{:.1f} points, 95 % interval {:.1f} .. {:.1f}",
                      where, 100 * now.score.mean, 100 * then.score.mean, change.n,
                      100 * change.mean, 100 * change.low, 100 * change.high));
    }
    if (now.speedup.n > 0 && then.speedup.n > 0 && now.speedup.high < kSlower * then.speedup.low) {
      worse.push_back(fmt::format(
          "{}: {:.2f}x as fast as exact ({:.2f} .. {:.2f}), stored {:.2f}x ({:.2f} .. {:.2f})",
          where, now.speedup.mean, now.speedup.low, now.speedup.high, then.speedup.mean,
          then.speedup.low, then.speedup.high));
    }
  }
  return worse;
}

}  // namespace starattn
