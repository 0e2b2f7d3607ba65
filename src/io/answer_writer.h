// SPDX-License-Identifier: Apache-2.0
// The output file of a batch: answer lines in input order, synced at each commit(). Answers whose
// turn has not come wait in a journal beside the output, synced too. Whatever instant a run dies
// at, the next one finds every committed answer once, whole and in order.
//
//   <output>                 answer lines and, for bad input lines, error lines; locked by the run
//   <output>.journal         answer lines that wait for their turn; gone when the batch is complete
//   <output>.settings.json   what the answers were made with; a rerun must agree
//
// Lines that an earlier run left are checked: each is an answer, with a right digest (see
// line_digest.h; files of version 0.1.0 have none), and is there once. What is wrong is said with
// its line and answered again.
#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <string>
#include <unordered_map>

#include "base/file.h"
#include "base/file_purposes.h"
#include "base/json.h"
#include "io/answer.h"
#include "io/answer_sink.h"

namespace starattn {

// What settings say in place of --query-prefix where it was not given and chat markup is written.
inline constexpr const char* kDefaultQueryPrefix =
    "a blank line, but in the published tool's records";

class AnswerWriter : public AnswerSink {
 public:
  // Throws Error(bad_data) for what is no whole line of this output. Its ids have been checked.
  using LineCheck = std::function<void(const Json& line, const std::string& where)>;
  // Throws Error(bad_data) where they cannot be read.
  using KeyOfLine = std::function<AnswerKey(const Json& line, const std::string& where)>;

  // The files above, for the option that names the output.
  static void declare(FilePurposes& files, const std::string& option, const std::string& path);

  // Takes the lock (waiting up to 10 s), compares the settings, and recovers what an earlier run
  // left. The lock is the file's, whatever name it is opened by. Throws
  // Error(cannot_create | bad_data | io | usage).
  AnswerWriter(const std::string& path, const Json& settings, bool overwrite,
               LineCheck check = check_answer_text, KeyOfLine key_of_line = key_of_output_line);
  // The least of an answer: its text, under "answer".
  static void check_answer_text(const Json& line, const std::string& where);

  bool is_answered(const std::string& id, const std::string& query_id) const override;
  // Answers that an earlier run left are put in their place.
  void expect(const std::string& id, const std::string& query_id,
              std::int64_t input_line = 0) override;
  void expect_error(const std::string& line) override;
  void put(const std::string& id, const std::string& query_id, const std::string& line) override;
  void put_error(std::int64_t input_line, const std::string& line) override;
  void commit() override;

  // What `input_line` still has to get does not come: nothing takes its place.
  void give_up(std::int64_t input_line);

  // Answers that no key was for go to the journal, where a later input finds them; each is said.
  // Without such answers the journal is removed.
  void finish(bool knows_every_key) override;
  std::int64_t n_errors() const { return n_errors_; }
  std::int64_t n_left() const { return static_cast<std::int64_t>(pending_.size()); }

 private:
  struct Hash128 {
    std::uint64_t low, high;
    bool operator==(const Hash128&) const = default;
  };
  struct Hasher {
    std::size_t operator()(const Hash128& hash) const { return hash.low; }
  };
  struct Pending {
    Hash128 key{};
    std::int64_t input_line = 0;
    std::string text;  // set when it is there and small; else it is in the journal
    bool ready = false;
    bool skip = false;  // nothing to write: an error took its place, or it is in the output already
  };
  struct Place {
    std::uint64_t offset;
    std::uint64_t n_bytes;
  };
  static Hash128 key_of(const std::string& id, const std::string& query_id);
  std::string journal_path() const { return path_ + ".journal"; }
  std::string settings_path() const { return path_ + ".settings.json"; }
  void open_and_lock();
  void check_settings(const Json& settings, bool overwrite);
  std::string difference_from(const Json& settings);
  void recover();
  std::uint64_t recover_output();  // bytes of it that stay
  void recover_journal();
  AnswerKey read_kept(const std::string& text, const std::string& where) const;
  void say_wrong(const std::string& what);
  void set_aside_unexpected();
  void append_journal(const Hash128& key, const std::string& line);
  void flush();  // what is ready to the output, without a sync

  std::string path_;  // symbolic links followed
  LineCheck check_;
  KeyOfLine key_of_line_;
  FileDescriptor output_;  // and its lock
  FileDescriptor journal_;
  bool is_output_ahead_ = false;   // of what is synced
  bool is_journal_ahead_ = false;  // alike
  bool has_digests_ = true;        // false where 0.1.0 began the file
  std::uint64_t journal_bytes_ = 0;
  std::unordered_map<Hash128, bool, Hasher> in_output_;  // whether it has been expected
  std::unordered_map<Hash128, Place, Hasher> in_journal_;
  std::deque<Pending> pending_;
  std::unordered_map<Hash128, std::uint64_t, Hasher> place_of_;  // in all that was ever pending
  std::uint64_t n_flushed_ = 0;                                  // of that
  std::int64_t n_errors_ = 0;
  std::int64_t n_wrong_ = 0;
};

}  // namespace starattn
