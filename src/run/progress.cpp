// SPDX-License-Identifier: Apache-2.0
#include "run/progress.h"

#include <unistd.h>

#include <algorithm>
#include <ctime>
#include <utility>

#include "base/file.h"
#include "base/log.h"
#include "base/text.h"
#include "trace/range.h"

namespace starattn {
namespace {

constexpr double kSecondsOfLiveLine = 0.2;

const char* name_of(Progress::Phase phase) {
  switch (phase) {
    case Progress::Phase::load:
      return "load";
    case Progress::Phase::phase_1:
      return "phase-1";
    case Progress::Phase::phase_2:
      return "phase-2";
    default:
      return "done";
  }
}

Json or_null(std::optional<double> value) {
  return value ? Json(*value) : Json(nullptr);
}

}  // namespace

Progress::Progress(bool is_quiet, int n_ranks, Files files)
    : is_quiet_(is_quiet),
      n_ranks_(n_ranks),
      ranks_per_document_(n_ranks),
      files_(is_quiet ? Files() : std::move(files)) {
  write_files();
}

Progress::~Progress() {
  joules_ = nullptr;  // what it asks may be gone
  if (!exit_) finish(Exit::bug);
}

void Progress::watch_energy(std::function<std::optional<double>()> joules) {
  joules_ = std::move(joules);
  first_joules_ = joules_();
}

void Progress::read_energy() {
  if (!joules_ || !first_joules_) return;
  if (const std::optional<double> now = joules_()) joules_taken_ = *now - *first_joules_;
}

void Progress::begin_document(std::int64_t number) {
  if (number_ == 0) {
    first_number_ = number;
    first_document_ = clock_.seconds();
  }
  number_ = std::max(number_, number);
}

void Progress::start_phase_1(const std::string& document, std::int64_t n_tokens,
                             std::int64_t n_steps) {
  n_tokens_ = n_tokens;
  n_steps_ = n_steps;
  start_phase(Phase::phase_1, document);
}

void Progress::start_phase_2(const std::string& document, std::int64_t n_queries) {
  n_queries_ = n_queries;
  n_queries_answered_ = 0;
  start_phase(Phase::phase_2, document);
}

// A document that was loaded, or some of it, took fewer steps.
void Progress::end_phase_1() {
  if (phase_ != Phase::phase_1 || n_steps_done_ < n_steps_) return;
  ++n_encoded_;
  n_encoded_tokens_ += n_tokens_;
  encode_seconds_ += phase_clock_.seconds();
}

void Progress::start_phase(Phase phase, const std::string& document) {
  end_phase_1();
  phase_ = phase;
  document_ = document;
  n_steps_done_ = 0;
  last_said_ = 0;
  phase_clock_ = Stopwatch();
}

void Progress::step() {
  ++n_steps_done_;
  if (is_quiet_) return;
  const double now = clock_.seconds();
  if (log::has_live_line()) {
    if (now - last_shown_ >= kSecondsOfLiveLine) {
      log::show_live_line(line());
      last_shown_ = now;
    }
  } else {
    say();
  }
  if (now - last_written_ >= kSecondsBetween) write_files();
}

void Progress::end_document() {
  end_phase_1();
  phase_clock_ = Stopwatch();
  n_steps_done_ = 0;
  ++n_own_documents_;
  n_own_tokens_ += n_tokens_;
}

void Progress::finish(Exit exit) {
  exit_ = exit;
  phase_ = Phase::done;
  log::show_live_line("");
  write_files();
}

Exit Progress::run(const std::function<Exit()>& work) {
  try {
    return work();
  } catch (const Error& error) {
    joules_ = nullptr;  // what it asks is gone
    finish(error.exit());
    throw;
  }
}

double Progress::share() const {
  if (phase_ == Phase::done) return 1;
  const std::int64_t whole = phase_ == Phase::phase_1 ? n_steps_ : n_queries_;
  const std::int64_t done = phase_ == Phase::phase_1 ? n_steps_done_ : n_queries_answered_;
  if (whole <= 0 || phase_ == Phase::load) return 0;
  return std::min(1.0, static_cast<double>(done) / static_cast<double>(whole));
}

// Of the batch: as long for each document as it took for those that rank 0's group has finished, as
// if all groups were alike.
std::optional<double> Progress::seconds_left() const {
  if (n_documents_ == 0 || n_own_documents_ == 0 || exit_) return std::nullopt;
  const auto n_given = static_cast<double>(std::max<std::int64_t>(1, number_ - first_number_));
  const auto n_left = static_cast<double>(std::max<std::int64_t>(0, n_documents_ + 1 - number_));
  return (clock_.seconds() - first_document_) * n_left / n_given;
}

std::string Progress::line() const {
  std::string text = fmt::format("document '{}'", document_);
  if (n_documents_ > 1 && number_ > 0)
    text += fmt::format(" ({} of {})", with_commas(number_), with_commas(n_documents_));
  const double now = phase_clock_.seconds();
  if (phase_ == Phase::phase_1) {
    const double share = this->share();
    text += fmt::format(": {:.0f} % of {} tokens, {} tokens/s, {} left", 100 * share,
                        with_commas(n_tokens_),
                        with_commas(static_cast<std::int64_t>(
                            share * static_cast<double>(n_tokens_) / std::max(now, 1e-9))),
                        human_seconds(now * (1 - share) / std::max(share, 1e-9)));
  } else {
    text += fmt::format(": {} of {} queries answered, {} steps, {:.1f} ms each",
                        with_commas(n_queries_answered_), with_commas(n_queries_),
                        with_commas(n_steps_done_),
                        1e3 * now / static_cast<double>(std::max<std::int64_t>(1, n_steps_done_)));
  }
  if (const auto left = seconds_left(); left && n_documents_ > 1)
    text += fmt::format("; batch: {} left", human_seconds(*left));
  return text;
}

void Progress::say() {
  const double now = phase_clock_.seconds();
  const double pause = std::clamp(now / 20, kSecondsBetween, 60.0);
  if (now - last_said_ < pause) return;
  last_said_ = now;
  log::event("progress", to_json(), line());
}

Json Progress::to_json() const {
  const double now = phase_clock_.seconds();
  const bool in_phase_1 = phase_ == Phase::phase_1;
  Json json;
  json["schema"] = "starattn-progress-1";
  json["written"] = std::time(nullptr);  // seconds since 1970
  json["state"] = !exit_                    ? "running"
                  : *exit_ == Exit::stopped ? "stopped"
                  : *exit_ == Exit::ok      ? "finished"
                                            : "failed";
  json["exit"] = exit_ ? Json(static_cast<int>(*exit_)) : Json(nullptr);
  json["phase"] = name_of(phase_);
  json["share"] = share();
  json["document"] = document_.empty() ? Json(nullptr) : Json(document_);
  json["document_number"] = number_;
  json["documents"] = n_documents_ > 0 ? Json(n_documents_) : Json(nullptr);
  json["answers"] = n_answers_;
  json["bad_lines"] = n_bad_lines_;
  json["context_tokens"] = n_tokens_;
  json["tokens_per_second"] =
      in_phase_1 && now > 0 ? Json(share() * static_cast<double>(n_tokens_) / now) : Json(nullptr);
  json["queries"] = n_queries_;
  json["queries_answered"] = n_queries_answered_;
  json["finished_tokens"] = n_own_tokens_;
  json["encoded_documents"] = n_encoded_;
  json["encoded_tokens"] = n_encoded_tokens_;
  json["encode_seconds"] = encode_seconds_;
  json["ranks_per_document"] = ranks_per_document_;
  json["seconds"] = clock_.seconds();
  json["seconds_left"] = or_null(seconds_left());
  json["ranks"] = n_ranks_;
  json["peak_memory_bytes"] = trace::peak_memory_bytes();
  json["energy_joules"] = or_null(joules_taken_);
  json["process"] = ::getpid();
  return json;
}

std::string Progress::to_metrics() const {
  std::string text;
  const auto put = [&](const char* name, const char* type, const char* what, double value) {
    text += fmt::format("# HELP starattn_{0} {1}\n# TYPE starattn_{0} {2}\nstarattn_{0} {3}\n",
                        name, what, type, value);
  };
  const auto number = [](std::int64_t n) { return static_cast<double>(n); };
  put("running", "gauge", "1 while the batch runs, 0 once it has ended.", exit_ ? 0 : 1);
  if (exit_) put("exit_code", "gauge", "How it ended.", static_cast<int>(*exit_));
  put("ranks", "gauge", "Ranks of the job.", n_ranks_);
  put("document_number", "gauge", "The latest document in work, in input order from 1.",
      number(number_));
  if (n_documents_ > 0) put("documents", "gauge", "Documents of the input.", number(n_documents_));
  put("answers_total", "counter", "Answers written by this run.", number(n_answers_));
  put("bad_lines_total", "counter", "Input lines without an answer.", number(n_bad_lines_));
  put("context_tokens_total", "counter",
      "Context tokens of documents that the first group finished.", number(n_own_tokens_));
  put("phase", "gauge", "0 loading, 1 encoding, 2 answering, 3 done; of the first group.",
      static_cast<int>(phase_));
  put("phase_share", "gauge", "How much of that phase is done, 0 to 1.", share());
  if (const auto left = seconds_left())
    put("seconds_left", "gauge", "Until the batch ends, if it goes on like this.", *left);
  put("peak_memory_bytes", "gauge", "Largest resident set of rank 0.",
      static_cast<double>(trace::peak_memory_bytes()));
  if (joules_taken_)
    put("energy_joules_total", "counter", "Taken by rank 0's GPU since the model was loaded.",
        *joules_taken_);
  put("last_update_seconds", "gauge", "When this was written, since 1970.",
      static_cast<double>(std::time(nullptr)));
  return text;
}

void Progress::write_files() {
  last_written_ = clock_.seconds();
  read_energy();
  write(files_.progress, to_line(to_json()) + "\n");
  write(files_.metrics, to_metrics());
}

// A file that cannot be written is no reason to end a run.
void Progress::write(std::string& path, const std::string& text) const {
  if (path.empty()) return;
  try {
    write_file_durably(path, text);
  } catch (const Error& error) {
    log::warn("{}; it is not written any more", error.what());
    path.clear();
  }
}

}  // namespace starattn
