// SPDX-License-Identifier: Apache-2.0
// Lines that this program wrote and reads again: trials, audits, generated documents and answers.
#include "eval/audit_line.h"
#include "eval/score_sheet.h"
#include "eval/trial.h"
#include "fuzz.h"

using namespace starattn;

STARATTN_FUZZ_TARGET {
  fuzz::only_refuses([&] {
    const Trial trial = parse_trial(input, "trials.jsonl:1");
    const std::string line = to_line(trial);
    fuzz::require(to_line(parse_trial(line, "again")) == line,
                  "a trial that was read can be written and read");
  });
  fuzz::only_refuses([&] { to_line(parse_audit_line(input, "audit.jsonl:1")); });
  const std::size_t cut = input.find('\n');
  fuzz::only_refuses([&] {
    ScoreSheet sheet;
    sheet.add_document(input.substr(0, cut), 1, "documents.jsonl:1");
    if (cut != std::string_view::npos) sheet.add_answer(input.substr(cut + 1), "answers.jsonl:1");
    to_table(sheet.rows());
  });
}
