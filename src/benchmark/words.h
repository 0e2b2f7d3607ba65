// SPDX-License-Identifier: Apache-2.0
// Our own word lists, and words in any number: the material of keys, word lists and prose.
// No word is in two lists; none is a label of the people-and-places tasks.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/random.h"

namespace starattn {

std::span<const std::string_view> adjectives();
std::span<const std::string_view> nouns();
std::span<const std::string_view> verbs();  // transitive, past tense

std::string adjective_noun(Random& random);  // "quiet-harbor"

// n different words in random order: plain ones while they last, then "quiet-harbor", then
// "quiet-golden-harbor". Throws Error(usage) beyond the millions of these.
std::vector<std::string> different_words(Random random, std::int64_t n);

}  // namespace starattn
