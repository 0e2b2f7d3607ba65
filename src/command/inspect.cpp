// SPDX-License-Identifier: Apache-2.0
// inspect: what a model folder, a checkpoint directory or a file of answers holds.
#include <sys/stat.h>
#include <unistd.h>

#include <iostream>
#include <map>

#include "base/error.h"
#include "base/json.h"
#include "base/text.h"
#include "command/commands.h"
#include "command/inspect_checkpoint.h"
#include "io/document.h"
#include "io/line_reader.h"
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

// Questions and references by (document id, query id).
std::map<std::pair<std::string, std::string>, Query> read_queries(const std::string& path) {
  std::map<std::pair<std::string, std::string>, Query> queries;
  LineReader reader(path);
  while (const auto line = reader.next()) {
    const Document document =
        parse_document(line->text, line->number, fmt::format("{}:{}", path, line->number));
    for (const Query& query : document.queries) queries[{document.id, query.id}] = query;
  }
  return queries;
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
  std::int64_t n_scores = 0;
  double sum = 0;
  while (const auto line = reader.next()) {
    const std::string where = fmt::format("{}:{}", options.path, line->number);
    const Json json = parse_json(line->text, where);
    const JsonObject answer(json, where);
    const std::string id = answer.get_string("id");
    if (answer.has("error")) {
      ++n_errors;
      if (options.json) continue;
      std::cout << fmt::format("{}\n  error   {}\n", one_line(id),
                               one_line(answer.get_string("error")));
      continue;
    }
    ++n_answers;
    const std::optional<double> score = answer.find_number("score");
    if (score) {
      ++n_scores;
      sum += *score;
    }
    if (options.json) continue;
    const std::string query_id = answer.get_string("query_id");
    std::cout << fmt::format("{} / {}\n", one_line(id), one_line(query_id));
    const auto query = queries.find({id, query_id});
    if (query != queries.end())
      std::cout << fmt::format("  asked   {}\n", trimmed_line(query->second.text));
    const char* text_key = answer.has("answer") ? "answer" : "pred";
    std::cout << fmt::format("  answer  {}\n", trimmed_line(answer.get_string(text_key)));
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
    return Exit::ok;
  }
  std::cout << fmt::format("{} answer(s), {} error line(s)", n_answers, n_errors);
  if (n_scores > 0)
    std::cout << fmt::format(", mean score {:.3f} over {}", sum / static_cast<double>(n_scores),
                             n_scores);
  std::cout << "\n";
  return Exit::ok;
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
