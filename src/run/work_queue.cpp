// SPDX-License-Identifier: Apache-2.0
#include "run/work_queue.h"

#include <thread>

#include "base/json.h"

namespace starattn {
namespace {

constexpr int kToServer = 201;  // requests and results, in the order they were sent
constexpr int kToLeader = 202;  // a job, or nothing

// A line of JSON, and behind it the document's own line as it is: that one may be long.
std::string to_text(const std::optional<Job>& job) {
  if (!job) return "";
  return to_line({{"seq", job->seq}, {"line", job->line}, {"todo", job->todo}}) + "\n" + job->text;
}

std::optional<Job> to_job(const std::string& text) {
  if (text.empty()) return std::nullopt;
  const std::size_t head_bytes = text.find('\n');
  const Json json = parse_json(std::string_view(text).substr(0, head_bytes), "job message");
  Job job;
  job.seq = json.at("seq").get<std::int64_t>();
  job.line = json.at("line").get<std::int64_t>();
  job.todo = json.at("todo").get<std::vector<std::int64_t>>();
  job.text = text.substr(head_bytes + 1);
  return job;
}

}  // namespace

WorkQueue::WorkQueue(const Communicator& world, bool is_leader, int n_groups, JobSource source)
    : world_(&world), is_leader_(is_leader), n_waiting_(n_groups - 1), source_(std::move(source)) {}

std::optional<Job> WorkQueue::next(bool is_asked_to_stop) {
  STARATTN_CHECK(is_leader_);
  if (serves()) {
    poll();
    std::optional<Job> job = source_.next(is_asked_to_stop);
    if (job && job->document) job->text.clear();
    return job;
  }
  report(to_line({{"request", is_asked_to_stop}}));
  return to_job(world_->receive(0, kToLeader).bytes);
}

void WorkQueue::answered(const AnswerLine& answer) {
  if (serves()) return source_.answered(answer);
  Json json = {{"seq", answer.seq},
               {"query", answer.query},
               {"line", answer.line},
               {"digest", answer.digest}};
  if (answer.score) json["score"] = *answer.score;
  report(to_line(json));
}

void WorkQueue::failed(std::int64_t seq, const std::string& error) {
  if (serves()) return source_.failed(seq, error);
  report(to_line({{"seq", seq}, {"error", error}}));
}

void WorkQueue::stopped(const std::string& saved) {
  if (serves()) return source_.stopped(saved);
  report(to_line({{"stopped", saved}}));
}

void WorkQueue::broken(const Error& error) {
  if (serves()) return source_.broken(error);
  report(to_line({{"broken", error.what()}, {"exit", static_cast<int>(error.exit())}}));
}

void WorkQueue::report(const std::string& text) {
  world_->send_message(text, 0, kToServer);
}

void WorkQueue::poll() {
  if (!serves() || n_waiting_ == 0) return;
  Communicator::Message message;
  while (world_->try_receive(message, kToServer)) serve(message);
}

void WorkQueue::serve(const Communicator::Message& message) {
  const Json json = parse_json(message.bytes, "message from a group");
  if (json.contains("request")) {
    const std::optional<Job> job = source_.next(json["request"].get<bool>());
    if (!job) --n_waiting_;
    world_->send_message(to_text(job), message.from, kToLeader);
  } else if (json.contains("broken")) {
    --n_waiting_;
    source_.broken({static_cast<Exit>(json["exit"].get<int>()), json["broken"].get<std::string>()});
  } else if (json.contains("error")) {
    source_.failed(json["seq"].get<std::int64_t>(), json["error"].get<std::string>());
  } else if (json.contains("stopped")) {
    source_.stopped(json["stopped"].get<std::string>());
  } else {
    AnswerLine answer;
    answer.seq = json["seq"].get<std::int64_t>();
    answer.query = json["query"].get<std::int64_t>();
    answer.line = json["line"].get<std::string>();
    answer.digest = json["digest"].get<std::uint64_t>();
    if (json.contains("score")) answer.score = json["score"].get<double>();
    source_.answered(answer);
  }
}

void WorkQueue::finish() {
  while (serves() && n_waiting_ > 0) {
    poll();
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
}

}  // namespace starattn
