// SPDX-License-Identifier: Apache-2.0
// tokenize: the tokens of a text, a file, or an input's documents, as `run` would give them to the
// model: for a look, and to hold them against another library's.
#include <unistd.h>

#include <algorithm>
#include <iostream>

#include "base/error.h"
#include "base/file.h"
#include "base/log.h"
#include "base/text.h"
#include "command/commands.h"
#include "io/document.h"
#include "io/line_reader.h"
#include "io/request.h"
#include "run/document_task.h"
#include "run/options.h"
#include "tokenizer/unicode.h"

namespace starattn {
namespace {

constexpr std::size_t kMaxFileBytes = std::size_t{1} << 30;

struct TokenizeOptions {
  Options common;
  std::string text;
  std::string file;
  bool json = false;
  bool counts = false;
};

// The bytes that a token stands for; of a part of a character, each as <0xE2>.
std::string piece_of(const Tokenizer& tokenizer, Token token) {
  const std::string bytes = tokenizer.bytes_of(token);
  std::string piece;
  for (std::string_view rest = bytes; !rest.empty();) {
    const Utf8Unit unit = first_unit(rest);
    if (unit.kind == Utf8::character) {
      piece += rest.substr(0, unit.n_bytes);
    } else {
      for (const char byte : rest.substr(0, unit.n_bytes))
        piece += fmt::format("<0x{:02X}>", static_cast<unsigned char>(byte));
    }
    rest.remove_prefix(unit.n_bytes);
  }
  return piece;
}

// {"n_tokens", "ids", "pieces"}
Json described(const Tokenizer& tokenizer, const std::vector<Token>& tokens, bool counts) {
  Json json = {{"n_tokens", tokens.size()}};
  if (counts) return json;
  json["ids"] = tokens;
  json["pieces"] = Json::array();
  for (const Token token : tokens) json["pieces"].push_back(piece_of(tokenizer, token));
  return json;
}

void print_pieces(const Tokenizer& tokenizer, const std::vector<Token>& tokens) {
  for (const Token token : tokens)
    std::cout << fmt::format("{:>8}  {}\n", token, to_line(Json(piece_of(tokenizer, token))));
}

void warn_of_dropped_bytes(std::int64_t n_bytes) {
  if (n_bytes > 0)
    log::warn("{} byte(s) have no token in the vocabulary: left out", with_commas(n_bytes));
}

// A folder with a tokenizer alone will do.
std::unique_ptr<Tokenizer> open_tokenizer(const std::string& folder) {
  const bool has_config = ::access((folder + "/config.json").c_str(), F_OK) == 0;
  return has_config ? Tokenizer::open(folder, read_model_config(folder).vocab_size)
                    : Tokenizer::open(folder);
}

Exit tokenize_text(const TokenizeOptions& options, const std::string& text) {
  const auto tokenizer = open_tokenizer(options.common.model);
  const std::vector<Token> tokens =
      tokenizer->encode(text, options.common.special().value_or(SpecialTokens::text));
  const std::int64_t n_dropped = tokenizer->n_dropped_bytes();
  if (options.json) {
    Json json = described(*tokenizer, tokens, options.counts);
    json["n_bytes"] = text.size();
    json["n_dropped_bytes"] = n_dropped;
    json["prefix"] = tokenizer->prefix();  // what a context would have in front
    std::cout << to_line(json) << "\n";
  } else {
    if (!options.counts) print_pieces(*tokenizer, tokens);
    std::cout << fmt::format("{} token(s) of {} byte(s)\n", with_commas(std::ssize(tokens)),
                             with_commas(std::ssize(text)));
  }
  warn_of_dropped_bytes(n_dropped);
  return Exit::ok;
}

void print_document(const TokenizeOptions& options, const TextModel& model,
                    const Document& document, const DocumentTask& task) {
  const Tokenizer& tokenizer = *model.tokenizer;
  if (options.json) {
    Json json = {{"line", document.line}, {"id", document.id}};
    json["context"] = described(tokenizer, task.context, options.counts);
    json["queries"] = Json::array();
    for (const QueryTask& query : task.queries) {
      Json one = {{"id", document.queries[static_cast<std::size_t>(query.index)].id}};
      one.update(described(tokenizer, query.job.tokens, options.counts));
      json["queries"].push_back(std::move(one));
    }
    json["n_dropped_bytes"] = task.n_dropped_bytes;
    std::cout << to_line(json) << "\n";
    return;
  }
  std::cout << fmt::format("{}: context {} token(s)\n", one_line(document.id),
                           with_commas(std::ssize(task.context)));
  if (!options.counts) print_pieces(tokenizer, task.context);
  for (const QueryTask& query : task.queries) {
    std::cout << fmt::format("{}: query {} {} token(s)\n", one_line(document.id),
                             one_line(document.queries[static_cast<std::size_t>(query.index)].id),
                             with_commas(std::ssize(query.job.tokens)));
    if (!options.counts) print_pieces(tokenizer, query.job.tokens);
  }
}

Exit tokenize_input(const TokenizeOptions& options) {
  const TextModel model = open_text_model(options.common.model, options.common, options.common);
  log::info("chat markup {}", describe(model.chat));
  std::int64_t n_bad = 0;
  std::int64_t n_dropped = 0;
  const bool is_of_requests = is_request_file(options.common.input);
  LineReader reader(options.common.input);
  while (const std::optional<Line> line = reader.next()) {
    const std::string where = fmt::format("{}:{}", options.common.input, line->number);
    try {
      const Document document = is_of_requests ? parse_request(line->text, line->number, where,
                                                               options.common.question_marker)
                                               : parse_document(line->text, line->number, where);
      std::vector<std::int64_t> all(document.queries.size());
      for (std::size_t i = 0; i < all.size(); ++i) all[i] = static_cast<std::int64_t>(i);
      const DocumentTask task =
          tokenize(document, all, options.common.input, options.common, model);
      n_dropped += task.n_dropped_bytes;
      if (!task.bad.empty()) fail(Exit::bad_data, "{}", task.bad.front().error);
      print_document(options, model, document, task);
    } catch (const Error& error) {
      ++n_bad;
      const std::string what = error.what();
      log::error("{}", what.starts_with(where) ? what : error.within(where).what());
    }
  }
  warn_of_dropped_bytes(n_dropped);
  return n_bad > 0 ? Exit::bad_data : Exit::ok;
}

}  // namespace

Command add_tokenize(CLI::App& parser) {
  auto options = std::make_shared<TokenizeOptions>();
  CLI::App* app = parser.add_subcommand(
      "tokenize", "Show the tokens of a text, a file, or an input's documents (no launcher)");
  add_model_options(*app, options->common);
  auto* text = app->add_option("--text", options->text, "This text: no BOS, no chat markup");
  auto* file = app->add_option("--file", options->file, "The text in this file, in the same way")
                   ->excludes(text);
  app->add_option("--input", options->common.input,
                  "Documents and queries, JSON Lines: the tokens that 'run' makes of them")
      ->excludes(text)
      ->excludes(file);
  app->add_flag("--json", options->json, "One line of JSON for a text or a document");
  app->add_flag("--counts", options->counts, "No ids and pieces, only how many");
  add_text_options(*app, options->common);
  add_chat_options(*app, options->common);
  add_length_options(*app, options->common);
  const auto run = [options, text] {
    if (!options->common.input.empty()) return tokenize_input(*options);
    if (text->count() > 0) return tokenize_text(*options, options->text);
    if (options->file.empty()) fail(Exit::usage, "tokenize takes --text, --file or --input");
    return tokenize_text(*options, read_file(options->file, kMaxFileBytes));
  };
  return {app, run, [] { return false; }};
}

}  // namespace starattn
