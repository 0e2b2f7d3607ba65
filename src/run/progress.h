// SPDX-License-Identifier: Apache-2.0
// Where a batch stands, from rank 0: log lines every few seconds at first, every minute in a long
// phase, or one live line on a terminal; and files for scripts and dashboards (--progress-file,
// --metrics-file), which docs/metrics.md describes.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>

#include "base/clock.h"
#include "base/error.h"
#include "base/json.h"

namespace starattn {

class Progress {
 public:
  struct Files {
    std::string progress;  // JSON; empty: none
    std::string metrics;   // Prometheus's text format
  };
  enum class Phase { load, phase_1, phase_2, done };

  // A quiet one (of a rank that is not rank 0) says and writes nothing.
  Progress(bool is_quiet, int n_ranks, Files files = {});
  // A batch that ends without finish() has failed.
  ~Progress();
  Progress(const Progress&) = delete;
  Progress& operator=(const Progress&) = delete;

  // Ranks that work on one document; by default all.
  void share_out(int ranks_per_document) { ranks_per_document_ = ranks_per_document; }

  // Of the batch, all groups together.
  void expect(std::int64_t n_documents) { n_documents_ = n_documents; }
  void begin_document(std::int64_t number);  // from 1; a group has been given it
  void count_answer() { ++n_answers_; }
  void count_bad_line() { ++n_bad_lines_; }

  // Of rank 0's group. step(): called often; one of n_steps of phase 1, or one of phase 2.
  void start_phase_1(const std::string& document, std::int64_t n_tokens, std::int64_t n_steps);
  void start_phase_2(const std::string& document, std::int64_t n_queries);
  void step();
  void count_query() { ++n_queries_answered_; }
  void end_document();

  // joules: that rank 0's device has taken so far. Asked while the batch runs, and in finish().
  void watch_energy(std::function<std::optional<double>()> joules);

  void finish(Exit exit);
  // Calls work, which finishes this when it returns. An error of it is the end, too, and goes on.
  Exit run(const std::function<Exit()>& work);

  // What the files say, for tests.
  Json to_json() const;
  std::string to_metrics() const;

 private:
  double share() const;  // of the phase, 0 to 1
  std::optional<double> seconds_left() const;
  std::string line() const;  // for people
  void start_phase(Phase phase, const std::string& document);
  void end_phase_1();
  void read_energy();
  void say();
  void write_files();
  void write(std::string& path, const std::string& text) const;

  static constexpr double kSecondsBetween = 5;

  bool is_quiet_;
  int n_ranks_;
  int ranks_per_document_;
  Files files_;
  Phase phase_ = Phase::load;
  std::optional<Exit> exit_;
  std::string document_;
  std::int64_t n_documents_ = 0;  // 0: not known
  std::int64_t number_ = 0;       // of the latest document that a group was given
  std::int64_t first_number_ = 0;
  std::int64_t n_answers_ = 0;
  std::int64_t n_bad_lines_ = 0;
  std::int64_t n_own_documents_ = 0;  // finished by rank 0's group
  std::int64_t n_own_tokens_ = 0;     // of their contexts
  std::int64_t n_encoded_ = 0;        // of these documents, not loaded
  std::int64_t n_encoded_tokens_ = 0;
  double encode_seconds_ = 0;
  std::int64_t n_tokens_ = 0;  // of this document's context
  std::int64_t n_steps_ = 0;   // expected in phase 1
  std::int64_t n_steps_done_ = 0;
  std::int64_t n_queries_ = 0;
  std::int64_t n_queries_answered_ = 0;
  double last_said_ = 0;   // on phase_clock_
  double last_shown_ = 0;  // on clock_, as the next
  double last_written_ = 0;
  double first_document_ = 0;
  std::function<std::optional<double>()> joules_;
  std::optional<double> first_joules_, joules_taken_;
  Stopwatch clock_;
  Stopwatch phase_clock_;
};

}  // namespace starattn
