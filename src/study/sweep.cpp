// SPDX-License-Identifier: Apache-2.0
#include "study/sweep.h"

#include "base/error.h"
#include "base/text.h"
#include "eval/setting.h"

namespace starattn {
namespace {

constexpr std::size_t kMostPoints = 10'000;

std::vector<std::int64_t> lengths_of(const SweepLists& lists, int n_ranks) {
  std::vector<std::int64_t> lengths;
  if (lists.tokens_a_rank.empty()) {
    for (const std::string& text : lists.tokens) lengths.push_back(parse_tokens(text, "--tokens"));
    return lengths;
  }
  for (const std::string& text : lists.tokens_a_rank)
    lengths.push_back(n_ranks * parse_tokens(text, "--tokens-a-rank"));
  return lengths;
}

// "star:b=n/P" on 4 ranks is "star:b=n/4".
std::string with_ranks(std::string setting, int n_ranks) {
  for (std::size_t at = setting.find("/P"); at != std::string::npos; at = setting.find("/P", at))
    setting.replace(at, 2, fmt::format("/{}", n_ranks));
  return setting;
}

// What of the plan options is not their default, in the words of --setting.
std::string name_of(const MethodOptions& options) {
  std::string parts;
  const auto add = [&](char letter, const std::string& value, const char* usual) {
    if (value != usual) parts += fmt::format(",{}={}", letter, value);
  };
  add('b', options.block_size, "auto");
  add('a', options.anchor_size, "block");
  add('r', options.reach, "0");
  add('c', options.recall, "0");
  add('q', options.recall_rows, "auto");
  return parts.empty() ? options.attention : options.attention + ":" + parts.substr(1);
}

// Every value of one list in turn, for all options made so far; `usual` alone for those whose
// attention takes no part in it.
template <typename TakesPart>
void multiply(std::vector<MethodOptions>& all, std::string MethodOptions::*member,
              const std::vector<std::string>& values, const char* usual, TakesPart takes_part) {
  std::vector<MethodOptions> more;
  for (const MethodOptions& options : all) {
    for (const std::string& value :
         takes_part(options) ? values : std::vector<std::string>{usual}) {
      if (more.size() == kMostPoints)
        fail(Exit::usage, "the lists make more than {} points", with_commas(kMostPoints));
      more.push_back(options);
      more.back().*member = value;
    }
  }
  all = std::move(more);
}

std::vector<MethodOptions> combinations(const SweepLists& lists, const MethodOptions& common) {
  std::vector<MethodOptions> all = {common};
  const auto always = [](const MethodOptions&) { return true; };
  multiply(all, &MethodOptions::attention, lists.attention, "", always);
  // A list of one attention gets what is asked of it, which plan_request() may refuse.
  const bool is_alone = lists.attention.size() == 1;
  const auto is_star = [&](const MethodOptions& one) {
    return is_alone || one.attention == "star";
  };
  const auto has_blocks = [&](const MethodOptions& one) {
    return is_alone || one.attention != "dense";
  };
  multiply(all, &MethodOptions::block_size, lists.block_size, "auto", has_blocks);
  multiply(all, &MethodOptions::anchor_size, lists.anchor_size, "block", is_star);
  multiply(all, &MethodOptions::reach, lists.reach, "0", is_star);
  multiply(all, &MethodOptions::recall, lists.recall, "0", is_star);
  const auto recalls = [&](const MethodOptions& one) {
    return is_star(one) && (one.recall != "0" || lists.recall.size() == 1);
  };
  multiply(all, &MethodOptions::recall_rows, lists.recall_rows, "auto", recalls);
  return all;
}

}  // namespace

std::vector<StudyPoint> points_of(const SweepLists& lists, const MethodOptions& common, int n_ranks,
                                  bool with_recompute, std::int64_t widest_window) {
  std::vector<StudyPoint> points;
  const auto add = [&](const std::string& name, const PlanRequest& request, std::int64_t n) {
    StudyPoint point{name, BlockPlan::make(request, n, n_ranks, widest_window)};
    if (points.size() >= kMostPoints)
      fail(Exit::usage, "the lists make more than {} points", with_commas(kMostPoints));
    points.push_back(point);
    const bool has_anchor = point.plan.reach() == 0 && point.plan.recall() == 0 &&
                            point.plan.n_blocks() > 1 && widest_window == 0;
    point.anchor = AnchorMode::recompute;
    if (has_anchor && with_recompute) points.push_back(point);
  };
  const std::vector<std::int64_t> lengths = lengths_of(lists, n_ranks);
  for (const std::string& text : lists.settings) {
    const Setting setting = Setting::parse(with_ranks(text, n_ranks));
    // One name on any number of ranks, so that a study's lines hang together.
    const std::string name = text.find("/P") == std::string::npos ? setting.name() : text;
    for (const std::int64_t n : lengths) add(name, setting.plan_request(n), n);
  }
  if (!lists.settings.empty()) return points;
  for (const MethodOptions& options : combinations(lists, common)) {
    const PlanRequest request = options.plan_request();
    for (const std::int64_t n : lengths) add(name_of(options), request, n);
  }
  return points;
}

}  // namespace starattn
