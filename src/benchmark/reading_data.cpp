// SPDX-License-Identifier: Apache-2.0
#include "benchmark/reading_data.h"

#include <algorithm>
#include <unordered_map>

#include "base/error.h"
#include "base/json.h"

namespace starattn {
namespace {

// The documents so far, each kept once.
class Shelf {
 public:
  explicit Shelf(std::vector<std::string>& documents) : documents_(&documents) {}
  std::int64_t place_of(const std::string& text) {
    const auto [found, is_new] = places_.emplace(text, documents_->size());
    if (is_new) documents_->push_back(text);
    return found->second;
  }

 private:
  std::vector<std::string>* documents_;
  std::unordered_map<std::string, std::int64_t> places_;
};

// The result is a part of `json`.
const Json& array_in(const Json& json, const std::string& where, const char* key) {
  const JsonObject object(json, where);
  const Json& array = object.get(key);
  if (!array.is_array())
    fail(Exit::bad_data, "{}: key '{}': expected an array, got {}", where, key, array.type_name());
  return array;
}

std::string text_of(const Json& json, const std::string& where) {
  if (!json.is_string())
    fail(Exit::bad_data, "{}: expected a string, got {}", where, json.type_name());
  return json.get<std::string>();
}

// {"data": [{"paragraphs": [{"context", "qas": [{"question", "answers": [{"text"}]}]}]}]}
void read_squad(const Json& json, ReadingData& data) {
  Shelf shelf(data.documents);
  int n_articles = 0;
  for (const Json& article : array_in(json, data.source, "data")) {
    const std::string where = fmt::format("{}: article {}", data.source, n_articles++);
    const Json& paragraphs = array_in(article, where, "paragraphs");
    std::vector<std::int64_t> places;
    for (const Json& paragraph : paragraphs)
      places.push_back(shelf.place_of(JsonObject(paragraph, where).get_string("context")));
    for (std::size_t p = 0; p < paragraphs.size(); ++p) {
      for (const Json& item : array_in(paragraphs[p], where, "qas")) {
        const JsonObject qa(item, fmt::format("{}: paragraph {}", where, p));
        ReadingData::Question question{qa.get_string("question"), {}, {places[p]}, {}};
        for (const Json& answer : array_in(qa.json(), qa.where(), "answers"))
          question.answers.push_back(JsonObject(answer, qa.where()).get_string("text"));
        if (question.answers.empty() || qa.find_bool("is_impossible").value_or(false)) continue;
        std::copy_if(places.begin(), places.end(), std::back_inserter(question.near),
                     [&](std::int64_t place) { return place != places[p]; });
        data.questions.push_back(std::move(question));
      }
    }
  }
}

// [{"question", "answer", "context": [[title, [sentence, ...]], ...]}]
void read_hotpot(const Json& json, ReadingData& data) {
  if (!json.is_array())
    fail(Exit::bad_data, "{}: expected an array of questions, got {}", data.source,
         json.type_name());
  Shelf shelf(data.documents);
  for (std::size_t i = 0; i < json.size(); ++i) {
    const JsonObject item(json[i], fmt::format("{}: question {}", data.source, i));
    ReadingData::Question question{
        item.get_string("question"), {item.get_string("answer")}, {}, {}};
    for (const Json& document : array_in(item.json(), item.where(), "context")) {
      const std::string where = item.where() + ": key 'context'";
      if (!document.is_array() || document.size() != 2 || !document[1].is_array())
        fail(Exit::bad_data, "{}: expected [title, [sentence, ...]]", where);
      std::string text = text_of(document[0], where) + "\n";
      for (const Json& sentence : document[1]) text += text_of(sentence, where);
      question.own.push_back(shelf.place_of(text));
    }
    data.questions.push_back(std::move(question));
  }
}

}  // namespace

ReadingData read_reading_data(const std::string& path, std::string_view task) {
  const Json json = read_json_file(path);
  ReadingData data;
  data.source = path.substr(path.find_last_of('/') + 1);
  if (task == "qa_1") {
    read_squad(json, data);
  } else {
    read_hotpot(json, data);
  }
  if (data.empty())
    fail(Exit::bad_data, "{}: expected at least one question with an answer, got none", path);
  return data;
}

}  // namespace starattn
