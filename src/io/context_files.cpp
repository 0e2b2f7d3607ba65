// SPDX-License-Identifier: Apache-2.0
#include "io/context_files.h"

#include <sys/stat.h>

#include "base/error.h"
#include "io/document.h"
#include "io/line_reader.h"
#include "io/request.h"

namespace starattn {

void declare_context_files(const std::string& input_path, const FilePurposes& files) {
  struct stat info {};
  const bool is_file = ::stat(input_path.c_str(), &info) == 0 && S_ISREG(info.st_mode);
  if (!is_file || !files.writes_over_something()) return;
  LineReader lines(input_path);
  while (const std::optional<Line> line = lines.next()) {
    if (line->text.find("\"context_file\"") == std::string::npos) continue;
    Document document;
    try {
      document = is_request(line->text)
                     ? parse_request(line->text, line->number, input_path, /*question_marker=*/"")
                     : parse_document(line->text, line->number, input_path);
    } catch (const Error&) {
      continue;
    }
    if (document.context_file.empty()) continue;
    files.reads_one_of_many(fmt::format("the context_file of line {}", line->number),
                            context_path(document, input_path));
  }
}

}  // namespace starattn
