// SPDX-License-Identifier: Apache-2.0
// `--output -`: each answer on standard output as soon as it is there. Nothing is remembered, so a
// rerun answers everything again.
#pragma once

#include "io/answer_sink.h"

namespace starattn {

class AnswerStream : public AnswerSink {
 public:
  bool is_answered(const std::string&, const std::string&) const override { return false; }
  void expect(const std::string&, const std::string&, std::int64_t) override {}
  void expect_error(const std::string& line) override;  // all that write throw Error(io)
  void put(const std::string& id, const std::string& query_id, const std::string& line) override;
  void put_error(std::int64_t input_line, const std::string& line) override;
  void commit() override {}
  void finish(bool) override {}
};

}  // namespace starattn
