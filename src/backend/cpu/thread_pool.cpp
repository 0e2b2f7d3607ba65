// SPDX-License-Identifier: Apache-2.0
#include "backend/cpu/thread_pool.h"

#include <utility>

namespace starattn {

ThreadPool::ThreadPool(int n_threads) {
  for (int thread = 1; thread < n_threads; ++thread)
    workers_.emplace_back([this, thread] { work(thread); });
}

ThreadPool::~ThreadPool() {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  wake_.notify_all();
  for (std::thread& worker : workers_) worker.join();
}

void ThreadPool::parallel_for(std::int64_t n_tasks,
                              const std::function<void(std::int64_t, int)>& task) {
  if (workers_.empty() || n_tasks <= 1) {
    for (std::int64_t i = 0; i < n_tasks; ++i) task(i, 0);
    return;
  }
  {
    const std::lock_guard lock(mutex_);
    task_ = &task;
    n_tasks_ = n_tasks;
    next_ = 0;
    n_working_ = static_cast<int>(workers_.size());
    ++generation_;
  }
  wake_.notify_all();
  take_tasks(0);
  std::unique_lock lock(mutex_);
  done_.wait(lock, [this] { return n_working_ == 0; });
  if (error_) std::rethrow_exception(std::exchange(error_, nullptr));
}

void ThreadPool::work(int thread) {
  std::uint64_t seen = 0;
  for (;;) {
    {
      std::unique_lock lock(mutex_);
      wake_.wait(lock, [&] { return stopping_ || generation_ != seen; });
      if (stopping_) return;
      seen = generation_;
    }
    take_tasks(thread);
    const std::lock_guard lock(mutex_);
    if (--n_working_ == 0) done_.notify_one();
  }
}

void ThreadPool::take_tasks(int thread) {
  try {
    for (std::int64_t i = next_++; i < n_tasks_; i = next_++) (*task_)(i, thread);
  } catch (...) {
    const std::lock_guard lock(mutex_);
    if (!error_) error_ = std::current_exception();
    next_ = n_tasks_;
  }
}

}  // namespace starattn
