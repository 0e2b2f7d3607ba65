// SPDX-License-Identifier: Apache-2.0
#include "command/work_queue.h"

#include <thread>

#include "base/json.h"

namespace starattn {
namespace {

constexpr int kToServer = 201;  // requests and results, in the order they were sent
constexpr int kToLeader = 202;  // a job, or nothing

std::string to_text(const std::optional<Job>& job) {
  if (!job) return "";
  return to_line(
      {{"seq", job->seq}, {"line", job->line}, {"text", job->text}, {"todo", job->todo}});
}

std::optional<Job> to_job(const std::string& text) {
  if (text.empty()) return std::nullopt;
  const Json json = parse_json(text, "job message");
  Job job;
  job.seq = json.at("seq").get<std::int64_t>();
  job.line = json.at("line").get<std::int64_t>();
  job.text = json.at("text").get<std::string>();
  job.todo = json.at("todo").get<std::vector<std::int64_t>>();
  return job;
}

std::span<const std::byte> bytes_of(const std::string& text) {
  return std::as_bytes(std::span(text));
}

}  // namespace

WorkQueue::WorkQueue(const Communicator& world, bool is_leader, int n_groups, JobSource source)
    : world_(&world), is_leader_(is_leader), n_waiting_(n_groups - 1), source_(std::move(source)) {}

std::optional<Job> WorkQueue::next() {
  STARATTN_CHECK(is_leader_);
  if (serves()) {
    poll();
    return source_.next();
  }
  report(R"({"request": true})");
  return to_job(world_->receive(0, kToLeader).bytes);
}

void WorkQueue::answered(std::int64_t seq, std::int64_t query, const std::string& line) {
  if (serves()) return source_.answered(seq, query, line);
  report(to_line({{"seq", seq}, {"query", query}, {"line", line}}));
}

void WorkQueue::failed(std::int64_t seq, const std::string& error) {
  if (serves()) return source_.failed(seq, error);
  report(to_line({{"seq", seq}, {"error", error}}));
}

void WorkQueue::stopped(std::int64_t seq, const std::string& saved) {
  if (serves()) return source_.stopped(seq, saved);
  report(to_line({{"seq", seq}, {"stopped", saved}}));
}

void WorkQueue::report(const std::string& text) {
  world_->send(bytes_of(text), 0, kToServer);
}

void WorkQueue::poll() {
  if (!serves() || n_waiting_ == 0) return;
  Communicator::Message message;
  while (world_->try_receive(message, kToServer)) serve(message);
}

void WorkQueue::serve(const Communicator::Message& message) {
  const Json json = parse_json(message.bytes, "message from a group");
  if (json.contains("request")) {
    const std::optional<Job> job = source_.next();
    if (!job) --n_waiting_;
    world_->send(bytes_of(to_text(job)), message.from, kToLeader);
  } else if (json.contains("error")) {
    source_.failed(json["seq"].get<std::int64_t>(), json["error"].get<std::string>());
  } else if (json.contains("stopped")) {
    source_.stopped(json["seq"].get<std::int64_t>(), json["stopped"].get<std::string>());
  } else {
    source_.answered(json["seq"].get<std::int64_t>(), json["query"].get<std::int64_t>(),
                     json["line"].get<std::string>());
  }
}

void WorkQueue::finish() {
  while (serves() && n_waiting_ > 0) {
    poll();
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
}

}  // namespace starattn
