// SPDX-License-Identifier: Apache-2.0
// Variable tracking: one chain of assignments among noise, after one solved example.
#include <set>

#include "base/error.h"
#include "benchmark/hidden_lines.h"
#include "benchmark/sample.h"

namespace starattn {
namespace {

constexpr std::int64_t kVariables = 5;  // four hops
constexpr std::int64_t kExampleUnits = 5;

struct Chain {
  std::string value;
  std::vector<std::string> names;

  std::vector<std::string> lines() const {
    std::vector<std::string> all = {fmt::format("VAR {} = {}", names[0], value)};
    for (std::size_t i = 1; i < names.size(); ++i)
      all.push_back(fmt::format("VAR {} = VAR {} ", names[i], names[i - 1]));
    return all;
  }
};

// Two chains that share neither name nor value: the example's and the question's.
std::pair<Chain, Chain> two_chains(Random random) {
  std::vector<std::string> names;
  for (std::set<std::string> taken; names.size() < 2 * kVariables;) {
    std::string name;
    for (int i = 0; i < 5; ++i) name += static_cast<char>('A' + random.below(26));
    if (taken.insert(name).second) names.push_back(name);
  }
  const std::int64_t first = random.between(10000, 99999);
  std::int64_t second = random.between(10000, 99998);
  if (second >= first) ++second;
  return {{std::to_string(first), {names.begin(), names.begin() + kVariables}},
          {std::to_string(second), {names.begin() + kVariables, names.end()}}};
}

Sample posed(const Chain& chain, const Random& random, std::int64_t n_units) {
  const std::vector<std::string> noise(n_units, std::string(kNoise));
  const std::string text =
      hide_lines(noise, chain.lines(), random_places(random, n_units, kVariables), "\n");
  return {fmt::format("Memorize and track the chain(s) of variable assignment hidden in the "
                      "following text.\n\n{}\n",
                      text),
          fmt::format("Question: Find all variables that are assigned the value {} in the text "
                      "above.",
                      chain.value),
          fmt::format(" Answer: According to the chain(s) of variable assignment in the text "
                      "above, {} variables are assigned the value {}, they are: ",
                      kVariables, chain.value),
          chain.names};
}

}  // namespace

SampleMaker variable_tracking_maker() {
  SampleMaker maker;
  maker.text = "repeated noise";
  maker.make = [](const Random& random, std::int64_t, std::int64_t n_units) {
    const auto [solved, asked] = two_chains(random.stream("chains"));
    const Sample example = posed(solved, random.stream("example"), kExampleUnits);
    Sample sample = posed(asked, random.stream("places"), n_units);
    sample.context =
        fmt::format("{}{}{}{}\n\n{}", example.context, example.question, example.answer_prefix,
                    fmt::join(solved.names, " "), sample.context);
    return sample;
  };
  return maker;
}

}  // namespace starattn
