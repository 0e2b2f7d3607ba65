// SPDX-License-Identifier: Apache-2.0
// One queue of documents for all groups. Rank 0 reads the input and owns the output; the first rank
// of each group asks it for a document and sends finished lines back. Rank 0 computes too: it
// serves the others whenever it polls.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "base/error.h"
#include "io/document.h"
#include "mpi/communicator.h"

namespace starattn {

struct Job {
  std::int64_t seq = 0;              // document number in input order
  std::int64_t line = 0;             // line number in the input file
  std::string text;                  // the line itself, for a group on another rank
  std::vector<std::int64_t> todo;    // indices of the queries that are not answered yet
  std::optional<Document> document;  // the line, parsed; on the rank that read it
};

// An answer on its way to the output.
struct AnswerLine {
  std::int64_t seq = 0;    // the job's
  std::int64_t query = 0;  // index among the document's
  std::string line;
  std::uint64_t digest = 0;     // of its ids and text
  std::optional<double> score;  // where there were references
};

// What rank 0 has behind the queue.
struct JobSource {
  // is_asked_to_stop: the group that asks has had a stop signal.
  std::function<std::optional<Job>(bool is_asked_to_stop)> next;
  std::function<void(const AnswerLine& answer)> answered;
  std::function<void(std::int64_t seq, const std::string& error)> failed;
  std::function<void(const std::string& saved)> stopped;
  std::function<void(const Error& error)> broken;
};

class WorkQueue {
 public:
  // source: on rank 0 of world, empty elsewhere. is_leader: this rank is the first of its group.
  WorkQueue(const Communicator& world, bool is_leader, int n_groups, JobSource source);

  // On leaders; none when the input is used up, or no more is to be begun.
  std::optional<Job> next(bool is_asked_to_stop);
  void answered(const AnswerLine& answer);
  void failed(std::int64_t seq, const std::string& error);
  void stopped(const std::string& saved);  // a document left early, as asked; what the rerun finds
  void broken(const Error& error);         // this group cannot go on and asks for nothing any more
  void poll();                             // rank 0 serves whoever waits; nothing elsewhere
  void finish();                           // rank 0 serves until no leader will ask again

 private:
  bool serves() const { return world_->rank() == 0; }
  void serve(const Communicator::Message& message);
  void report(const std::string& text);

  const Communicator* world_;
  bool is_leader_;
  int n_waiting_;  // leaders other than rank 0 that may still ask
  JobSource source_;
};

}  // namespace starattn
