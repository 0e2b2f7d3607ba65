// SPDX-License-Identifier: Apache-2.0
// Small worlds, simulated: people move, take, drop and give; places lie beside places. Each story
// is a list of facts and a question that they answer in one way only.
#pragma once

#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/random.h"

namespace starattn {

struct Story {
  std::vector<std::string> facts;  // in order: later ones overrule earlier ones
  std::string question;            // "Where is Mary?"
  std::string answer;              // one of the labels, never one that the question names
};

// task: "qa1" one supporting fact, "qa2" two, "qa3" three, "qa4" how two places lie, "qa5" who gave
// what to whom.
Story tell_story(std::string_view task, const Random& random);

// What an answer can be.
std::span<const std::string_view> story_labels(std::string_view task);

}  // namespace starattn
