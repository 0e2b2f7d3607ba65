// SPDX-License-Identifier: Apache-2.0
#include "eval/trial.h"

#include <gtest/gtest.h>

#include "base/error.h"

namespace starattn {
namespace {

Trial trial() {
  return {.id = "vt-1024-3",
          .setting = "star:b=n/4",
          .task = "vt",
          .length = 1024,
          .seed = 7,
          .score = 0.8,
          .n_right = 2,
          .n_context = 990,
          .n_new_tokens = 30,
          .encode_seconds = 0.25,
          .answer_seconds = 0.125,
          .basis = {3, true},
          .answer = " A B \"\n"};
}

TEST(Trial, ALineSaysAllOfIt) {
  const Trial before = trial();
  const Trial after = parse_trial(to_line(before), "out:1");
  EXPECT_EQ(to_line(after), to_line(before));
  EXPECT_EQ(after.n_right, 2);
  EXPECT_EQ(after.seed, 7U);
  EXPECT_EQ(after.answer, before.answer);
  EXPECT_EQ(after.answer_seconds, 0.125);
}

TEST(Trial, BadLinesAreNamed) {
  const auto refused = [](const char* key, const Json& value) {
    Json json = parse_json(to_line(trial()), "line");
    json[key] = value;
    try {
      parse_trial(to_line(json), "out:9");
      ADD_FAILURE() << key << " was accepted";
    } catch (const Error& error) {
      EXPECT_EQ(error.exit(), Exit::bad_data);
      EXPECT_EQ(std::string(error.what()).find("out:9"), 0U) << error.what();
      EXPECT_NE(std::string(error.what()).find(key), std::string::npos) << error.what();
    }
  };
  refused("task", "nope");
  refused("setting", "star:b=0");
  refused("setting", 3);
  refused("score", 1.5);
  refused("score", nullptr);
  refused("length", 0);
  refused("seed", -1);
  refused("n_right", -2);
  refused("n_context", "many");
  refused("seconds", Json{{"encode", -1.0}, {"answer", 1.0}});
  EXPECT_THROW(parse_trial("{\"id\": \"a\"", "out:9"), Error);
}

TEST(Trial, AChainIsRightUpToItsFirstMiss) {
  Query query;
  query.answers = {"AAA", "BBB", "CCC", "DDD", "EEE"};
  const auto scored = [&](const char* task, const char* answer) {
    Trial trial;
    trial.answer = answer;
    score(trial, *find_task(task), query, "");
    return trial;
  };
  EXPECT_EQ(scored("vt", "EEE AAA bbb DDD").n_right, 2);
  EXPECT_DOUBLE_EQ(scored("vt", "EEE AAA bbb DDD").score, 0.8);
  EXPECT_EQ(scored("vt", "BBB CCC").n_right, 0);
  EXPECT_EQ(scored("vt", "AAA BBB CCC DDD EEE").n_right, 5);
  EXPECT_EQ(scored("niah_multivalue", "AAA BBB").n_right, -1);
}

}  // namespace
}  // namespace starattn
