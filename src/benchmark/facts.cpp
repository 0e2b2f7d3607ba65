// SPDX-License-Identifier: Apache-2.0
// The facts of a small story, in order, among sentences that have nothing to do with it.
#include "base/error.h"
#include "benchmark/hidden_lines.h"
#include "benchmark/sample.h"
#include "benchmark/story.h"

namespace starattn {
namespace {

std::string_view subject(std::string_view task) {
  if (task == "qa1") return "positions of different persons";
  if (task == "qa4") return "positions of different places";
  if (task == "qa5") return "things that persons take and give";
  return "positions of different persons and the things they carry";
}

}  // namespace

SampleMaker facts_maker(const TaskInfo& task, const Materials& materials) {
  SampleMaker maker;
  maker.text = materials.haystack.description();
  maker.make = [name = task.name, &haystack = materials.haystack](
                   const Random& random, std::int64_t, std::int64_t n_units) {
    const Story story = tell_story(name, random.stream("story"));
    const auto places = random_places(random.stream("places"), n_units,
                                      static_cast<std::int64_t>(story.facts.size()));
    return Sample{
        fmt::format("I will give you context with the facts about {} hidden in some random text "
                    "and a question.\n{}",
                    subject(name),
                    hide_lines(haystack.sentences(random.stream("hay"), n_units), story.facts,
                               places, " ")),
        "\n" + story.question,
        " Answer:",
        {story.answer}};
  };
  return maker;
}

}  // namespace starattn
