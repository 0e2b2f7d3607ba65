// SPDX-License-Identifier: Apache-2.0
#include "io/request.h"

#include <gtest/gtest.h>

#include "../temporary_folder.h"
#include "base/error.h"
#include "io/completion.h"

namespace starattn {
namespace {

Json line_of(const Json& body, const std::string& url = "/v1/chat/completions") {
  return {{"custom_id", "a"}, {"method", "POST"}, {"url", url}, {"body", body}};
}

Json user(const Json& content) {
  return {{"messages", Json::array({{{"role", "user"}, {"content", content}}})}};
}

Document parse(const Json& line, const std::string& marker = "") {
  return parse_request(to_line(line), 7, "in.jsonl:7", marker);
}

std::string failure_of(const Json& line, const std::string& marker = "") {
  try {
    parse(line, marker);
  } catch (const Error& error) {
    EXPECT_EQ(error.exit(), Exit::bad_data);
    return error.what();
  }
  return "";
}

// "context|question"
std::string split(const Json& line, const std::string& marker = "") {
  const Document document = parse(line, marker);
  return document.context + "|" + document.queries[0].text;
}

TEST(Request, IsKnownByItsKeys) {
  EXPECT_TRUE(is_request(to_line(line_of(user("c")))));
  EXPECT_TRUE(is_request(R"({"custom_id": "a", "method": "POST", "body": {)"));  // torn
  EXPECT_FALSE(is_request(R"({"context": "c", "queries": ["q"]})"));
  EXPECT_FALSE(is_request(R"({"context": "\"custom_id\" \"body\"", "queries": ["q"]})"));
  EXPECT_FALSE(
      is_request(R"({"context": "c", "queries": ["q"], "meta": {"custom_id": 1, "body": 2}})"));
  EXPECT_FALSE(is_request("[1]"));
}

TEST(Request, SaysWhatItAsksFor) {
  Json body = user("The text.\n\nWhat?");
  body.update({{"model", "m"},
               {"max_tokens", 5},
               {"max_completion_tokens", 6},
               {"seed", -1},
               {"temperature", 0.5},
               {"top_p", 0.9},
               {"stop", "x"},
               {"logprobs", true},
               {"top_logprobs", 3},
               {"n", 1},
               {"stream", false},
               {"user", "u"},
               {"tools", nullptr}});
  const Document document = parse(line_of(body));
  EXPECT_EQ(document.id, "a");
  EXPECT_EQ(document.kind, DocumentKind::chat);
  ASSERT_EQ(document.queries.size(), 1U);
  const Query& query = document.queries[0];
  EXPECT_EQ(query.id, "a");
  EXPECT_EQ(query.max_new_tokens, 6);
  EXPECT_EQ(query.stop, std::vector<std::string>{"x"});
  EXPECT_EQ(query.request.line, 7);
  EXPECT_EQ(query.request.model, "m");
  EXPECT_EQ(query.request.temperature, 0.5);
  EXPECT_EQ(query.request.top_p, 0.9);
  EXPECT_EQ(query.request.seed, UINT64_MAX);
  EXPECT_EQ(query.request.n_logprobs, 3);
  const Query plain = parse(line_of(user("What?"))).queries[0];
  EXPECT_FALSE(plain.max_new_tokens || plain.stop || plain.request.temperature ||
               plain.request.top_p || plain.request.seed || plain.request.n_logprobs);
}

TEST(Request, AsksItsLastParagraph) {
  EXPECT_EQ(split(line_of(user("One.\n\nTwo.\n\nWhat?"))), "One.\n\nTwo.|\n\nWhat?");
  EXPECT_EQ(split(line_of(user("One.\r\n \t\r\nWhat?\n\n"))), "One.|\r\n \t\r\nWhat?\n\n");
  EXPECT_EQ(split(line_of(user("One.\nWhat?"))), "|One.\nWhat?");
  EXPECT_EQ(split(line_of(user("\n\nWhat?"))), "|\n\nWhat?");
  EXPECT_EQ(split(line_of(user("What?\n\n\n"))), "|What?\n\n\n");
  EXPECT_EQ(split(line_of({{"prompt", "One.\n\nWhat?"}}, "/v1/completions")), "One.|\n\nWhat?");
}

TEST(Request, AsksItsLastPartOrWhatFollowsTheMarker) {
  const auto part = [](const char* text) -> Json { return {{"type", "text"}, {"text", text}}; };
  const Json parts = Json::array({part("One."), part("Two."), part("What?\n\nWhy?")});
  EXPECT_EQ(split(line_of(user(parts))), "One.\nTwo.|\nWhat?\n\nWhy?");
  const Json text = user("Q: old One.\n\nQ: What?\n\nAnswer:");
  EXPECT_EQ(split(line_of(text), "Q:"), "Q: old One.|\n\nQ: What?\n\nAnswer:");
  EXPECT_EQ(split(line_of(user("Q: What?")), "Q:"), "|Q: What?");
  EXPECT_NE(failure_of(line_of(text), "Question:").find("--question-marker"), std::string::npos);
}

TEST(Request, AsksItsLastMessageAboutALongerConversation) {
  const auto turns = [](const char* before, const char* last) {
    return line_of({{"messages", Json::array({{{"role", "developer"}, {"content", before}},
                                              {{"role", "user"}, {"content", last}}})}});
  };
  EXPECT_EQ(split(turns("A long text.", "A\n\nB?")), "|A\n\nB?");
  EXPECT_EQ(split(turns("Be kind.", "A long text.\n\nB?")), "A long text.|\n\nB?");
  const Document document = parse(turns("A long text.", "A?"));
  ASSERT_EQ(document.messages.size(), 1U);
  EXPECT_EQ(document.messages[0].role, "system");
  EXPECT_EQ(document.messages[0].text, "A long text.");
}

TEST(Request, AsksAllOfItAboutAFile) {
  Json body = user("One.\n\nWhat?");
  body["context_file"] = "book.txt";
  const Document document = parse(line_of(body));
  EXPECT_EQ(document.context_file, "book.txt");
  EXPECT_EQ(document.context, "");
  EXPECT_EQ(document.queries[0].text, "\n\nOne.\n\nWhat?");
}

TEST(Request, SaysWhatItsAnswerLooksLike) {
  using Kind = AnswerForm::Kind;
  const auto form = [](const char* key, const Json& value) {
    Json body = user("What?");
    body[key] = value;
    return parse(line_of(body)).queries[0].form;
  };
  const Json schema = {{"type", "integer"}};
  EXPECT_EQ(form("response_format",
                 {{"type", "json_schema"}, {"json_schema", {{"name", "x"}, {"schema", schema}}}}),
            (AnswerForm{Kind::schema, {R"({"type":"integer"})"}}));
  EXPECT_EQ(form("response_format", {{"type", "json_object"}}), (AnswerForm{Kind::json, {}}));
  EXPECT_EQ(form("response_format", {{"type", "text"}}), AnswerForm{});
  EXPECT_EQ(form("guided_json", schema), (AnswerForm{Kind::schema, {R"({"type":"integer"})"}}));
  EXPECT_EQ(form("guided_regex", "a+"), (AnswerForm{Kind::regex, {"a+"}}));
  EXPECT_EQ(form("structured_outputs", {{"choice", {"a", "b"}}}),
            (AnswerForm{Kind::choice, {"a", "b"}}));
  EXPECT_EQ(form("user", "somebody"), std::nullopt);
}

TEST(Request, TakesWhatAsksForNothing) {
  Json body = user("What?");
  const Json nothing = {{"n", 1},
                        {"top_k", 0},
                        {"stream", false},
                        {"tools", Json::array()},
                        {"tool_choice", "auto"},
                        {"logit_bias", Json::object()},
                        {"stop_token_ids", nullptr}};
  body.update(nothing);
  EXPECT_EQ(parse(line_of(body)).queries.size(), 1U);
  body["top_k"] = -1;
  body["tool_choice"] = "none";
  EXPECT_EQ(parse(line_of(body)).queries.size(), 1U);
}

TEST(Request, RefusesWhatIsWrongByName) {
  const auto with = [](const char* key, const Json& value) {
    Json body = user("What?");
    body[key] = value;
    return line_of(body);
  };
  const auto messages = [](const Json& list) { return line_of({{"messages", list}}); };
  const auto part = [](const char* text) -> Json { return {{"type", "text"}, {"text", text}}; };
  const Json assistant = {{"role", "assistant"}, {"content", "x"}};
  Json other_method = line_of(user("What?"));
  other_method["method"] = "GET";
  Json no_name = line_of(user("What?"));
  no_name["custom_id"] = "";
  const std::pair<Json, const char*> cases[] = {
      {with("n", 2), "'n': nothing but 1"},
      {with("response_format", {{"type", "grammar"}}), "expected json_schema, json_object or text"},
      {with("response_format", {{"type", "json_schema"}}), "'json_schema' is missing"},
      {with("structured_outputs", {{"regex", "a"}, {"choice", Json::array({"b"})}}),
       "expected one of"},
      {with("guided_choice", "a"), "an array of texts"},
      {with("tools", Json::array({1})), "'tools'"},
      {with("tool_choice", "required"), "'tool_choice': nothing but \"none\""},
      {with("top_k", 5), "'top_k': nothing but -1"},
      {with("temprature", 1), "'temprature'; the keys are messages"},
      {with("temperature", -1), "'temperature': expected a number from 0 to 100, got -1"},
      {with("top_p", 2), "'top_p'"},
      {with("max_tokens", 0), "'max_tokens'"},
      {with("seed", 1.5), "'seed'"},
      {with("stop", 5), "'stop'"},
      {with("stop", Json::array({"a", 5})), "'stop'"},
      {with("top_logprobs", 2), "'top_logprobs': only with"},
      {with("context_file", 1), "'context_file'"},
      {messages(Json::array()), "at least one message"},
      {messages("x"), "'messages'"},
      {messages(Json::array({1})), "message 0"},
      {messages(Json::array({assistant})), "has to be user, got assistant"},
      {messages(Json::array({{{"role", "tool"}, {"content", "x"}}})), "got 'tool'"},
      {line_of(user(" \n\n ")), "the text is empty"},
      {line_of(user(Json::array())), "'content'"},
      {line_of(user(Json::array({{{"type", "image_url"}}}))), "nothing but text"},
      {line_of(user(nullptr)), "'content' is missing"},
      {line_of(user(Json::array({part("One."), part(" \n")}))), "which is the question, is empty"},
      {messages(
           Json::array({{{"role", "user"}, {"content", "x"}, {"images", Json::array({"a"})}}})),
       "message 0: unknown key 'images'; the keys are role, content"},
      {line_of({{"prompt", Json::array({1})}}, "/v1/completions"), "'prompt'"},
      {line_of(user("What?"), "/v1/completions"), "unknown key 'messages'; the keys are prompt"},
      {line_of(user("What?"), "/v1/embeddings"), "'url'"},
      {other_method, "'method'"},
      {no_name, "'custom_id': the text is empty"},
      {{{"custom_id", "a"}, {"body", 1}}, "'method' is missing"}};
  for (const auto& [line, text] : cases) {
    const std::string failure = failure_of(line);
    EXPECT_TRUE(failure.starts_with("in.jsonl:7")) << failure;
    EXPECT_NE(failure.find(text), std::string::npos) << failure << "\nwithout " << text;
  }
}

TEST(Request, TakesTheTurnsOfAnswers) {
  const Json answer = {{"role", "assistant"},      {"content", "x"},
                       {"refusal", nullptr},       {"tool_calls", Json::array()},
                       {"reasoning_content", "y"}, {"annotations", Json::array()}};
  const Json last = {{"role", "user"}, {"content", "What?"}, {"name", "somebody"}};
  const Document document = parse(line_of({{"messages", Json::array({answer, last})}}));
  ASSERT_EQ(document.messages.size(), 1U);
  EXPECT_EQ(document.messages[0].text, "x");
}

TEST(Request, OpensAFileThatIsReadTwice) {
  const TemporaryFolder folder;
  folder.write("requests.jsonl", "\n" + to_line(line_of(user("c"))) + "\n");
  folder.write("documents.jsonl", R"({"context": "c", "queries": ["q"]})");
  folder.write("empty.jsonl", "");
  EXPECT_TRUE(is_request_file(folder.path() + "/requests.jsonl"));
  EXPECT_FALSE(is_request_file(folder.path() + "/documents.jsonl"));
  EXPECT_FALSE(is_request_file(folder.path() + "/empty.jsonl"));
  EXPECT_FALSE(is_request_file(folder.path() + "/missing.jsonl"));
  EXPECT_FALSE(is_request_file("-"));
}

TEST(Completion, LinesAreKnownAgain) {
  Answer answer;
  answer.query_id = "a";
  answer.text = " yes";
  answer.tokens = {1, 2};
  answer.finish_reason = "stop";
  answer.n_context = 10;
  answer.n_query = 3;
  RequestFields request;
  request.model = "m";
  for (const DocumentKind kind : {DocumentKind::chat, DocumentKind::completion}) {
    const Json line = Json::parse(to_completion_line(answer, kind, request, 5));
    const AnswerKey key = key_of_completion(line, "out:1");
    EXPECT_EQ(key.id, "a");
    EXPECT_FALSE(key.is_error);
    EXPECT_NO_THROW(check_completion_line(line, "out:1"));
    const Json& body = line["response"]["body"];
    EXPECT_EQ(body["usage"],
              (Json{{"prompt_tokens", 13}, {"completion_tokens", 2}, {"total_tokens", 15}}));
    EXPECT_EQ(body["model"], "m");
    EXPECT_EQ(body["created"], 5);
    EXPECT_TRUE(body["choices"][0]["logprobs"].is_null());
    Json broken = line;
    broken["response"]["body"]["choices"][0] = {{"index", 0}};
    EXPECT_THROW(check_completion_line(broken, "out:1"), Error);
    broken["response"] = nullptr;
    EXPECT_THROW(check_completion_line(broken, "out:1"), Error);
  }
  const Json error = Json::parse(to_completion_error("a", "why"));
  EXPECT_TRUE(key_of_completion(error, "out:1").is_error);
  EXPECT_EQ(error["response"]["body"]["error"]["message"], "why");
  EXPECT_TRUE(Json::parse(to_completion_error("", "why"))["custom_id"].is_null());
}

TEST(Completion, LogprobsAreThoseOfTheirKind) {
  Answer answer;
  answer.query_id = "a";
  answer.token_logprobs = {{{" y", -0.5F}, {{" y", -0.5F}, {" n", -1.5F}}}, {{"es", -0.25F}, {}}};
  const Json chat = Json::parse(to_completion_line(answer, DocumentKind::chat, {}, 0));
  const Json& content = chat["response"]["body"]["choices"][0]["logprobs"]["content"];
  EXPECT_EQ(content[0]["token"], " y");
  EXPECT_EQ(content[0]["bytes"], (Json{32, 121}));
  EXPECT_EQ(content[0]["top_logprobs"][1]["logprob"], -1.5);
  const Json plain = Json::parse(to_completion_line(answer, DocumentKind::completion, {}, 0));
  const Json& logprobs = plain["response"]["body"]["choices"][0]["logprobs"];
  EXPECT_EQ(logprobs["tokens"], (Json{" y", "es"}));
  EXPECT_EQ(logprobs["token_logprobs"], (Json{-0.5, -0.25}));
  EXPECT_EQ(logprobs["top_logprobs"][0], (Json{{" y", -0.5}, {" n", -1.5}}));
  EXPECT_EQ(logprobs["text_offset"], (Json{0, 2}));
  answer.token_logprobs = {{{"é\xc3", -1.0F}, {}}, {{"\xa9x", -1.0F}, {}}, {{"y", -1.0F}, {}}};
  const Json other = Json::parse(to_completion_line(answer, DocumentKind::completion, {}, 0));
  EXPECT_EQ(other["response"]["body"]["choices"][0]["logprobs"]["text_offset"], (Json{0, 2, 3}))
      << "in characters";
}

}  // namespace
}  // namespace starattn
