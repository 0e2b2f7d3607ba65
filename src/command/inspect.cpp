// SPDX-License-Identifier: Apache-2.0
// inspect: what a model folder, a checkpoint directory or a file of answers holds.
#include <sys/stat.h>
#include <unistd.h>

#include <iostream>
#include <map>

#include "base/error.h"
#include "base/json.h"
#include "base/log.h"
#include "base/text.h"
#include "command/commands.h"
#include "command/inspect_checkpoint.h"
#include "io/completion.h"
#include "io/document.h"
#include "io/line_digest.h"
#include "io/line_reader.h"
#include "io/request.h"
#include "model/config.h"
#include "model/model_folder.h"
#include "model/weights.h"
#include "tokenizer/tokenizer.h"

namespace starattn {
namespace {

struct InspectOptions {
  std::string path;
  std::string input;
  bool verify = false;
  bool json = false;
};

bool is_file(const std::string& path) {
  struct stat info {};
  return ::stat(path.c_str(), &info) == 0 && S_ISREG(info.st_mode);
}

Exit inspect_model(const std::string& folder, bool as_json) {
  const ModelConfig config = read_model_config(folder);
  const ModelWeights weights = ModelWeights::open(folder, config);
  if (as_json) {
    const auto tokenizer = Tokenizer::open(folder);
    const Json json = {{"schema", "starattn-model-1"},
                       {"architecture", config.architecture},
                       {"parameters", n_parameters(config)},
                       {"layers", config.n_layers},
                       {"hidden_size", config.hidden_size},
                       {"heads", config.n_heads},
                       {"kv_heads", config.n_kv_heads},
                       {"head_dim", config.head_dim},
                       {"positions", config.max_positions},
                       {"weight_bytes", weights.total_bytes()},
                       {"weight_files", weights.files().size()},
                       {"kv_token_bytes",
                        {{"f32", config.kv_bytes_per_token(Dtype::f32)},
                         {"bf16", config.kv_bytes_per_token(Dtype::bf16)}}},
                       {"vocabulary", tokenizer->vocab_size()}};
    std::cout << to_line(json) << "\n";
    return Exit::ok;
  }
  std::cout << fmt::format("model      {}\n", describe(config));
  std::cout << fmt::format("weights    {} in {} file(s)\n", human_bytes(weights.total_bytes()),
                           weights.files().size());
  std::cout << fmt::format("KV cache   {} a token in f32, {} in bf16\n",
                           human_bytes(config.kv_bytes_per_token(Dtype::f32)),
                           human_bytes(config.kv_bytes_per_token(Dtype::bf16)));
  const auto tokenizer = Tokenizer::open(folder);
  std::cout << fmt::format("tokenizer  {} tokens, {} in front of a context\n",
                           with_commas(tokenizer->vocab_size()), tokenizer->prefix().size());
  return Exit::ok;
}

// Questions and references by (document id, query id). What cannot be read has an error line.
std::map<std::pair<std::string, std::string>, Query> read_queries(const std::string& path) {
  std::map<std::pair<std::string, std::string>, Query> queries;
  const bool is_of_requests = is_request_file(path);
  LineReader reader(path);
  while (const auto line = reader.next()) {
    const std::string where = fmt::format("{}:{}", path, line->number);
    try {
      const Document document = is_of_requests ? parse_request(line->text, line->number, where, "")
                                               : parse_document(line->text, line->number, where);
      for (const Query& query : document.queries) queries[{document.id, query.id}] = query;
    } catch (const Error& error) {
      log::warn("{}", error.what());
    }
  }
  return queries;
}

// A line of answers, of both formats.
struct Shown {
  std::string id, query_id;
  std::string text;  // the answer, or why there is none
  bool is_error = false;
  std::optional<double> score;
};

Shown shown_of_completion(const JsonObject& line) {
  Shown shown;
  shown.id = shown.query_id = line.find_string("custom_id").value_or("?");
  shown.is_error = line.has("error");
  if (shown.is_error) {
    shown.text = line.get_object("error").get_string("message");
    return shown;
  }
  check_completion_line(line.json(), line.where());
  const Json& choice = line.json()["response"]["body"]["choices"][0];
  shown.text = (choice.contains("message") ? choice["message"]["content"] : choice["text"])
                   .get<std::string>();
  return shown;
}

Shown shown_of(const JsonObject& line) {
  if (line.json().contains("custom_id") && line.has("response")) return shown_of_completion(line);
  Shown shown;
  shown.id = line.get_string("id");
  shown.is_error = line.has("error");
  if (shown.is_error) {
    shown.text = line.get_string("error");
    return shown;
  }
  shown.query_id = line.get_string("query_id");
  shown.text = line.get_string(line.has("answer") ? "answer" : "pred");
  shown.score = line.find_number("score");
  return shown;
}

std::string trimmed_line(std::string_view text) {
  const std::string line = one_line(text);
  const std::size_t first = line.find_first_not_of(' ');
  return first == std::string::npos ? "" : line.substr(first);
}

Exit inspect_answers(const InspectOptions& options) {
  std::map<std::pair<std::string, std::string>, Query> queries;
  if (!options.input.empty()) queries = read_queries(options.input);
  LineReader reader(options.path);
  std::int64_t n_answers = 0;
  std::int64_t n_errors = 0;
  std::int64_t n_changed = 0;
  std::int64_t n_scores = 0;
  double sum = 0;
  while (const auto line = reader.next()) {
    const std::string where = fmt::format("{}:{}", options.path, line->number);
    const Json json = parse_json(line->text, where);
    const Shown answer = shown_of(JsonObject(json, where));
    if (answer.is_error) {
      ++n_errors;
      if (options.json) continue;
      std::cout << fmt::format("{}\n  error   {}\n", one_line(answer.id), one_line(answer.text));
      continue;
    }
    if (check_digest(line->text) == LineDigest::wrong) {
      ++n_changed;
      log::warn("{}: the line was changed since it was written (its digest is another)", where);
    }
    ++n_answers;
    const std::optional<double>& score = answer.score;
    if (score) {
      ++n_scores;
      sum += *score;
    }
    if (options.json) continue;
    const bool is_request = answer.id == answer.query_id;
    std::cout << (is_request
                      ? one_line(answer.id) + "\n"
                      : fmt::format("{} / {}\n", one_line(answer.id), one_line(answer.query_id)));
    const auto query = queries.find({answer.id, answer.query_id});
    if (query != queries.end())
      std::cout << fmt::format("  asked   {}\n", trimmed_line(query->second.text));
    std::cout << fmt::format("  answer  {}\n", trimmed_line(answer.text));
    if (query != queries.end() && !query->second.answers.empty()) {
      std::cout << fmt::format("  wanted  {}\n",
                               one_line(fmt::format("{}", fmt::join(query->second.answers, " "))));
    }
    if (score) {
      const std::string verdict = *score == 1   ? "right"
                                  : *score == 0 ? "wrong"
                                                : fmt::format("{:.0f} % right", *score * 100);
      std::cout << fmt::format("  {}\n", verdict);
    }
  }
  if (options.json) {
    const Json mean = n_scores > 0 ? Json(sum / static_cast<double>(n_scores)) : Json(nullptr);
    std::cout << to_line({{"schema", "starattn-answers-1"},
                          {"answers", n_answers},
                          {"error_lines", n_errors},
                          {"scored", n_scores},
                          {"mean_score", mean}})
              << "\n";
    return n_changed > 0 ? Exit::bad_data : Exit::ok;
  }
  std::cout << fmt::format("{} answer(s), {} error line(s)", n_answers, n_errors);
  if (n_scores > 0)
    std::cout << fmt::format(", mean score {:.3f} over {}", sum / static_cast<double>(n_scores),
                             n_scores);
  std::cout << "\n";
  return n_changed > 0 ? Exit::bad_data : Exit::ok;
}

Exit inspect(const InspectOptions& options) {
  if (is_file(options.path + "/config.json")) return inspect_model(options.path, options.json);
  if (is_file(options.path)) return inspect_answers(options);
  if (const auto saved = find_checkpoint(options.path)) {
    return inspect_checkpoint(*saved, options.verify, options.json);
  }
  fail(Exit::no_input,
       "{}: expected a model folder (with config.json), a file of answers, or DIR/KEY of a "
       "checkpoint ('starattn checkpoints list DIR' shows the keys){}",
       options.path, what_is_there_instead(options.path));
}

}  // namespace

Command add_inspect(CLI::App& parser) {
  auto options = std::make_shared<InspectOptions>();
  CLI::App* app =
      parser.add_subcommand("inspect", "Show a model, a checkpoint or a file of answers");
  app->add_option("path", options->path, "Model folder, answers file, or DIR/KEY of a checkpoint")
      ->required();
  app->add_option("--input", options->input,
                  "The answers' input file: shows questions and references too");
  app->add_flag("--verify", options->verify,
                "Read a checkpoint's blocks through and check every digest");
  app->add_flag("--json", options->json,
                "Print one line of JSON instead: the model, the checkpoint, or counts of answers");
  return {app, [options] { return inspect(*options); }, [] { return false; }};
}

}  // namespace starattn
