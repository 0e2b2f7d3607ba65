// SPDX-License-Identifier: Apache-2.0
// A table of questions about files (CSV, as spreadsheets write it), as the documents that it asks
// about:
//
//   file,question,answer
//   minutes-2024.txt,What was decided?,the budget
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace starattn {

bool is_question_table(std::string_view path);  // by its name: .csv or .tsv, or these with .gz

// A line of input (document.h) for each file, with all of its questions, in the order in which the
// files are first named.
struct TableDocument {
  std::int64_t line = 0;  // of the table, from 1, where the file is named first
  std::string text;       // JSON
};

// The first row names the columns, and its first comma, semicolon or tab separates all. Needed are
// `file` and `question`; `id` and `answer` (a reference) may be there; others are ignored. Fields
// are quoted as RFC 4180 says. where: the table's name. Throws Error(bad_data) naming the row.
std::vector<TableDocument> documents_of_table(std::string_view text, const std::string& where);

}  // namespace starattn
