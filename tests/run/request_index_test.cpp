// SPDX-License-Identifier: Apache-2.0
#include "run/request_index.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include "../temporary_folder.h"
#include "base/error.h"
#include "base/json.h"
#include "io/request.h"

namespace starattn {
namespace {

std::string request(const std::string& id, const std::string& context, const Json& before = {}) {
  Json messages = before.is_null() ? Json::array() : Json::array({before});
  messages.push_back({{"role", "user"}, {"content", context + "\n\nWhat is " + id + "?"}});
  return to_line({{"custom_id", id},
                  {"method", "POST"},
                  {"url", "/v1/chat/completions"},
                  {"body", {{"messages", messages}}}}) +
         "\n";
}

class RequestIndexTest : public ::testing::Test {
 protected:
  RequestIndex index_of(const std::string& lines) {
    folder_.write("in.jsonl", lines);
    RequestIndex index(path_, "");
    LineReader reader(path_);
    while (const auto line = reader.next())
      index.add(index.context_of(parse_request(line->text, line->number, "in", "")), *line);
    return index;
  }

  TemporaryFolder folder_;
  std::string path_ = folder_.path() + "/in.jsonl";
};

std::string ids_of(const Document& document) {
  std::string ids;
  for (const Query& query : document.queries) ids += query.id;
  return ids;
}

TEST_F(RequestIndexTest, EqualContextsAreOneDocument) {
  RequestIndex index = index_of("\xef\xbb\xbf" + request("a", "one") + "\n" + request("b", "two") +
                                request("c", "one") + request("d", "two") + request("e", "three"));
  EXPECT_EQ(index.n_requests(), 5);
  EXPECT_EQ(index.n_contexts(), 3);
  const auto one = index.next();
  ASSERT_TRUE(one);
  EXPECT_EQ(ids_of(*one), "ac");
  EXPECT_EQ(one->context, "one");
  EXPECT_EQ(one->queries[1].text, "\n\nWhat is c?");
  EXPECT_EQ(one->queries[1].request.line, 4);
  EXPECT_EQ(ids_of(*index.next()), "bd");
  EXPECT_EQ(ids_of(*index.next()), "e");
  EXPECT_FALSE(index.next());
  EXPECT_FALSE(index.next());
}

TEST_F(RequestIndexTest, ContextsDifferInAllThatStandsBeforeTheQuestion) {
  const auto turn = [](const char* role, const char* text) {
    return Json{{"role", role}, {"content", text}};
  };
  const RequestIndex index = index_of(
      request("a", "context") + request("b", "context", turn("system", "s")) +
      request("c", "context", turn("user", "s")) + request("d", "context", turn("system", "t")) +
      request("e", "context", turn("system", "s")));
  EXPECT_EQ(index.n_contexts(), 4);
}

TEST_F(RequestIndexTest, ManyQuestionsAreSeveralDocuments) {
  const std::string question(RequestIndex::kMaxQuestionBytes / 2, 'q');
  std::string lines;
  for (const char* id : {"a", "b", "c"}) {
    lines += to_line({{"custom_id", id},
                      {"method", "POST"},
                      {"url", "/v1/completions"},
                      {"body", {{"prompt", "one\n\n" + question}}}}) +
             "\n";
  }
  RequestIndex index = index_of(lines);
  EXPECT_EQ(ids_of(*index.next()), "ab");
  EXPECT_EQ(ids_of(*index.next()), "c");
  EXPECT_FALSE(index.next());
}

TEST_F(RequestIndexTest, AFileThatChangesIsNotedByItsLine) {
  RequestIndex index = index_of(request("a", "one") + request("b", "two"));
  EXPECT_EQ(ids_of(*index.next()), "a");
  const int fd = ::open(path_.c_str(), O_WRONLY);
  ASSERT_EQ(::pwrite(fd, "X", 1, static_cast<off_t>(request("a", "one").size() + 15)), 1);
  ::close(fd);
  try {
    index.next();
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.exit(), Exit::io);
    EXPECT_NE(std::string(error.what()).find("in.jsonl:2"), std::string::npos) << error.what();
  }
}

}  // namespace
}  // namespace starattn
