// SPDX-License-Identifier: Apache-2.0
// The queue of documents, one group a rank: every document goes to one group, every result comes
// back, and the end comes when nobody will ask again.
#include "run/work_queue.h"

#include <gtest/gtest.h>

#include <map>
#include <optional>
#include <set>
#include <vector>

namespace starattn {
namespace {

// What rank 0 has behind the queue, and what it has heard.
struct Source {
  std::int64_t n_jobs = 0;
  std::int64_t n_given = 0;
  std::int64_t n_nothing = 0;  // times that nothing was left to give
  std::int64_t n_asked_to_stop = 0;
  std::map<std::int64_t, std::string> results;
  std::vector<std::string> stopped;
  std::vector<Exit> broken;

  // Job i has i % 3 + 1 queries and a text with line ends and more bytes than a message's piece.
  static std::string text_of(std::int64_t i) {
    return "job\n" +
           std::string(i % 4 == 0 ? std::size_t{3} << 20 : 10, static_cast<char>('a' + i % 26));
  }

  JobSource functions() {
    JobSource source;
    source.next = [this](bool is_asked_to_stop) -> std::optional<Job> {
      n_asked_to_stop += is_asked_to_stop;
      if (is_asked_to_stop || n_given == n_jobs) {
        ++n_nothing;
        return std::nullopt;
      }
      Job job;
      job.seq = n_given++;
      job.line = job.seq + 10;
      job.text = text_of(job.seq);
      for (std::int64_t query = 0; query <= job.seq % 3; ++query) job.todo.push_back(query);
      return job;
    };
    source.answered = [this](const AnswerLine& answer) {
      EXPECT_EQ(answer.digest, ~std::uint64_t{0} - static_cast<std::uint64_t>(answer.seq));
      EXPECT_EQ(answer.score, answer.query == 1 ? std::optional(0.25) : std::nullopt);
      results[answer.seq] += std::to_string(answer.query) + answer.line;
    };
    source.failed = [this](std::int64_t seq, const std::string& error) { results[seq] += error; };
    source.stopped = [this](const std::string& saved) { stopped.push_back(saved); };
    source.broken = [this](const Error& error) { broken.push_back(error.exit()); };
    return source;
  }
};

class WorkQueueTest : public ::testing::Test {
 protected:
  WorkQueue queue_of(Source& source) {
    return {world, true, world.size(), world.is_root() ? source.functions() : JobSource{}};
  }

  Communicator world = Communicator::world();
};

TEST_F(WorkQueueTest, EveryDocumentIsWorkedOnOnceAndEveryResultComesBack) {
  Source source;
  source.n_jobs = 41;
  WorkQueue queue = queue_of(source);
  std::int64_t n_mine = 0;
  while (const std::optional<Job> job = queue.next(false)) {
    ++n_mine;
    EXPECT_TRUE(job->text == Source::text_of(job->seq)) << "job " << job->seq;
    EXPECT_EQ(job->line, job->seq + 10);
    EXPECT_EQ(std::ssize(job->todo), job->seq % 3 + 1);
    if (job->seq % 5 == 4) {
      queue.failed(job->seq, "failed");
    } else {
      for (const std::int64_t query : job->todo) {
        queue.answered({job->seq, query, "\"line\n",
                        ~std::uint64_t{0} - static_cast<std::uint64_t>(job->seq),
                        query == 1 ? std::optional(0.25) : std::nullopt});
      }
    }
    queue.poll();
  }
  queue.finish();
  std::int64_t n_all = 0;
  for (const std::int64_t n : world.allgather(n_mine)) n_all += n;
  EXPECT_EQ(n_all, 41);
  if (!world.is_root()) return;
  EXPECT_EQ(source.n_nothing, world.size()) << "each group hears once that nothing is left";
  ASSERT_EQ(source.results.size(), 41u);
  for (const auto& [seq, result] : source.results) {
    const char* const wanted[] = {"0\"line\n", "0\"line\n1\"line\n", "0\"line\n1\"line\n2\"line\n"};
    EXPECT_EQ(result, seq % 5 == 4 ? "failed" : wanted[seq % 3]);
  }
}

TEST_F(WorkQueueTest, AGroupThatWasAskedToStopSaysSoAndWhatItHasSaved) {
  Source source;
  source.n_jobs = 1000;
  WorkQueue queue = queue_of(source);
  const std::optional<Job> job = queue.next(false);
  ASSERT_TRUE(job);
  queue.stopped("3 of 7 blocks");
  EXPECT_FALSE(queue.next(true));
  queue.finish();
  if (!world.is_root()) return;
  EXPECT_EQ(source.n_asked_to_stop, world.size());
  EXPECT_EQ(source.stopped,
            std::vector<std::string>(static_cast<std::size_t>(world.size()), "3 of 7 blocks"));
}

TEST_F(WorkQueueTest, AGroupThatBreaksIsNotWaitedFor) {
  Source source;
  source.n_jobs = 1000;
  WorkQueue queue = queue_of(source);
  ASSERT_TRUE(queue.next(false));
  queue.broken(Error(Exit::io, "the disk is gone"));  // asks for nothing any more
  queue.finish();
  if (!world.is_root()) return;
  EXPECT_EQ(source.broken, std::vector<Exit>(static_cast<std::size_t>(world.size()), Exit::io));
}

// Ranks behind the first of their group take no part.
TEST_F(WorkQueueTest, OneGroupOfAllRanksAsksRankZeroAlone) {
  Source source;
  source.n_jobs = 3;
  WorkQueue queue(world, world.is_root(), 1, world.is_root() ? source.functions() : JobSource{});
  if (world.is_root()) {
    while (queue.next(false)) {
    }
  }
  queue.poll();
  queue.finish();
  EXPECT_EQ(source.n_given, world.is_root() ? 3 : 0);
}

}  // namespace
}  // namespace starattn
