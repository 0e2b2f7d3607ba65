// SPDX-License-Identifier: Apache-2.0
#include "eval/trial.h"

#include "base/error.h"
#include "eval/scoring.h"
#include "eval/setting.h"
#include "io/answer.h"

namespace starattn {
namespace {

constexpr std::int64_t kMost = std::int64_t{1} << 40;
constexpr std::size_t kMaxLineBytes = std::size_t{1} << 26;

double seconds_of(const JsonObject& seconds, const char* key) {
  const double value = seconds.get_number(key);
  if (value < 0)
    fail(Exit::bad_data, "{}: key '{}': expected 0 or more, got {}", seconds.where(), key, value);
  return value;
}

}  // namespace

void score(Trial& trial, const TaskInfo& task, const Query& query, const std::string& question) {
  trial.score = score_answer(task, trial.answer, query.answers, question);
  if (task.family != TaskFamily::variable_tracking) return;
  trial.n_right = 0;
  for (const std::string& name : query.answers) {  // in the chain's order
    if (share_contained(trial.answer, {name}) < 1) break;
    ++trial.n_right;
  }
}

std::string to_line(const Trial& trial) {
  Json json;
  json["id"] = trial.id;
  json["query_id"] = trial.setting;  // with it the line has its place in an AnswerWriter's file
  json["setting"] = trial.setting;
  json["task"] = trial.task;
  json["length"] = trial.length;
  json["seed"] = trial.seed;
  json["score"] = trial.score;
  if (trial.n_right >= 0) json["n_right"] = trial.n_right;
  json["n_context"] = trial.n_context;
  json["n_new_tokens"] = trial.n_new_tokens;
  json["seconds"] = {{"encode", trial.encode_seconds},
                     {"answer", trial.answer_seconds},
                     {"ranks", trial.basis.n_ranks},
                     {"shared_device", trial.basis.shares_device}};
  json["answer"] = trial.answer;
  return to_line(json);
}

Trial parse_trial(std::string_view line, const std::string& where) {
  return trial_of(parse_json(line, where, {kMaxLineBytes, 8}), where);
}

Trial trial_of(const Json& json, const std::string& where) {
  const JsonObject object(json, where);
  Trial trial;
  trial.id = object.get_string("id");
  trial.setting = object.get_string("setting");
  try {
    Setting::parse(trial.setting);
  } catch (const Error& error) {
    fail(Exit::bad_data, "{}: key 'setting': {}", where, error.what());
  }
  trial.task = object.get_string("task");
  if (!find_task(trial.task))
    fail(Exit::bad_data, "{}: key 'task': expected one of {}, got '{}'", where, task_names(),
         trial.task);
  trial.length = object.get_int("length", 1, kMost);
  trial.seed = static_cast<std::uint64_t>(object.get_int("seed", 0, INT64_MAX));
  trial.score = object.get_number("score");
  if (!(trial.score >= 0 && trial.score <= 1))
    fail(Exit::bad_data, "{}: key 'score': expected 0 to 1, got {}", where, trial.score);
  if (object.has("n_right")) trial.n_right = object.get_int("n_right", 0, kMost);
  trial.n_context = object.get_int("n_context", 1, kMost);
  trial.n_new_tokens = object.get_int("n_new_tokens", 0, kMost);
  const JsonObject seconds = object.get_object("seconds");
  trial.encode_seconds = seconds_of(seconds, "encode");
  trial.answer_seconds = seconds_of(seconds, "answer");
  trial.basis.n_ranks = seconds.find_int("ranks", 0, kMost).value_or(0);
  trial.basis.shares_device = seconds.find_bool("shared_device").value_or(false);
  trial.answer = object.get_string("answer");
  return trial;
}

}  // namespace starattn
