// SPDX-License-Identifier: Apache-2.0
// A line of input: our records and the published tool's.
#include "fuzz.h"
#include "io/document.h"

using namespace starattn;

STARATTN_FUZZ_TARGET {
  fuzz::only_refuses([&] {
    const Document document = parse_document(input, 7, "in.jsonl:7");
    fuzz::require(!document.queries.empty(), "a document has a query");
    for (const Query& query : document.queries)
      fuzz::require(query.tokens ? !query.tokens->empty() : !query.text.empty(),
                    "a query has a text");
  });
  readable_id(input, 7);
}
