// SPDX-License-Identifier: Apache-2.0
#include "benchmark/story.h"

#include "base/error.h"
#include "benchmark/story_worlds.h"

namespace starattn {
namespace {

constexpr std::string_view kGiftLabels[] = {"Bill",  "Fred",     "Jeff", "Mary",
                                            "apple", "football", "milk"};

// What lies where: two facts in a row with one place in common, in any order.
Story tell_directions(Random random) {
  static constexpr std::string_view kDirections[] = {"north", "south", "east", "west"};
  const auto chosen = random.sample(static_cast<std::int64_t>(kPlaces.size()), 3);
  const std::string_view first = kPlaces[chosen[0]];
  const std::string_view middle = kPlaces[chosen[1]];
  const std::string_view last = kPlaces[chosen[2]];
  const std::string_view direction = random.pick(kDirections);
  Story story;
  story.facts = {fmt::format("The {} is {} of the {}.", first, direction, middle),
                 fmt::format("The {} is {} of the {}.", middle, direction, last)};
  random.shuffle(story.facts);
  const bool asks_first = random.below(2) == 0;
  story.question = asks_first ? fmt::format("What is {} of the {}?", direction, middle)
                              : fmt::format("What is the {} {} of?", middle, direction);
  story.answer = asks_first ? first : last;
  return story;
}

}  // namespace

std::span<const std::string_view> story_labels(std::string_view task) {
  if (task == "qa5") return kGiftLabels;
  return kPlaces;
}

Story tell_story(std::string_view task, const Random& random) {
  if (task == "qa4") return tell_directions(random);
  // A story whose end leaves nothing to ask in one way only is told again with other draws.
  for (std::uint64_t attempt = 0;; ++attempt) {
    STARATTN_CHECK(attempt < 10000);
    const Random draws = random.stream(attempt);
    const auto story = task == "qa5" ? tell_gifts(draws) : tell_moves(task, draws);
    if (story) return *story;
  }
}

}  // namespace starattn
