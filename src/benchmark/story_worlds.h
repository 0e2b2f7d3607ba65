// SPDX-License-Identifier: Apache-2.0
// The two worlds of people: who went where with what (qa1 to qa3), who gave what to whom (qa5).
#pragma once

#include <array>
#include <optional>
#include <string_view>

#include "benchmark/story.h"

namespace starattn {

inline constexpr std::array<std::string_view, 6> kPlaces = {"bathroom", "bedroom", "garden",
                                                            "hallway",  "kitchen", "office"};
inline constexpr std::array<std::string_view, 3> kThings = {"apple", "football", "milk"};
inline constexpr std::array<std::string_view, 4> kGoing = {"moved", "went", "travelled",
                                                           "journeyed"};
inline constexpr std::array<std::string_view, 3> kTaking = {"took", "picked up", "grabbed"};

// Nothing when the story's end has no question with one answer.
std::optional<Story> tell_moves(std::string_view task, const Random& random);  // qa1, qa2, qa3
std::optional<Story> tell_gifts(const Random& random);                         // qa5

}  // namespace starattn
