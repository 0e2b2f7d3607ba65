// SPDX-License-Identifier: Apache-2.0
// The queue, mostly with one group a rank: every task goes to one group, every result comes back,
// and the end comes when nobody will ask again.
#include "run/work_queue.h"

#include <gtest/gtest.h>

#include <functional>
#include <map>
#include <numeric>
#include <optional>
#include <string>
#include <vector>

namespace starattn {
namespace {

// Task i has i % 3 + 1 parts, and a text with line ends and more bytes than a message's piece.
struct Task {
  std::int64_t number = 0;
  std::vector<std::int64_t> parts;
  std::string text;

  static void fields(auto& task, auto& archive) {
    auto& [number, parts, text] = task;
    archive(number, parts, text);
  }
  static std::string text_of(std::int64_t i) {
    return "task\n" +
           std::string(i % 4 == 0 ? std::size_t{3} << 20 : 10, static_cast<char>('a' + i % 26));
  }
};

struct Result {
  std::int64_t number = 0;
  std::string text;
  std::optional<double> score;

  static void fields(auto& result, auto& archive) {
    auto& [number, text, score] = result;
    archive(number, text, score);
  }
};

// What rank 0 has behind the queue, and what it has heard.
struct Source : WorkSource<Task, Result> {
  std::int64_t n_tasks = 0;
  bool one_at_a_time = false;  // the next task depends on the result of the one before
  std::int64_t n_given = 0;
  std::int64_t n_open = 0;
  std::int64_t n_nothing = 0;  // times that nothing was left to give
  std::int64_t n_asked_to_stop = 0;
  std::int64_t n_not_committed = 0;  // results
  std::map<std::int64_t, std::string> results;
  std::vector<std::string> said;

  std::optional<Task> next(bool is_asked_to_stop) override {
    n_asked_to_stop += is_asked_to_stop;
    if (waits_for_results()) return std::nullopt;
    if (is_asked_to_stop || n_given == n_tasks) {
      ++n_nothing;
      return std::nullopt;
    }
    ++n_open;
    Task task;
    task.number = n_given;
    task.text = Task::text_of(n_given);
    for (std::int64_t part = 0; part <= n_given % 3; ++part) task.parts.push_back(part);
    ++n_given;
    return task;
  }
  bool waits_for_results() const override { return one_at_a_time && n_open > 0; }
  void take(Result result) override {
    EXPECT_EQ(result.score, result.text == "1" ? std::optional(0.25) : std::nullopt);
    results[result.number] += result.text;
    ++n_not_committed;
    if (result.number % 3 + 1 == std::ssize(results[result.number])) --n_open;
  }
  void commit() override { n_not_committed = 0; }
  void failed(std::int64_t number, const Error& error) override {
    --n_open;
    results[number] += error.what();
  }
  void stopped(const std::string& saved) override { said.push_back("stopped: " + saved); }
  void broken(const Error& error) override {
    said.push_back(fmt::format("broken {}: {}", static_cast<int>(error.exit()), error.what()));
  }
};

class WorkQueueTest : public ::testing::Test {
 protected:
  // Every rank is a group of its own. Returns how many tasks each has worked on.
  std::vector<std::int64_t> run(const std::function<void(WorkQueue<Task, Result>&, Task&)>& work) {
    const Communicator self = world.split(world.rank());
    WorkQueue<Task, Result> queue(world, self, world.size(), world.is_root() ? &source : nullptr);
    std::int64_t n_mine = 0;
    queue.run([&](Task* task) {
      ++n_mine;
      work(queue, *task);
    });
    return world.allgather(n_mine);
  }

  static void send_parts(WorkQueue<Task, Result>& queue, const Task& task) {
    for (const std::int64_t part : task.parts) {
      queue.send(
          {task.number, std::to_string(part), part == 1 ? std::optional(0.25) : std::nullopt});
    }
  }

  void expect_results() const {
    ASSERT_EQ(std::ssize(source.results), source.n_tasks);
    EXPECT_EQ(source.n_not_committed, 0);
    const char* const all[] = {"0", "01", "012"};
    for (const auto& [number, result] : source.results)
      EXPECT_EQ(result, number % 5 == 4 ? "its own fault" : all[number % 3]) << number;
  }

  Communicator world = Communicator::world();
  Source source;
};

TEST_F(WorkQueueTest, EveryTaskIsWorkedOnOnceAndEveryResultComesBack) {
  source.n_tasks = 41;
  const std::vector<std::int64_t> n_worked = run([](auto& queue, const Task& task) {
    EXPECT_TRUE(task.text == Task::text_of(task.number)) << "task " << task.number;
    EXPECT_EQ(std::ssize(task.parts), task.number % 3 + 1);
    if (task.number % 5 == 4) throw AgreedError(Exit::bad_data, "its own fault");
    send_parts(queue, task);
    queue.poll();
  });
  EXPECT_EQ(std::accumulate(n_worked.begin(), n_worked.end(), std::int64_t{0}), 41);
  if (!world.is_root()) return;
  EXPECT_EQ(source.n_nothing, world.size()) << "each group hears once that nothing is left";
  expect_results();
}

TEST_F(WorkQueueTest, AGroupWaitsForATaskThatDependsOnAnothersResult) {
  source.n_tasks = 23;
  source.one_at_a_time = true;
  run([](auto& queue, const Task& task) {
    if (task.number % 5 == 4) throw AgreedError(Exit::no_input, "its own fault");
    send_parts(queue, task);
  });
  if (!world.is_root()) return;
  EXPECT_EQ(source.n_nothing, world.size());
  expect_results();
}

TEST_F(WorkQueueTest, AGroupThatStopsSaysWhatItHasSavedAndAsksAgain) {
  source.n_tasks = 7;
  const std::vector<std::int64_t> n_worked =
      run([](auto&, const Task&) { throw AgreedError(Exit::stopped, "3 of 7 blocks"); });
  EXPECT_EQ(std::accumulate(n_worked.begin(), n_worked.end(), std::int64_t{0}), 7);
  if (!world.is_root()) return;
  ASSERT_EQ(source.said.size(), 7u);
  for (const std::string& said : source.said) EXPECT_EQ(said, "stopped: 3 of 7 blocks");
  EXPECT_EQ(source.n_nothing, world.size());
}

TEST_F(WorkQueueTest, AGroupThatBreaksIsNotWaitedFor) {
  source.n_tasks = 1000;
  const std::vector<std::int64_t> n_worked =
      run([](auto&, const Task&) { throw AgreedError(Exit::io, "the disk is gone"); });
  for (const std::int64_t n : n_worked) EXPECT_EQ(n, 1);
  if (!world.is_root()) return;
  EXPECT_EQ(source.said, std::vector<std::string>(n_worked.size(), "broken 74: the disk is gone"));
  EXPECT_EQ(source.n_nothing, 0);
}

TEST_F(WorkQueueTest, TheRanksOfOneGroupWorkTogether) {
  source.n_tasks = 3;
  WorkQueue<Task, Result> queue(world, world, 1, world.is_root() ? &source : nullptr);
  std::int64_t n_worked = 0;
  queue.run([&](const Task* task) {
    EXPECT_EQ(task != nullptr, world.is_root());
    ++n_worked;
    if (n_worked == 2) throw AgreedError(Exit::bad_data, "its own fault");
    if (task) send_parts(queue, *task);
  });
  EXPECT_EQ(n_worked, 3);
  if (!world.is_root()) return;
  EXPECT_EQ(source.results,
            (std::map<std::int64_t, std::string>{{0, "0"}, {1, "its own fault"}, {2, "012"}}));
}

}  // namespace
}  // namespace starattn
