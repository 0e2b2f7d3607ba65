// SPDX-License-Identifier: Apache-2.0
// Where the answers of a batch go: a file that a rerun continues (AnswerWriter), or standard output
// (AnswerStream). Each answer is known by its document's and its query's id.
#pragma once

#include <cstdint>
#include <string>

namespace starattn {

class AnswerSink {
 public:
  virtual ~AnswerSink() = default;

  // Whether an earlier run has left this answer.
  virtual bool is_answered(const std::string& id, const std::string& query_id) const = 0;
  // Declares the next answer in input order. input_line: by which put_error finds it.
  virtual void expect(const std::string& id, const std::string& query_id,
                      std::int64_t input_line = 0) = 0;
  virtual void expect_error(const std::string& line) = 0;

  // An expected answer, in any order.
  virtual void put(const std::string& id, const std::string& query_id, const std::string& line) = 0;
  // The error line takes the place of all answers that `input_line` still has to get.
  virtual void put_error(std::int64_t input_line, const std::string& line) = 0;

  // What was put stays from here on, even when the power goes. Called when all answers that came
  // together have been put, for a file is synced as fast for many of them as for one.
  virtual void commit() = 0;

  // The batch is complete. knows_every_key: every answer that belongs here has been expected, so
  // that others of an earlier run can be told.
  virtual void finish(bool knows_every_key) = 0;
};

}  // namespace starattn
