// SPDX-License-Identifier: Apache-2.0
// Needles in a haystack: keys with values somewhere in the text, some of which are asked for.
#include <unordered_set>

#include "base/error.h"
#include "benchmark/hidden_lines.h"
#include "benchmark/sample.h"
#include "benchmark/words.h"

namespace starattn {
namespace {

enum class Kind : std::uint8_t { word, number, uuid };
enum class Hay : std::uint8_t { noise, prose, needles };

struct NeedleTask {
  std::string_view name;
  Kind key;
  Kind value;
  int n_keys;
  int n_values;  // for each key
  int n_asked;   // keys
  Hay hay;

  bool has_one_answer() const { return n_asked * n_values == 1; }
};

constexpr NeedleTask kNeedleTasks[] = {
    {"niah_single_1", Kind::word, Kind::number, 1, 1, 1, Hay::noise},
    {"niah_single_2", Kind::word, Kind::number, 1, 1, 1, Hay::prose},
    {"niah_single_3", Kind::word, Kind::uuid, 1, 1, 1, Hay::prose},
    {"niah_multikey_1", Kind::word, Kind::number, 4, 1, 1, Hay::prose},
    {"niah_multikey_2", Kind::word, Kind::number, 1, 1, 1, Hay::needles},
    {"niah_multikey_3", Kind::uuid, Kind::uuid, 1, 1, 1, Hay::needles},
    {"niah_multivalue", Kind::word, Kind::number, 1, 4, 1, Hay::prose},
    {"niah_multiquery", Kind::word, Kind::number, 4, 1, 4, Hay::prose}};

std::string_view plural(Kind kind) {
  return kind == Kind::uuid ? "uuids" : "numbers";
}

std::string uuid(Random& random) {  // version 4
  const std::uint64_t high = (random.bits() & ~0xf000ULL) | 0x4000ULL;
  const std::uint64_t low = (random.bits() & ~(3ULL << 62)) | (2ULL << 62);
  return fmt::format("{:08x}-{:04x}-{:04x}-{:04x}-{:012x}", high >> 32, (high >> 16) & 0xffff,
                     high & 0xffff, low >> 48, low & 0xffffffffffffULL);
}

std::string made(Kind kind, Random& random) {
  switch (kind) {
    case Kind::word:
      return adjective_noun(random);
    case Kind::number:
      return std::to_string(random.between(1'000'000, 9'999'999));
    case Kind::uuid:
      return uuid(random);
  }
  return {};
}

std::string needle(const NeedleTask& task, const std::string& key, const std::string& value) {
  return fmt::format("One of the special magic {} for {} is: {}.", plural(task.value), key, value);
}

// What is hidden: everything in it is different from everything else.
struct Hidden {
  std::vector<std::string> keys;
  std::vector<std::vector<std::string>> values;  // [keys][n_values]
  std::unordered_set<std::string> taken;

  std::string fresh(Kind kind, Random& random) const {
    for (;;) {
      std::string text = made(kind, random);
      if (!taken.contains(text)) return text;
    }
  }
};

Hidden hide(const NeedleTask& task, Random random) {
  Hidden hidden;
  const auto take = [&](Kind kind) {
    return *hidden.taken.insert(hidden.fresh(kind, random)).first;
  };
  for (int k = 0; k < task.n_keys; ++k) {
    hidden.keys.push_back(take(task.key));
    hidden.values.emplace_back();
    for (int v = 0; v < task.n_values; ++v) hidden.values.back().push_back(take(task.value));
  }
  return hidden;
}

// Never names a hidden key or value, so that each question has its one answer.
std::vector<std::string> hay_lines(const NeedleTask& task, const Hidden& hidden,
                                   const Haystack& haystack, const Random& random, std::int64_t n) {
  if (task.hay == Hay::prose) return haystack.sentences(random, n);
  if (task.hay == Hay::noise) return std::vector<std::string>(n, std::string(kNoise));
  std::vector<std::string> lines;
  for (std::int64_t i = 0; i < n; ++i) {
    Random draws = random.stream(static_cast<std::uint64_t>(i));
    const std::string key = hidden.fresh(task.key, draws);
    lines.push_back(needle(task, key, hidden.fresh(task.value, draws)));
  }
  return lines;
}

std::string listed(const std::vector<std::string>& words) {
  if (words.size() == 1) return words.front();
  std::string text;
  for (std::size_t i = 0; i + 1 < words.size(); ++i) text += words[i] + ", ";
  return text + "and " + words.back();
}

void put_words(const NeedleTask& task, const std::string& text, const std::string& asked,
               Sample& sample) {
  const std::string_view types = plural(task.value);
  if (task.has_one_answer()) {
    const std::string_view type = types.substr(0, types.size() - 1);
    sample.context = fmt::format(
        "A special magic {0} is hidden within the following text. Make sure to memorize it. I will "
        "quiz you about the {0} afterwards.\n{1}\n",
        type, text);
    sample.question = fmt::format(
        "What is the special magic {} for {} mentioned in the provided text?", type, asked);
    sample.answer_prefix =
        fmt::format(" The special magic {} for {} mentioned in the provided text is", type, asked);
    return;
  }
  sample.context = fmt::format(
      "Some special magic {0} are hidden within the following text. Make sure to memorize it. I "
      "will quiz you about the {0} afterwards.\n{1}\n",
      types, text);
  sample.question = fmt::format(
      "What are all the special magic {} for {} mentioned in the provided text?", types, asked);
  sample.answer_prefix =
      fmt::format(" The special magic {} for {} mentioned in the provided text are", types, asked);
}

Sample make(const NeedleTask& task, const Haystack& haystack, const Random& random,
            std::int64_t n_units) {
  const Hidden hidden = hide(task, random.stream("hidden"));
  std::vector<std::string> needles;
  for (std::size_t k = 0; k < hidden.keys.size(); ++k)
    for (const std::string& value : hidden.values[k])
      needles.push_back(needle(task, hidden.keys[k], value));
  Random order = random.stream("order");
  order.shuffle(needles);

  Sample sample;
  std::vector<std::string> asked;
  for (const std::int64_t k : order.sample(task.n_keys, task.n_asked)) {
    asked.push_back(hidden.keys[k]);
    sample.answers.insert(sample.answers.end(), hidden.values[k].begin(), hidden.values[k].end());
  }
  const auto lines = hay_lines(task, hidden, haystack, random.stream("hay"), n_units);
  const auto places =
      depth_places(random.stream("places"), n_units, static_cast<std::int64_t>(needles.size()));
  const std::string_view separator = task.hay == Hay::prose ? " " : "\n";
  put_words(task, hide_lines(lines, needles, places, separator), listed(asked), sample);
  return sample;
}

}  // namespace

SampleMaker needle_maker(const TaskInfo& info, const Materials& materials) {
  const NeedleTask* task = nullptr;
  for (const NeedleTask& candidate : kNeedleTasks)
    if (candidate.name == info.name) task = &candidate;
  STARATTN_CHECK(task != nullptr);
  SampleMaker maker;
  maker.text = task->hay == Hay::prose   ? materials.haystack.description()
               : task->hay == Hay::noise ? "repeated noise"
                                         : "other needles";
  maker.make = [task, &materials](const Random& random, std::int64_t, std::int64_t n_units) {
    return make(*task, materials.haystack, random, n_units);
  };
  return maker;
}

}  // namespace starattn
