// SPDX-License-Identifier: Apache-2.0
// Reads stories back from their sentences, with a world of its own, and answers their questions.
#include "benchmark/story.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <regex>
#include <set>

#include "benchmark/sample.h"

namespace starattn {
namespace {

// What a reader knows: who is where, who holds what, where each thing has been, who gave what.
struct Reader {
  std::map<std::string, std::string> place_of;
  std::map<std::string, std::string> holder_of;
  std::map<std::string, std::vector<std::string>> path_of;
  std::vector<std::array<std::string, 3>> gifts;  // giver, thing, receiver
  std::map<std::string, std::set<std::string>> relations;

  void read(const std::string& fact) {
    static const std::regex kGo("(\\w+) (?:moved|went|travelled|journeyed) to the (\\w+)\\.");
    static const std::regex kTake("(\\w+) (?:took|picked up|grabbed) the (\\w+) there\\.");
    static const std::regex kDrop("(\\w+) (?:dropped|put down|left) the (\\w+) there\\.");
    static const std::regex kGive("(\\w+) (?:gave|handed|passed) the (\\w+) to (\\w+)\\.");
    static const std::regex kLies("The (\\w+) is (\\w+) of the (\\w+)\\.");
    std::smatch m;
    if (std::regex_match(fact, m, kGo)) {
      place_of[m[1]] = m[2];
      for (const auto& [thing, holder] : holder_of)
        if (holder == m[1]) arrive(thing, m[2]);
    } else if (std::regex_match(fact, m, kTake)) {
      EXPECT_EQ(holder_of[m[2]], "") << fact;
      const auto& path = path_of[m[2]];
      EXPECT_TRUE(path.empty() || path.back() == place_of[m[1]] || place_of[m[1]].empty()) << fact;
      holder_of[m[2]] = m[1];
      arrive(m[2], place_of[m[1]]);
    } else if (std::regex_match(fact, m, kDrop)) {
      EXPECT_EQ(holder_of[m[2]], m[1]) << fact;
      holder_of[m[2]] = "";
    } else if (std::regex_match(fact, m, kGive)) {
      EXPECT_EQ(holder_of[m[2]], m[1]) << fact;
      holder_of[m[2]] = m[3];
      gifts.push_back({m[1], m[2], m[3]});
    } else if (std::regex_match(fact, m, kLies)) {
      relations["What is " + m[2].str() + " of the " + m[3].str() + "?"].insert(m[1]);
      relations["What is the " + m[1].str() + " " + m[2].str() + " of?"].insert(m[3]);
    } else {
      ADD_FAILURE() << "cannot read: " << fact;
    }
  }

  void arrive(const std::string& thing, const std::string& place) {
    auto& path = path_of[thing];
    if (!place.empty() && (path.empty() || path.back() != place)) path.push_back(place);
  }

  // Every answer that the facts allow.
  std::set<std::string> answers(const std::string& question) const {
    std::smatch m;
    if (std::regex_match(question, m, std::regex("Where is ([A-Z]\\w+)\\?")))
      return {place_of.at(m[1])};
    if (std::regex_match(question, m, std::regex("Where is the (\\w+)\\?")))
      return {path_of.at(m[1]).back()};
    if (std::regex_match(question, m, std::regex("Where was the (\\w+) before the (\\w+)\\?"))) {
      std::set<std::string> found;
      const auto& path = path_of.at(m[1]);
      for (std::size_t i = 1; i < path.size(); ++i)
        if (path[i] == m[2]) found.insert(path[i - 1]);
      return found;
    }
    static const std::pair<const char*, std::array<int, 3>> kWays[] = {
        // the question's words in order, then what is asked
        {"What did (\\w+) give to (\\w+)\\?", {0, 2, 1}},
        {"Who gave the (\\w+) to (\\w+)\\?", {1, 2, 0}},
        {"Who did (\\w+) give the (\\w+) to\\?", {0, 1, 2}},
        {"Who gave the (\\w+)\\?", {1, -1, 0}},
        {"Who received the (\\w+)\\?", {1, -1, 2}}};
    for (const auto& [pattern, part] : kWays) {
      if (!std::regex_match(question, m, std::regex(pattern))) continue;
      std::set<std::string> found;
      for (const auto& gift : gifts)
        if (gift[part[0]] == m[1] && (part[1] < 0 || gift[part[1]] == m[2]))
          found.insert(gift[part[2]]);
      return found;
    }
    const auto relation = relations.find(question);
    return relation == relations.end() ? std::set<std::string>{} : relation->second;
  }
};

TEST(Story, HasOneAnswerThatItsFactsGive) {
  for (const char* task : {"qa1", "qa2", "qa3", "qa4", "qa5"}) {
    std::map<std::string, int> n_answers;
    for (std::uint64_t key = 0; key < 500; ++key) {
      const Story story = tell_story(task, Random(key));
      Reader reader;
      for (const std::string& fact : story.facts) reader.read(fact);
      EXPECT_EQ(reader.answers(story.question), std::set<std::string>{story.answer})
          << task << ": " << story.question;
      EXPECT_EQ(story.question.find(story.answer), std::string::npos) << story.question;
      ++n_answers[story.answer];
    }
    // Every label is an answer now and then, none nearly always.
    EXPECT_EQ(n_answers.size(), story_labels(task).size()) << task;
    for (const auto& [answer, n] : n_answers) EXPECT_LT(n, 200) << task << ": " << answer;
  }
}

TEST(Facts, StandInTheTextInOrder) {
  const Materials materials;
  for (const char* task : {"qa1", "qa3", "qa5"}) {
    const SampleMaker maker = facts_maker(*find_task(task), materials);
    for (const std::int64_t n_units : {1, 40}) {
      const Random random(17);
      const Sample sample = maker.make(random, 0, n_units);
      const Story story = tell_story(task, random.stream("story"));
      std::size_t at = 0;
      for (const std::string& fact : story.facts) {
        at = sample.context.find(fact, at);
        ASSERT_NE(at, std::string::npos) << fact;
      }
      EXPECT_EQ(sample.question, "\n" + story.question);
      EXPECT_EQ(sample.answers, std::vector<std::string>{story.answer});
    }
  }
}

}  // namespace
}  // namespace starattn
