// SPDX-License-Identifier: Apache-2.0
#include "command/plan_goal.h"

#include <algorithm>
#include <cmath>
#include <map>

#include "base/text.h"
#include "eval/eval_coordinator.h"
#include "eval/setting.h"
#include "star/answer.h"

namespace starattn {
namespace {

// From exact to fast; docs/choosing.md.
const std::vector<std::string> kSettings = {
    "ring",
    "star",  // blocks as --block-size auto has them
    "star:b=n/4",
    "star:b=n/8",
    "star:b=n/16",
    "star:b=n/32",
    "star:b=32k",
    "star:b=8k",
    "star:b=32k,a=b/16,c=b/2",
    "star:b=n/4,a=b/16,c=b/2",
    "star:b=n/8,a=b/16,c=b/2",
    "star:b=n/16,a=b/16,c=b/2",
    "star:b=n/32,a=b/16,c=b/2",
};
constexpr std::size_t kMostLengths = 16;  // of many documents so many stand for all

// Mean scores of settings, as shares of the exact one's, over the cells that both have.
std::map<std::string, double> scores_of(const std::vector<std::string>& files) {
  Comparison trials;
  for (const std::string& path : files) add_trials(path, trials);
  const std::vector<Cell> cells = trials.cells();
  const auto exact_of = [&](const Cell& cell) {
    return std::ranges::find_if(cells, [&](const Cell& other) {
      return other.is_exact && other.task == cell.task && other.length == cell.length;
    });
  };
  std::map<std::string, std::pair<double, double>> sums;  // of a setting, and of the exact one
  for (const Cell& cell : cells) {
    const auto exact = exact_of(cell);
    if (exact == cells.end()) continue;
    sums[cell.setting].first += cell.score.mean;
    sums[cell.setting].second += exact->score.mean;
  }
  std::map<std::string, double> shares;
  for (const auto& [setting, sum] : sums)
    if (sum.second > 0) shares[setting] = sum.first / sum.second;
  if (!files.empty() && shares.empty())
    fail(Exit::bad_data, "{}: no exact setting (dense or ring) to compare the others with",
         fmt::join(files, ", "));
  return shares;
}

// Pairs of a row and a key that attention sees, over those of exact attention.
double share_seen(const BlockPlan& plan) {
  double seen = 0;
  for (BlockId i = 0; i < plan.n_blocks(); ++i) {
    const auto rows = static_cast<double>(plan.block(i).n_tokens);
    double before = static_cast<double>(plan.anchor_of(i).n_tokens + plan.n_recalled(i));
    before +=
        static_cast<double>(plan.block(i).first_doc - plan.block(plan.first_reached(i)).first_doc);
    seen += rows * before + rows * (rows + 1) / 2;
  }
  const auto n = static_cast<double>(plan.n_context());
  return seen / (n * (n + 1) / 2);
}

// Lengths in equal steps of rank order, each with the number of documents that it stands for.
std::vector<std::pair<std::int64_t, double>> representatives(std::vector<std::int64_t> lengths) {
  std::ranges::sort(lengths);
  const std::size_t n = std::min(kMostLengths, lengths.size());
  std::vector<std::pair<std::int64_t, double>> some;
  for (std::size_t i = 0; i < n; ++i) {
    const std::size_t last = (i + 1) * lengths.size() / n - 1;
    some.emplace_back(lengths[last], static_cast<double>(lengths.size()) / static_cast<double>(n));
  }
  return some;
}

std::vector<int> powers_up_to(int most) {
  std::vector<int> all;
  for (int n = 1; n < most; n *= 2) all.push_back(n);
  all.push_back(most);
  return all;
}

class Search {
 public:
  Search(const ModelConfig& config, const Machine& machine, const Cluster& cluster,
         const Goal& goal, const Work& work, std::uint64_t weight_bytes)
      : config_(config),
        machine_(machine),
        cluster_(cluster),
        goal_(goal),
        work_(work),
        weight_bytes_(weight_bytes),
        lengths_(representatives(work.lengths)) {}

  Choice choose(const std::string& name, std::optional<double> score) const {
    const Setting setting = Setting::parse(name);
    std::optional<Choice> best;
    for (const int group : powers_up_to(goal_.most_ranks)) {
      if (setting.name() == "dense" && group > 1) break;
      if (machine_.n_ranks == 1 && !machine_.message && group > 1) break;
      const auto [all, longest] = seconds_of_documents(setting, group);
      for (const int n_ranks : powers_up_to(goal_.most_ranks)) {
        const int n_groups = n_ranks / group;
        if (n_groups < 1 ||
            (n_groups > 1 && static_cast<std::size_t>(n_groups) > work_.lengths.size()))
          continue;
        Choice choice = of(setting, group);
        choice.setting = name;
        choice.score = score;
        choice.n_ranks = n_groups * group;
        choice.seconds = std::max(longest, all / n_groups);
        choice.meets = choice.fits && (goal_.deadline == 0 || choice.seconds <= goal_.deadline) &&
                       (goal_.min_score == 0 || score.value_or(0) >= goal_.min_score);
        if (!best || is_better(choice, *best)) best = choice;
      }
    }
    return *best;
  }

 private:
  // Of one setting: what meets the goal, then, on a deadline, in the fewest hours of ranks, else
  // what is fastest.
  bool is_better(const Choice& a, const Choice& b) const {
    if (a.meets != b.meets) return a.meets;
    if (a.fits != b.fits) return a.fits;
    if (a.meets && goal_.deadline > 0 && a.n_ranks != b.n_ranks) return a.n_ranks < b.n_ranks;
    return a.seconds < b.seconds;
  }

  // Of all documents one after another, and of the longest.
  std::pair<double, double> seconds_of_documents(const Setting& setting, int group) const {
    double all = 0, longest = 0;
    for (const auto& [n_tokens, n_documents] : lengths_) {
      const BlockPlan plan =
          BlockPlan::make(setting.plan_request(n_tokens), n_tokens, group, config_.widest_window());
      const double phase1 = simulate_phase1(config_, plan, machine_, cluster_).seconds;
      const double phase2 = simulate_answers(config_, plan, machine_, cluster_, work_.n_queries,
                                             work_.n_query_tokens, work_.n_new_tokens)
                                .seconds;
      const double seconds = phase1 * goal_.experience.phase1 + phase2 * goal_.experience.phase2;
      all += n_documents * seconds;
      longest = std::max(longest, seconds);
    }
    return {all, longest};
  }

  Choice of(const Setting& setting, int group) const {
    const std::int64_t n_tokens = lengths_.back().first;
    Choice choice;
    choice.group = group;
    choice.plan =
        BlockPlan::make(setting.plan_request(n_tokens), n_tokens, group, config_.widest_window());
    choice.sees = share_seen(choice.plan);
    const std::vector<MemoryNeed> phase1 =
        memory_needs(config_, choice.plan, AnchorMode::broadcast, weight_bytes_, machine_.dtype,
                     machine_.dtype, machine_.chunk_rows);
    const std::vector<std::uint64_t> workspaces = answer_workspaces(
        config_, choice.plan, {}, machine_.dtype, machine_.dtype, machine_.chunk_rows);
    const std::uint64_t queries =
        static_cast<std::uint64_t>(work_.n_queries) *
        query_kv_bytes(config_, work_.n_query_tokens, work_.n_new_tokens, machine_.dtype);
    choice.memory = std::max(fullest(phase1).total(),
                             weight_bytes_ + phase1[0].own_kv + workspaces[0] + queries);
    choice.fits = goal_.memory_bytes == 0 || choice.memory <= goal_.memory_bytes;
    return choice;
  }

  const ModelConfig& config_;
  const Machine& machine_;
  const Cluster& cluster_;
  const Goal& goal_;
  const Work& work_;
  std::uint64_t weight_bytes_;
  std::vector<std::pair<std::int64_t, double>> lengths_;  // and how many documents each stands for
};

// By what is known: scores where all have one.
double worth(const Choice& choice) {
  return choice.score.value_or(choice.sees);
}

}  // namespace

std::vector<Choice> choices(const ModelConfig& config, const Machine& machine,
                            const Cluster& cluster, const Goal& goal, const Work& work,
                            std::uint64_t weight_bytes) {
  const std::map<std::string, double> scores = scores_of(goal.scores);
  if (goal.min_score > 0 && scores.empty())
    fail(Exit::usage, "--min-score: needs --scores, a file that eval has written");
  std::vector<std::string> names = goal.settings.empty() ? kSettings : goal.settings;
  if (goal.settings.empty() && !scores.empty()) {
    names.clear();
    for (const auto& [name, score] : scores) names.push_back(name);
  }
  const Search search(config, machine, cluster, goal, work, weight_bytes);
  std::vector<Choice> all;
  for (const std::string& name : names) {
    const auto score = scores.find(Setting::parse(name).name());
    all.push_back(
        search.choose(name, score == scores.end() ? std::nullopt : std::optional(score->second)));
  }
  std::ranges::sort(all, {}, &Choice::seconds);
  for (Choice& choice : all) {
    choice.is_on_front = choice.fits && std::ranges::none_of(all, [&](const Choice& other) {
                           return other.fits && other.seconds <= choice.seconds &&
                                  worth(other) >= worth(choice) &&
                                  (other.seconds < choice.seconds || worth(other) > worth(choice));
                         });
  }
  return all;
}

const Choice* best(const std::vector<Choice>& all, const Goal& goal) {
  const Choice* best = nullptr;
  for (const Choice& choice : all) {
    if (!choice.meets) continue;
    const bool is_better = !best || (goal.deadline > 0 ? worth(choice) > worth(*best)
                                                       : choice.seconds < best->seconds);
    if (is_better) best = &choice;
  }
  return best;
}

std::string to_table(const std::vector<Choice>& all) {
  std::string table =
      fmt::format("{:<28}{:>7}{:>7}{:>12}{:>12}{:>12}{:>8}{:>8}\n", "setting", "ranks", "group",
                  "time", "rank hours", "memory", "sees", "score");
  for (const Choice& choice : all) {
    table +=
        fmt::format("{:<28}{:>7}{:>7}{:>12}{:>12.4g}{:>12}{:>6.1f} %{:>8}  {}{}{}\n",
                    choice.setting, choice.n_ranks, choice.group, human_seconds(choice.seconds),
                    choice.rank_hours(), human_bytes(choice.memory), 100 * choice.sees,
                    choice.score ? fmt::format("{:.1f} %", 100 * *choice.score) : "-",
                    choice.is_on_front ? "front" : "", choice.meets ? " meets" : "",
                    choice.fits ? "" : " does not fit");
  }
  return table;
}

std::string sbatch_line(const Choice& choice, int ranks_per_node) {
  const BlockPlan& plan = choice.plan;
  const int a_node =
      ranks_per_node == 0 ? choice.n_ranks : std::min(ranks_per_node, choice.n_ranks);
  // Twice the modelled time, and ten minutes to start and to load.
  const auto minutes = static_cast<std::int64_t>(std::ceil(2 * choice.seconds / 60)) + 10;
  const Setting setting = Setting::parse(choice.setting);
  std::string options;
  if (setting.is_exact()) {
    options = " --attention " + setting.name();
  } else {
    options = fmt::format(" --block-size {}", plan.block_size());
    if (plan.anchor_size() != plan.block_size())
      options += fmt::format(" --anchor-size {}", plan.anchor_size());
    if (plan.recall() > 0)
      options += fmt::format(" --recall {} --recall-rows {}", plan.recall(), plan.recall_rows());
    if (plan.reach() > 0) options += fmt::format(" --reach {}", plan.reach());
  }
  if (choice.group != choice.n_ranks)
    options += fmt::format(" --ranks-per-document {}", choice.group);
  return fmt::format(
      "sbatch --nodes={} --ntasks-per-node={} --time={:02}:{:02}:00 slurm/run.sbatch{}",
      (choice.n_ranks + a_node - 1) / a_node, a_node, minutes / 60, minutes % 60, options);
}

}  // namespace starattn
