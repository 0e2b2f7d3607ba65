// SPDX-License-Identifier: Apache-2.0
// A table of questions: what it gives are lines of input.
#include "fuzz.h"
#include "io/document.h"
#include "io/question_table.h"

using namespace starattn;

STARATTN_FUZZ_TARGET {
  if (!is_utf8(input)) return;  // its reader refuses that
  fuzz::only_refuses([&] {
    for (const TableDocument& document : documents_of_table(input, "q.csv")) {
      fuzz::require(document.line > 1, "a document stands behind the first row");
      fuzz::only_refuses([&] { parse_document(document.text, document.line, "q.csv"); });
    }
  });
}
