// SPDX-License-Identifier: Apache-2.0
#include "run/document_task.h"

#include <algorithm>

#include "base/error.h"
#include "base/text.h"
#include "mpi/packed.h"
#include "run/thinking.h"
#include "tokenizer/conversation.h"
#include "trace/range.h"

namespace starattn {
namespace {

void check_tokens(const std::vector<Token>& tokens, const TextModel& model,
                  const std::string& what) {
  const std::int64_t vocab_size = model.config.vocab_size;
  for (std::size_t i = 0; i < tokens.size(); ++i) {
    if (tokens[i] < 0 || tokens[i] >= vocab_size) {
      fail(Exit::bad_data, "{}: token {} is {}, but the model's vocabulary has {}", what, i,
           tokens[i], vocab_size);
    }
    if (model.unusable_tokens.empty()) continue;
    const auto bad = model.unusable_tokens.find(tokens[i]);
    if (bad != model.unusable_tokens.end()) {
      fail(Exit::bad_data, "{}: token {} is {}, whose embedding cannot be used: {}", what, i,
           tokens[i], bad->second);
    }
  }
}

// Fewer than there are in the first n bytes of any text are cut off in the middle of a character.
std::string_view first_bytes(std::string_view text, std::size_t n) {
  while (n > 0 && (static_cast<unsigned char>(text[n]) & 0xc0U) == 0x80U) --n;
  return text.substr(0, n);
}

// A text far beyond the model's positions is known by its beginning: it is refused when that alone
// has twice as many tokens, before the rest is tokenized. what: "context".
void refuse_far_too_long(std::string_view text, SpecialTokens special, const TextModel& model,
                         const std::string& what) {
  constexpr std::int64_t kBytesAToken = 16;  // more than texts have
  const ModelConfig& config = model.config;
  const bool is_long_allowed = model.text_options.allow_long;
  const std::int64_t limit = is_long_allowed
                                 ? config.sliding_window
                                 : std::min(config.max_positions, config.sliding_window);
  if (limit > std::ssize(text) / kBytesAToken) return;
  for (auto n = static_cast<std::size_t>(kBytesAToken * limit); n < text.size(); n *= 2) {
    const std::string_view beginning = first_bytes(text, n);
    const std::int64_t n_tokens = std::ssize(model.tokenizer->encode(beginning, special));
    if (n_tokens < 2 * limit) continue;
    fail(
        Exit::bad_data,
        "{} of {} bytes: the first {} have {} tokens, and the model has {} positions. Shorten it{}",
        what, with_commas(std::ssize(text)), with_commas(std::ssize(beginning)),
        with_commas(n_tokens), with_commas(limit),
        is_long_allowed ? "" : ", or pass --allow-long to go beyond what the model was made for");
  }
}

// How the texts of a document become tokens.
class TaskWriter {
 public:
  TaskWriter(const Document& document, const TextModel& model)
      : document_(document),
        tokenizer_(*model.tokenizer),
        special_(model.text_options.special().value_or(
            carries_markup(document) ? SpecialTokens::parse : SpecialTokens::text)),
        chat_(document.is_published() && model.text_options.chat == "auto" ? ChatStyle()
                                                                           : model.chat) {
    // The published tool's records carry what stands before the question.
    if (document.is_published()) chat_.query_prefix = model.text_options.query_prefix.value_or("");
    if (!document.is_of_requests()) return;
    std::vector<std::string> roles;
    for (const Message& message : document.messages) roles.push_back(message.role);
    roles.emplace_back("user");
    const bool is_chat = document.kind == DocumentKind::chat;
    around_ = markup_around(is_chat ? chat_ : ChatStyle(), tokenizer_, roles);
  }

  SpecialTokens special() const { return special_; }

  // text: context_text(document).
  std::vector<Token> context(std::string_view text) const {
    if (!document_.is_of_requests()) return wrap_context(chat_, tokenizer_, text, special_);
    std::vector<std::string_view> before;
    for (const Message& message : document_.messages) before.emplace_back(message.text);
    return wrap_turns(around_, tokenizer_, before, text, special_);
  }

  bool opens_thinking(const Query& query) const {
    if (!document_.is_of_requests())
      return starattn::opens_thinking(query.text + chat_.trail + chat_.closing);
    const TurnMarkup& last = around_.back();
    return starattn::opens_thinking(query.text + last.trail + last.tokens + last.lead);
  }

  std::vector<Token> query(const Query& query) const {
    if (query.tokens) return *query.tokens;
    if (!document_.is_of_requests()) return wrap_query(chat_, tokenizer_, query.text, special_);
    const bool has_context = !document_.context.empty() || !document_.context_file.empty();
    return wrap_question(around_, tokenizer_, has_context, query.text, special_);
  }

 private:
  // Of prompts and published records whoever wrote them has written the markup, too.
  static bool carries_markup(const Document& document) {
    return document.is_published() || document.kind == DocumentKind::completion;
  }

  const Document& document_;
  const Tokenizer& tokenizer_;
  SpecialTokens special_;
  ChatStyle chat_;
  std::vector<TurnMarkup> around_;  // of requests
};

// The context's text, where it and what was said before it are not far too long.
std::string text_of_context(const Document& document, const TaskWriter& writer,
                            const std::string& input_path, const TextModel& model) {
  const auto check_length = [&](std::string_view text, const std::string& what) {
    refuse_far_too_long(text, writer.special(), model, what);
  };
  for (std::size_t i = 0; i < document.messages.size(); ++i)
    check_length(document.messages[i].text, fmt::format("message {}", i));
  std::string text = context_text(document, input_path);
  check_length(text, "context");
  return text;
}

// Whatever is wrong with a form is said before anything is asked.
void check_form(const QueryTask& task, const TextModel& model) {
  if (task.form.kind == AnswerForm::Kind::text) return;
  if (task.opens_thinking && !model.text_options.splits_thinking()) {
    fail(Exit::bad_data,
         "query '{}': the prompt ends with <think>, behind which an answer has no form: pass "
         "--thinking keep or drop, so that it has one when the thinking is over, or off",
         task.id);
  }
  try {
    grammar_of(task, model);
  } catch (const Error& error) {
    throw error.within(fmt::format("query '{}'", task.id));
  }
}

// n_context: tokens. Throws Error(bad_data) for what cannot be asked.
QueryTask query_task(const Document& document, std::int64_t index, const TaskWriter& writer,
                     std::int64_t n_context, const QueryOptions& options, const TextModel& model) {
  const Query& query = document.queries.at(static_cast<std::size_t>(index));
  const RequestFields& request = query.request;
  QueryTask task;
  task.index = index;
  task.id = query.id;
  refuse_far_too_long(query.text, writer.special(), model, fmt::format("query '{}'", query.id));
  task.job.tokens = writer.query(query);
  task.job.max_new_tokens = query.max_new_tokens.value_or(options.max_new_tokens);
  // A request's draws depend on nothing but what it says itself; with a seed, on that alone.
  if (request.seed) {
    task.job.sampling_key = sampling_key(*request.seed, "", "");
  } else {
    task.job.sampling_key =
        sampling_key(options.seed, document.is_of_requests() ? query.id : document.id, query.id);
  }
  task.job.sampling = {request.temperature.value_or(options.temperature),
                       request.top_p.value_or(options.top_p)};
  task.opens_thinking = writer.opens_thinking(query);
  task.form = query.form.value_or(model.form);
  check_form(task, model);
  task.n_logprobs = request.n_logprobs;
  task.stop = query.stop.value_or(options.stop);
  check_tokens(task.job.tokens, model, fmt::format("query '{}'", query.id));
  if (task.job.tokens.empty()) fail(Exit::bad_data, "query '{}': no tokens", query.id);

  const std::int64_t n_positions = n_context + std::ssize(task.job.tokens);
  if (n_positions + task.job.max_new_tokens > model.config.sliding_window) {
    fail(Exit::bad_data,
         "context of {} tokens, query '{}' of {} and its answer of up to {}: attention of the "
         "model slides over {} positions, and it was made for no more. Shorten the context",
         with_commas(n_context), query.id, task.job.tokens.size(), task.job.max_new_tokens,
         with_commas(model.config.sliding_window));
  }
  if (n_positions > model.config.max_positions && !model.text_options.allow_long) {
    fail(Exit::bad_data,
         "context of {} tokens and query '{}' of {}: the model has {} positions. Shorten the "
         "context, or pass --allow-long to go beyond what the model was made for",
         with_commas(n_context), query.id, task.job.tokens.size(),
         with_commas(model.config.max_positions));
  }
  return task;
}

}  // namespace

DocumentTask tokenize(const Document& document, const std::vector<std::int64_t>& todo,
                      const std::string& input_path, const QueryOptions& options,
                      const TextModel& model) {
  const trace::Range range("tokenize");
  const TaskWriter writer(document, model);
  DocumentTask task;
  task.id = document.id;
  task.is_of_requests = document.is_of_requests();
  std::string text;
  if (!document.context_tokens) text = text_of_context(document, writer, input_path, model);
  const std::int64_t n_dropped_before = model.tokenizer->n_dropped_bytes();
  task.context = document.context_tokens ? *document.context_tokens : writer.context(text);
  if (task.context.empty()) fail(Exit::bad_data, "context: no tokens");
  check_tokens(task.context, model, "context");
  for (const std::int64_t index : todo) {
    try {
      task.queries.push_back(
          query_task(document, index, writer, std::ssize(task.context), options, model));
    } catch (const Error& error) {
      if (!task.is_of_requests) throw;
      task.bad.push_back({index, error.what()});
    }
  }
  task.n_dropped_bytes = model.tokenizer->n_dropped_bytes() - n_dropped_before;
  return task;
}

std::shared_ptr<Grammar> grammar_of(const QueryTask& query, const TextModel& model) {
  if (query.form.kind == AnswerForm::Kind::text) return nullptr;
  const Preamble preamble = !model.text_options.splits_thinking() ? Preamble::none
                            : query.opens_thinking                ? Preamble::rest_of_thinking
                                                                  : Preamble::thinking;
  return model.grammars->of(query.form, preamble);
}

void share(DocumentTask& task, const Communicator& group) {
  task = bcast_packed(group, std::move(task), 0);
}

}  // namespace starattn
