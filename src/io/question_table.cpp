// SPDX-License-Identifier: Apache-2.0
#include "io/question_table.h"

#include <algorithm>
#include <optional>
#include <unordered_map>

#include "base/error.h"
#include "base/json.h"
#include "base/text.h"

namespace starattn {
namespace {

struct Row {
  std::int64_t line = 0;  // where it begins
  std::vector<std::string> fields;
};

// By hand, for the one library that Debian has for it is missing on clusters.
class RowReader {
 public:
  RowReader(std::string_view text, const std::string& where)
      : text_(text), where_(where), separator_(separator_of(text)) {}

  // Rows without anything in them are skipped, as spreadsheets leave them (",,").
  std::optional<Row> next() {
    while (at_ < text_.size()) {
      Row row{line_, {}};
      do {
        row.fields.push_back(field());
      } while (took(separator_));
      took('\r');
      if (took('\n')) ++line_;
      const auto is_empty = [](const std::string& field) { return field.empty(); };
      if (!std::ranges::all_of(row.fields, is_empty)) return row;
    }
    return std::nullopt;
  }

 private:
  static char separator_of(std::string_view text) {
    const std::size_t first = text.find_first_of(",;\t\n");
    return first == std::string_view::npos || text[first] == '\n' ? ',' : text[first];
  }

  bool took(char c) {
    const bool is_there = at_ < text_.size() && text_[at_] == c;
    at_ += is_there;
    return is_there;
  }

  bool is_at_end_of_field() const {
    if (at_ == text_.size()) return true;
    const char c = text_[at_];
    return c == separator_ || c == '\n' || (c == '\r' && text_.substr(at_ + 1, 1) == "\n");
  }

  std::string field() {
    if (took('"')) return quoted_field();
    const std::size_t begin = at_;
    while (!is_at_end_of_field()) ++at_;
    return std::string(text_.substr(begin, at_ - begin));
  }

  std::string quoted_field() {
    const std::int64_t first_line = line_;
    std::string field;
    for (;;) {
      const std::size_t quote = text_.find('"', at_);
      if (quote == std::string_view::npos)
        fail(Exit::bad_data, "{}:{}: a quote (\") is opened and never closed", where_, first_line);
      const std::string_view part = text_.substr(at_, quote - at_);
      line_ += std::ranges::count(part, '\n');
      field += part;
      at_ = quote + 1;
      if (!took('"')) break;
      field += '"';
    }
    if (!is_at_end_of_field()) {
      fail(Exit::bad_data,
           "{}:{}: text behind a closing quote; a quote within a field is written twice (\"\")",
           where_, line_);
    }
    return field;
  }

  std::string_view text_;
  const std::string& where_;
  char separator_;
  std::size_t at_ = 0;
  std::int64_t line_ = 1;
};

std::optional<std::size_t> column(const Row& header, std::string_view name) {
  const auto found = std::ranges::find(header.fields, name);
  if (found == header.fields.end()) return std::nullopt;
  if (std::find(found + 1, header.fields.end(), name) != header.fields.end())
    return std::nullopt;  // twice is as good as not at all
  return static_cast<std::size_t>(found - header.fields.begin());
}

}  // namespace

bool is_question_table(std::string_view path) {
  if (path.ends_with(".gz")) path.remove_suffix(3);
  std::string end(path.substr(path.size() - std::min<std::size_t>(path.size(), 4)));
  std::ranges::transform(end, end.begin(), [](unsigned char c) { return std::tolower(c); });
  return end == ".csv" || end == ".tsv";
}

std::vector<TableDocument> documents_of_table(std::string_view text, const std::string& where) {
  RowReader rows(text, where);
  const Row header = rows.next().value_or(Row{});
  const auto file = column(header, "file");
  const auto question = column(header, "question");
  if (!file || !question) {
    fail(Exit::bad_data,
         "{}:1: expected a row that names the columns, with 'file' and 'question' once each, got "
         "'{}'",
         where, fmt::join(header.fields, "', '"));
  }
  const auto id = column(header, "id");
  const auto answer = column(header, "answer");

  struct Questions {
    std::int64_t line;
    std::string file;
    Json queries = Json::array();
    std::unordered_map<std::string, std::int64_t> line_of_id;
  };
  std::vector<Questions> files;
  std::unordered_map<std::string, std::size_t> place_of;  // in files
  while (const std::optional<Row> row = rows.next()) {
    if (row->fields.size() != header.fields.size()) {
      fail(Exit::bad_data, "{}:{}: expected {} fields, as the first row has, got {}", where,
           row->line, header.fields.size(), row->fields.size());
    }
    const std::string& name = row->fields[*file];
    if (name.empty()) fail(Exit::bad_data, "{}:{}: the row names no file", where, row->line);
    if (row->fields[*question].empty())
      fail(Exit::bad_data, "{}:{}: the row asks nothing", where, row->line);
    const auto [place, is_new] = place_of.try_emplace(name, files.size());
    if (is_new) files.push_back({row->line, name, Json::array(), {}});
    Questions& of = files[place->second];
    Json query = {{"text", row->fields[*question]}};
    std::string query_id = std::to_string(of.queries.size());
    if (id && !row->fields[*id].empty()) query["id"] = query_id = row->fields[*id];
    const auto [first, is_new_id] = of.line_of_id.try_emplace(query_id, row->line);
    if (!is_new_id) {
      fail(Exit::bad_data,
           "{}:{}: two questions about '{}' have the id '{}', this one and that of line {} (a row "
           "without an id has the number of the questions before it)",
           where, row->line, one_line(name), one_line(query_id), first->second);
    }
    if (answer && !row->fields[*answer].empty())
      query["answers"] = Json::array({row->fields[*answer]});
    of.queries.push_back(std::move(query));
  }

  std::vector<TableDocument> documents;
  for (Questions& of : files) {
    const Json document = {
        {"id", of.file}, {"context_file", of.file}, {"queries", std::move(of.queries)}};
    documents.push_back({of.line, document.dump()});
  }
  return documents;
}

}  // namespace starattn
