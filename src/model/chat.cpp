// SPDX-License-Identifier: Apache-2.0
#include "model/chat.h"

#include <unistd.h>

#include "base/error.h"
#include "base/json.h"

namespace starattn {
namespace {

// The markup around one user turn. Llama 3's template writes no system turn of its own accord;
// Qwen's writes its default one.
struct Markup {
  const char* before_context;
  const char* after_query;
  std::vector<const char*> ends;
};

const Markup& markup_of(ChatStyle style) {
  static const Markup kNone{"", "", {}};
  static const Markup kLlama3{"<|start_header_id|>user<|end_header_id|>\n\n",
                              "<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n",
                              {"<|eot_id|>", "<|eom_id|>"}};
  static const Markup kQwen{
      "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n<|im_start|>user\n",
      "<|im_end|>\n<|im_start|>assistant\n",
      {"<|im_end|>"}};
  return style == ChatStyle::llama3 ? kLlama3 : style == ChatStyle::qwen ? kQwen : kNone;
}

bool has_template(const std::string& folder) {
  if (::access((folder + "/chat_template.jinja").c_str(), F_OK) == 0) return true;
  const std::string path = folder + "/tokenizer_config.json";
  if (::access(path.c_str(), F_OK) != 0) return false;
  const Json json = read_json_file(path);
  return JsonObject(json, path).has("chat_template");
}

void append(std::vector<Token>& tokens, const std::vector<Token>& more) {
  tokens.insert(tokens.end(), more.begin(), more.end());
}

void require_markup(ChatStyle style, std::string_view name, const Tokenizer& tokenizer) {
  for (const char* token : style == ChatStyle::llama3
                               ? std::vector{"<|start_header_id|>", "<|eot_id|>"}
                               : std::vector{"<|im_start|>", "<|im_end|>"}) {
    if (tokenizer.find_token(token) < 0) {
      fail(Exit::usage, "--chat {}: the tokenizer has no token {}", name, token);
    }
  }
}

}  // namespace

ChatStyle chat_style_from_name(std::string_view name, const std::string& model_folder,
                               const Tokenizer& tokenizer) {
  if (name == "none") return ChatStyle::none;
  if (name == "llama3" || name == "qwen") {
    const ChatStyle style = name == "qwen" ? ChatStyle::qwen : ChatStyle::llama3;
    require_markup(style, name, tokenizer);
    return style;
  }
  if (name != "auto")
    fail(Exit::usage, "--chat: expected auto, none, llama3 or qwen, got '{}'", name);
  if (!has_template(model_folder)) return ChatStyle::none;
  if (tokenizer.find_token("<|start_header_id|>") >= 0) return ChatStyle::llama3;
  if (tokenizer.find_token("<|im_start|>") >= 0) return ChatStyle::qwen;
  fail(Exit::bad_data,
       "{}: its chat template is neither Llama 3's nor Qwen's. Write the markup into the records "
       "yourself and pass --chat none --special-tokens parse",
       model_folder);
}

std::vector<Token> wrap_context(ChatStyle style, const Tokenizer& tokenizer, std::string_view text,
                                SpecialTokens special) {
  std::vector<Token> tokens = tokenizer.prefix();
  append(tokens, tokenizer.encode(markup_of(style).before_context, SpecialTokens::parse));
  append(tokens, tokenizer.encode(text, special));
  return tokens;
}

std::vector<Token> wrap_query(ChatStyle style, const Tokenizer& tokenizer, std::string_view text,
                              SpecialTokens special) {
  std::vector<Token> tokens = tokenizer.encode(text, special);
  append(tokens, tokenizer.encode(markup_of(style).after_query, SpecialTokens::parse));
  return tokens;
}

std::vector<Token> stop_tokens(ChatStyle style, const Tokenizer& tokenizer) {
  std::vector<Token> tokens;
  for (const char* end : markup_of(style).ends) {
    if (tokenizer.find_token(end) >= 0) tokens.push_back(tokenizer.find_token(end));
  }
  return tokens;
}

}  // namespace starattn
