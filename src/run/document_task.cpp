// SPDX-License-Identifier: Apache-2.0
#include "run/document_task.h"

#include <algorithm>

#include "base/error.h"
#include "base/text.h"
#include "mpi/packed.h"
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
void refuse_far_too_long(std::string_view text, const Tokenizer& tokenizer, SpecialTokens special,
                         const Options& options, const ModelConfig& config,
                         const std::string& what) {
  constexpr std::int64_t kBytesAToken = 16;  // more than texts have
  const std::int64_t limit = options.allow_long
                                 ? config.sliding_window
                                 : std::min(config.max_positions, config.sliding_window);
  if (limit > std::ssize(text) / kBytesAToken) return;
  for (auto n = static_cast<std::size_t>(kBytesAToken * limit); n < text.size(); n *= 2) {
    const std::string_view beginning = first_bytes(text, n);
    const std::int64_t n_tokens = std::ssize(tokenizer.encode(beginning, special));
    if (n_tokens < 2 * limit) continue;
    fail(
        Exit::bad_data,
        "{} of {} bytes: the first {} have {} tokens, and the model has {} positions. Shorten it{}",
        what, with_commas(std::ssize(text)), with_commas(std::ssize(beginning)),
        with_commas(n_tokens), with_commas(limit),
        options.allow_long ? ""
                           : ", or pass --allow-long to go beyond what the model was made for");
  }
}

}  // namespace

DocumentTask tokenize(const Document& document, const std::vector<std::int64_t>& todo,
                      const std::string& input_path, const Options& options,
                      const TextModel& model) {
  const trace::Range range("tokenize");
  const SpecialTokens special = options.special().value_or(
      document.is_published ? SpecialTokens::parse : SpecialTokens::text);
  // The published tool's records carry their chat markup, and what stands before the question.
  ChatStyle chat = document.is_published && options.chat == "auto" ? ChatStyle() : model.chat;
  if (document.is_published) chat.query_prefix = options.query_prefix.value_or("");
  const Tokenizer& tokenizer = *model.tokenizer;
  DocumentTask task;
  task.id = document.id;
  std::int64_t n_dropped_before = tokenizer.n_dropped_bytes();
  if (document.context_tokens) {
    task.context = *document.context_tokens;
  } else {
    const std::string text = context_text(document, input_path);
    refuse_far_too_long(text, tokenizer, special, options, model.config, "context");
    n_dropped_before = tokenizer.n_dropped_bytes();
    task.context = wrap_context(chat, tokenizer, text, special);
  }
  if (task.context.empty()) fail(Exit::bad_data, "context: no tokens");
  check_tokens(task.context, model, "context");
  for (const std::int64_t index : todo) {
    const Query& query = document.queries.at(static_cast<std::size_t>(index));
    QueryTask next;
    next.index = index;
    next.id = query.id;
    next.job.tokens =
        query.tokens ? *query.tokens : wrap_query(chat, tokenizer, query.text, special);
    next.job.max_new_tokens = query.max_new_tokens.value_or(options.max_new_tokens);
    next.job.sampling_key = sampling_key(options.seed, document.id, query.id);
    next.stop = query.stop.value_or(options.stop);
    check_tokens(next.job.tokens, model, fmt::format("query '{}'", query.id));
    if (next.job.tokens.empty()) fail(Exit::bad_data, "query '{}': no tokens", query.id);

    const std::int64_t n_positions =
        static_cast<std::int64_t>(task.context.size() + next.job.tokens.size());
    if (n_positions + next.job.max_new_tokens > model.config.sliding_window) {
      fail(Exit::bad_data,
           "context of {} tokens, query '{}' of {} and its answer of up to {}: attention of the "
           "model slides over {} positions, and sliding is not supported. Shorten the context",
           with_commas(static_cast<std::int64_t>(task.context.size())), query.id,
           next.job.tokens.size(), next.job.max_new_tokens,
           with_commas(model.config.sliding_window));
    }
    if (n_positions > model.config.max_positions && !options.allow_long) {
      fail(Exit::bad_data,
           "context of {} tokens and query '{}' of {}: the model has {} positions. Shorten the "
           "context, or pass --allow-long to go beyond what the model was made for",
           with_commas(static_cast<std::int64_t>(task.context.size())), query.id,
           next.job.tokens.size(), with_commas(model.config.max_positions));
    }
    task.queries.push_back(std::move(next));
  }
  task.n_dropped_bytes = tokenizer.n_dropped_bytes() - n_dropped_before;
  return task;
}

void share(DocumentTask& task, const Communicator& group) {
  task = bcast_packed(group, std::move(task), 0);
}

}  // namespace starattn
