// SPDX-License-Identifier: Apache-2.0
// A file of lines as run reads its input: the lines come whole, in order, with their places.
#include "fuzz.h"
#include "io/document.h"
#include "io/line_reader.h"

using namespace starattn;

STARATTN_FUZZ_TARGET {
  static const fuzz::Folder folder;
  folder.write("in.jsonl", input);
  fuzz::only_refuses([&] {
    LineReader lines(folder.file("in.jsonl"));
    std::int64_t number = 0;
    std::uint64_t end = 0;
    while (const std::optional<Line> line = lines.next()) {
      fuzz::require(line->number > number, "line numbers ascend");
      fuzz::require(line->begin >= end && line->end >= line->begin, "places ascend");
      fuzz::require(line->text.find('\n') == std::string::npos, "a line is one line");
      number = line->number;
      end = line->end;
      readable_id(line->text, line->number);
    }
  });
}
