// SPDX-License-Identifier: Apache-2.0
// A rank's own threads. Work is cut into numbered tasks by the caller, never by the number of
// threads, so that results do not depend on it; which thread takes which task does not matter.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <exception>
#include <functional>
#include <mutex>
#include <thread>
#include <vector>

namespace starattn {

class ThreadPool {
 public:
  explicit ThreadPool(int n_threads);  // the calling thread included
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  int n_threads() const { return static_cast<int>(workers_.size()) + 1; }

  // Runs task(0) .. task(n_tasks - 1), thread given as 0 .. n_threads - 1 for workspace. Returns
  // when all are done; the first exception of a task is thrown here.
  void parallel_for(std::int64_t n_tasks,
                    const std::function<void(std::int64_t task, int thread)>& task);

 private:
  void work(int thread);
  void take_tasks(int thread);

  std::vector<std::thread> workers_;
  std::mutex mutex_;
  std::condition_variable wake_;
  std::condition_variable done_;
  std::uint64_t generation_ = 0;
  int n_working_ = 0;
  bool stopping_ = false;
  const std::function<void(std::int64_t, int)>* task_ = nullptr;
  std::int64_t n_tasks_ = 0;
  std::atomic<std::int64_t> next_{0};
  std::exception_ptr error_;
};

}  // namespace starattn
