// SPDX-License-Identifier: Apache-2.0
// What an earlier run left, whatever it is: an output and, behind a byte 0xff, its journal. It is
// refused, or continued so that the new answers stand in it, whole and once.
#include "base/file.h"
#include "base/json.h"
#include "fuzz.h"
#include "io/answer_writer.h"

using namespace starattn;

STARATTN_FUZZ_TARGET {
  static const fuzz::Folder folder;
  const std::string path = folder.file("out.jsonl");
  const Json settings{{"seed", 1}};
  const std::size_t cut = input.find('\xff');
  folder.write("out.jsonl", input.substr(0, cut));
  folder.write("out.jsonl.journal", cut == std::string_view::npos ? "" : input.substr(cut + 1));
  folder.write("out.jsonl.settings.json", settings.dump());
  fuzz::only_refuses([&] {
    AnswerWriter writer(path, settings, false);
    int n_new = 0;
    for (const char* id : {"a", "b"}) {
      const bool is_there = writer.is_answered(id, "0");
      writer.expect(id, "0", 1);
      if (is_there) continue;
      ++n_new;
      writer.put(id, "0", to_line({{"id", id}, {"query_id", "0"}, {"answer", "NEW"}}));
    }
    writer.finish(/*knows_every_key=*/true);
    const std::string text = read_file(path, std::size_t{1} << 30);
    fuzz::require(text.empty() || text.back() == '\n', "an output ends with a whole line");
    int n_found = 0;
    for (std::size_t at = 0; (at = text.find("\"answer\":\"NEW\"", at)) != std::string::npos; ++at)
      ++n_found;
    fuzz::require(n_found >= n_new, "every new answer is there");
  });
}
