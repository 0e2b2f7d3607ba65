// SPDX-License-Identifier: Apache-2.0
// A checkpoint's manifest whose own digest has been made to fit, so that what lies behind that
// check is reached. What is accepted is written again to the very same bytes.
#include "base/json.h"
#include "checkpoint/manifest.h"
#include "fuzz.h"

using namespace starattn;

STARATTN_FUZZ_TARGET {
  std::string text(input);
  try {
    Json json = parse_json(input, "manifest.json", {std::size_t{1} << 20, 8});
    if (json.is_object()) {
      json.erase("digest");
      json["digest"] = digest_of(json.dump(1)).hex();
      text = json.dump(1) + "\n";
    }
  } catch (const Error&) {
    // Then as it is.
  }
  fuzz::only_refuses([&] {
    const Manifest manifest = Manifest::from_text(text, "manifest.json");
    fuzz::require(manifest.to_text() == text, "a manifest has one text");
    fuzz::require(manifest.info.n_blocks > 0, "a document has a block");
    manifest.info.key();
  });
  is_own_name(input);
  block_of_name(input);
}
