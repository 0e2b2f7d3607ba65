// SPDX-License-Identifier: Apache-2.0
// qa1 to qa3: people walk through six places and carry three things about.
#include <algorithm>

#include "base/error.h"
#include "benchmark/story_worlds.h"

namespace starattn {
namespace {

constexpr std::array<std::string_view, 4> kPeople = {"Mary", "John", "Daniel", "Sandra"};
constexpr std::array<std::string_view, 3> kDropping = {"dropped", "put down", "left"};
constexpr int kNone = -1;

struct Person {
  int place = kNone;  // kNone until the story says it
};

struct Thing {
  int holder = kNone;
  std::vector<int> places;  // where it has been, neighbours different; the last is where it is

  bool is_known() const { return !places.empty(); }
  void arrive(int place) {
    if (places.empty() || places.back() != place) places.push_back(place);
  }
};

struct World {
  std::array<Person, kPeople.size()> people;
  std::array<Thing, kThings.size()> things;
  Random random;
  std::vector<std::string> facts;

  void go(int who) {
    int place = static_cast<int>(random.below(kPlaces.size()));
    while (place == people[who].place) place = static_cast<int>(random.below(kPlaces.size()));
    people[who].place = place;
    for (Thing& thing : things)
      if (thing.holder == who) thing.arrive(place);
    facts.push_back(
        fmt::format("{} {} to the {}.", kPeople[who], random.pick(kGoing), kPlaces[place]));
  }

  // Takes what lies there or was nowhere yet, drops what is in hand; false when neither is there.
  bool handle(int who) {
    const int what = static_cast<int>(random.below(kThings.size()));
    Thing& thing = things[what];
    const int here = people[who].place;
    if (thing.holder == who) {
      thing.holder = kNone;
      facts.push_back(
          fmt::format("{} {} the {} there.", kPeople[who], random.pick(kDropping), kThings[what]));
      return true;
    }
    if (thing.holder != kNone || (thing.is_known() && thing.places.back() != here)) return false;
    thing.holder = who;
    thing.arrive(here);
    facts.push_back(
        fmt::format("{} {} the {} there.", kPeople[who], random.pick(kTaking), kThings[what]));
    return true;
  }

  void happen(bool with_things) {
    const int who = static_cast<int>(random.below(kPeople.size()));
    const bool tries = with_things && people[who].place != kNone && random.below(2) == 0;
    if (!tries || !handle(who)) go(who);
  }
};

std::optional<Story> asked_about_person(const World& world, Random random) {
  std::vector<int> known;
  for (int who = 0; who < static_cast<int>(kPeople.size()); ++who)
    if (world.people[who].place != kNone) known.push_back(who);
  if (known.empty()) return std::nullopt;
  const int who = random.pick(known);
  return Story{world.facts, fmt::format("Where is {}?", kPeople[who]),
               std::string(kPlaces[world.people[who].place])};
}

// qa2 asks for the place of a thing; qa3 for the place before it, where it has been there once.
std::optional<Story> asked_about_thing(const World& world, bool asks_before, Random random) {
  std::vector<int> good;
  for (int what = 0; what < static_cast<int>(kThings.size()); ++what) {
    const std::vector<int>& places = world.things[what].places;
    const bool is_good =
        asks_before
            ? places.size() >= 2 && std::count(places.begin(), places.end(), places.back()) == 1
            : !places.empty();
    if (is_good) good.push_back(what);
  }
  if (good.empty()) return std::nullopt;
  const int what = random.pick(good);
  const std::vector<int>& places = world.things[what].places;
  if (!asks_before)
    return Story{world.facts, fmt::format("Where is the {}?", kThings[what]),
                 std::string(kPlaces[places.back()])};
  return Story{
      world.facts,
      fmt::format("Where was the {} before the {}?", kThings[what], kPlaces[places.back()]),
      std::string(kPlaces[places[places.size() - 2]])};
}

}  // namespace

std::optional<Story> tell_moves(std::string_view task, const Random& random) {
  const std::size_t n_facts = task == "qa1" ? 8 : task == "qa2" ? 14 : 20;
  World world{{}, {}, random.stream("events"), {}};
  while (world.facts.size() < n_facts) world.happen(task != "qa1");
  const Random question = random.stream("question");
  if (task == "qa1") return asked_about_person(world, question);
  return asked_about_thing(world, task == "qa3", question);
}

}  // namespace starattn
