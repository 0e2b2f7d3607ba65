// SPDX-License-Identifier: Apache-2.0
// qa5: four people hand three things around.
#include <algorithm>

#include "base/error.h"
#include "benchmark/story_worlds.h"

namespace starattn {
namespace {

constexpr std::array<std::string_view, 4> kPeople = {"Bill", "Fred", "Jeff", "Mary"};
constexpr std::array<std::string_view, 3> kGiving = {"gave", "handed", "passed"};
constexpr std::size_t kFacts = 10;
constexpr int kNone = -1;

struct Gift {
  int giver;
  int thing;
  int receiver;
};

// One way to ask about a gift: what of it the question names, and what it asks for.
struct Inquiry {
  const char* question;  // {0} giver, {1} thing, {2} receiver
  bool names_giver, names_thing, names_receiver;
  int Gift::*asked;

  bool fits(const Gift& gift, const Gift& other) const {
    return (!names_giver || gift.giver == other.giver) &&
           (!names_thing || gift.thing == other.thing) &&
           (!names_receiver || gift.receiver == other.receiver);
  }
};

constexpr Inquiry kInquiries[] = {
    {"What did {0} give to {2}?", true, false, true, &Gift::thing},
    {"Who gave the {1} to {2}?", false, true, true, &Gift::giver},
    {"Who did {0} give the {1} to?", true, true, false, &Gift::receiver},
    {"Who gave the {1}?", false, true, false, &Gift::giver},
    {"Who received the {1}?", false, true, false, &Gift::receiver}};

std::string fact(Random& random, int who, std::array<int, kThings.size()>& holders,
                 std::vector<Gift>& gifts) {
  const int what = static_cast<int>(random.below(kThings.size()));
  if (holders[what] == kNone) {
    holders[what] = who;
    return fmt::format("{} {} the {} there.", kPeople[who], random.pick(kTaking), kThings[what]);
  }
  if (holders[what] != who)
    return fmt::format("{} {} to the {}.", kPeople[who], random.pick(kGoing), random.pick(kPlaces));
  int receiver = static_cast<int>(random.below(kPeople.size() - 1));
  if (receiver >= who) ++receiver;
  holders[what] = receiver;
  gifts.push_back({who, what, receiver});
  return fmt::format("{} {} the {} to {}.", kPeople[who], random.pick(kGiving), kThings[what],
                     kPeople[receiver]);
}

}  // namespace

std::optional<Story> tell_gifts(const Random& random) {
  Random draws = random.stream("events");
  std::array<int, kThings.size()> holders;
  holders.fill(kNone);
  std::vector<Gift> gifts;
  Story story;
  while (story.facts.size() < kFacts) {
    const int who = static_cast<int>(draws.below(kPeople.size()));
    story.facts.push_back(fact(draws, who, holders, gifts));
  }
  if (gifts.empty()) return std::nullopt;

  Random question = random.stream("question");
  const Gift gift = question.pick(gifts);
  const Inquiry& inquiry = question.pick(kInquiries);
  const bool has_one_answer = std::all_of(gifts.begin(), gifts.end(), [&](const Gift& other) {
    return !inquiry.fits(gift, other) || other.*inquiry.asked == gift.*inquiry.asked;
  });
  if (!has_one_answer) return std::nullopt;
  story.question = fmt::format(fmt::runtime(inquiry.question), kPeople[gift.giver],
                               kThings[gift.thing], kPeople[gift.receiver]);
  const auto asked = gift.*inquiry.asked;
  story.answer = inquiry.asked == &Gift::thing ? kThings[asked] : kPeople[asked];
  return story;
}

}  // namespace starattn
