// SPDX-License-Identifier: Apache-2.0
// Hiding lines among other lines.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/random.h"

namespace starattn {

// RULER's noise, one unit of it.
constexpr std::string_view kNoise =
    "The grass is green. The sky is blue. The sun is yellow. Here we go. There and back again.";

// Places before, between and after n_lines lines (0 .. n_lines), ascending, for n_items items.
// Anywhere; two items may meet.
std::vector<std::int64_t> random_places(Random random, std::int64_t n_lines, std::int64_t n_items);
// At n_items different ones of 40 depths spread evenly over 0 .. 100 %. n_items <= 40.
std::vector<std::int64_t> depth_places(Random random, std::int64_t n_lines, std::int64_t n_items);

// All lines with item i at places[i], joined. places: ascending, as many as items.
std::string hide_lines(const std::vector<std::string>& lines, const std::vector<std::string>& items,
                       const std::vector<std::int64_t>& places, std::string_view separator);

}  // namespace starattn
