// SPDX-License-Identifier: Apache-2.0
// The output file of a batch: answer lines in input order, each synced as it is written. Answers
// whose turn has not come wait in a journal beside the output, synced too. Whatever instant a run
// dies at, the next one finds every answered line once, whole and in order.
//
//   <output>                 answer lines and, for bad input lines, error lines
//   <output>.journal         answer lines that wait for their turn; gone when the batch is complete
//   <output>.settings.json   what the answers were made with; a rerun must agree
//   <output>.lock            a kernel lock: one run at a time
#pragma once

#include <cstdint>
#include <deque>
#include <string>
#include <unordered_map>
#include <unordered_set>

#include "base/file.h"
#include "base/json.h"

namespace starattn {

// What settings say in place of --query-prefix where it was not given and chat markup is written.
inline constexpr const char* kDefaultQueryPrefix =
    "a blank line, but in the published tool's records";

class AnswerWriter {
 public:
  // Takes the lock (waiting up to 10 s), compares the settings, and recovers what an earlier run
  // left. Throws Error(cannot_create | bad_data | io | usage).
  AnswerWriter(const std::string& path, const Json& settings, bool overwrite);

  bool is_answered(const std::string& id, const std::string& query_id) const;
  // Whether the input has had this key before; remembers it (about 60 bytes a key).
  bool is_repeated(const std::string& id, const std::string& query_id);

  // Declares the next lines in input order. Answers that an earlier run left are put in their
  // place. input_line: by which put_error finds them.
  void expect(const std::string& id, const std::string& query_id, std::int64_t input_line = 0);
  void expect_error(const std::string& line);

  // An expected answer, in any order.
  void put(const std::string& id, const std::string& query_id, const std::string& line);
  // The error line takes the place of all answers that `input_line` still has to get.
  void put_error(std::int64_t input_line, const std::string& line);

  void finish();  // the batch is complete: removes the journal
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
  void lock();
  std::string settings_path() const { return path_ + ".settings.json"; }
  void check_settings(const Json& settings, bool overwrite);
  std::string difference_from(const Json& settings) const;
  void recover();
  std::uint64_t recover_output();  // bytes of it that stay
  void recover_journal();
  void append_journal(const Hash128& key, const std::string& line);  // the caller syncs
  void flush();

  std::string path_;
  FileDescriptor lock_;
  FileDescriptor output_;
  FileDescriptor journal_;
  std::uint64_t journal_bytes_ = 0;
  std::unordered_set<Hash128, Hasher> in_output_;
  std::unordered_map<Hash128, Place, Hasher> in_journal_;
  std::unordered_set<Hash128, Hasher> seen_;
  std::deque<Pending> pending_;
  std::int64_t n_errors_ = 0;
};

}  // namespace starattn
