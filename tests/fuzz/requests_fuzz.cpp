// SPDX-License-Identifier: Apache-2.0
// A request of a batch file.
#include "fuzz.h"
#include "io/request.h"

using namespace starattn;

STARATTN_FUZZ_TARGET {
  for (const char* marker : {"", "Q:"}) {
    fuzz::only_refuses([&] {
      const Document document = parse_request(input, 7, "in.jsonl:7", marker);
      fuzz::require(is_request(input), "what is read as a request is one");
      fuzz::require(document.queries.size() == 1, "a request has a question");
      fuzz::require(!document.queries[0].text.empty(), "which has a text");
    });
  }
  readable_custom_id(input);
}
