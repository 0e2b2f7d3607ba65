// SPDX-License-Identifier: Apache-2.0
// How work reaches the groups of ranks, for run, eval and its audit. Rank 0 has all tasks and takes
// all results (a WorkSource). The first rank of each group asks it for a task and sends results
// back. Rank 0 computes, too: it serves the others whenever it polls.
//
// A Task has a `number`, by which its source knows it again. Tasks and results are what
// mpi/packed.h can pack.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "base/error.h"
#include "mpi/communicator.h"
#include "mpi/packed.h"
#include "mpi/runtime.h"

namespace starattn {

// What rank 0 has behind the queue.
template <typename Task, typename Result>
class WorkSource {
 public:
  virtual ~WorkSource() = default;

  // is_asked_to_stop: the group that asks has had a stop signal. None: nothing is left, or nothing
  // is to be begun any more, or, where waits_for_results(), nothing before more results are in.
  virtual std::optional<Task> next(bool is_asked_to_stop) = 0;
  virtual bool waits_for_results() const { return false; }

  virtual void take(Result result) = 0;
  // What was taken is kept from here on. Called when all results that came together are in.
  virtual void commit() = 0;
  // The task is at fault, not its group, which goes on with the next.
  virtual void failed(std::int64_t number, const Error& error) = 0;
  // A group has left its task early, as asked. saved: what the next run finds of it.
  virtual void stopped(const std::string& saved) = 0;
  // A group cannot go on and asks for nothing any more.
  virtual void broken(const Error& error) = 0;
};

template <typename Task, typename Result>
class WorkQueue {
 public:
  // Collective over the group; the task is on its first rank, null on the others.
  using Work = std::function<void(Task* task)>;

  // group: this rank's, one of n_groups. source: on rank 0 of world, null elsewhere. All outlive
  // the queue.
  WorkQueue(const Communicator& world, const Communicator& group, int n_groups,
            WorkSource<Task, Result>* source)
      : world_(&world), group_(&group), source_(source), n_others_(n_groups - 1) {}

  // Works until no task is left, on all ranks of world. An AgreedError of work() is the task's
  // (bad_data, no_input, usage), a stop, or the end of this group's part.
  void run(const Work& work) {
    while (work_on_next(work)) {
    }
    while (source_ && n_others_ > 0) {
      poll();
      pause();
    }
    if (source_) source_->commit();
  }

  void send(Result result) {  // on the first rank of a group
    if (source_) {
      source_->take(std::move(result));
    } else {
      to_source(pack(Kind::result, result));
    }
  }

  void poll() {  // rank 0 keeps what has come and serves whoever waits; nothing elsewhere
    if (!source_) return;
    Communicator::Message message;
    while (n_others_ > 0 && world_->try_receive(message, kToSource)) serve(message);
    source_->commit();
    // Results, of this rank's group too, may have led to more tasks.
    for (const Waiting& waiting : std::exchange(waiting_, {})) offer(waiting);
  }

 private:
  enum class Kind : char { request, result, failed, stopped, broken };

  struct Waiting {
    Rank rank = 0;
    bool is_asked_to_stop = false;
  };

  static constexpr int kToSource = 201;  // requests and results, in the order they were sent
  static constexpr int kToGroup = 202;   // an optional task

  static void pause() { std::this_thread::sleep_for(std::chrono::milliseconds(1)); }

  // The task is at fault. (Options that no task could be done with have been refused before.)
  static bool is_of_task(const Error& error) {
    return error.exit() == Exit::bad_data || error.exit() == Exit::no_input ||
           error.exit() == Exit::usage;
  }

  // False when this group has nothing more to do.
  bool work_on_next(const Work& work) {
    const bool is_asked_to_stop = group_->any(stop_requested());
    std::optional<Task> task;
    if (group_->is_root()) task = ask(is_asked_to_stop);
    if (!group_->bcast_value(task.has_value(), 0)) return false;
    const std::int64_t number = task ? task->number : 0;
    try {
      work(task ? &*task : nullptr);
    } catch (const AgreedError& error) {
      const bool goes_on = error.exit() == Exit::stopped || is_of_task(error);
      if (group_->is_root()) report(number, error);
      return goes_on;
    }
    return true;
  }

  std::optional<Task> ask(bool is_asked_to_stop) {
    if (!source_) {
      to_source(pack(Kind::request, is_asked_to_stop));
      return unpack<std::optional<Task>>(world_->receive(0, kToGroup).bytes);
    }
    for (;;) {
      poll();
      std::optional<Task> task = source_->next(is_asked_to_stop);
      if (task || !source_->waits_for_results()) return task;
      pause();
    }
  }

  void report(std::int64_t number, const Error& error) {
    const std::string text = error.what();
    const Kind kind = error.exit() == Exit::stopped ? Kind::stopped
                      : is_of_task(error)           ? Kind::failed
                                                    : Kind::broken;
    if (source_) {
      tell(kind, number, error);
    } else {
      to_source(pack(kind, number, error.exit(), text));
    }
  }

  void tell(Kind kind, std::int64_t number, const Error& error) {
    if (kind == Kind::stopped) {
      source_->stopped(error.what());
    } else if (kind == Kind::failed) {
      source_->failed(number, error);
    } else {
      source_->broken(error);
    }
  }

  void to_source(const std::string& message) { world_->send_message(message, 0, kToSource); }

  void serve(const Communicator::Message& message) {
    Unpacker unpacker(message.bytes);
    Kind kind{};
    unpacker(kind);
    if (kind == Kind::request) {
      Waiting waiting{message.from};
      unpacker(waiting.is_asked_to_stop);
      offer(waiting);
    } else if (kind == Kind::result) {
      Result result{};
      unpacker(result);
      source_->take(std::move(result));
    } else {
      std::int64_t number = 0;
      Exit exit{};
      std::string text;
      unpacker(number, exit, text);
      if (kind == Kind::broken) --n_others_;
      tell(kind, number, Error(exit, text));
    }
  }

  // A task, or nothing for ever, or later.
  void offer(const Waiting& waiting) {
    const std::optional<Task> task = source_->next(waiting.is_asked_to_stop);
    if (!task && source_->waits_for_results()) {
      waiting_.push_back(waiting);
      return;
    }
    if (!task) --n_others_;
    world_->send_message(pack(task), waiting.rank, kToGroup);
  }

  const Communicator* world_;
  const Communicator* group_;
  WorkSource<Task, Result>* source_;
  int n_others_;                  // groups other than rank 0's that may still ask
  std::vector<Waiting> waiting_;  // for a task that results may lead to
};

}  // namespace starattn
