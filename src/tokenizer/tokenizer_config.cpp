// SPDX-License-Identifier: Apache-2.0
#include "tokenizer/tokenizer_config.h"

#include <unistd.h>

#include <charconv>
#include <set>

#include "base/error.h"
#include "base/file.h"
#include "tokenizer/vocabulary.h"

namespace starattn {
namespace {

constexpr JsonLimits kLimits{std::size_t{64} << 20, 32};

bool exists(const std::string& path) {
  return ::access(path.c_str(), F_OK) == 0;
}

// A token is written as its content or as an object that holds it.
std::string read_content(const JsonObject& config, const char* key) {
  if (!config.has(key)) return "";
  return config.get(key).is_object() ? config.get_object(key).get_string("content")
                                     : config.get_string(key);
}

// The template itself, or a list of {"name", "template"}: the one named "default".
std::string read_template(const JsonObject& config) {
  if (!config.has("chat_template")) return "";
  const Json& value = config.get("chat_template");
  if (!value.is_array()) return config.get_string("chat_template");
  std::string text;
  for (const Json& entry : value) {
    const JsonObject item(entry, config.where() + ": chat_template");
    if (text.empty() || item.get_string("name") == "default") text = item.get_string("template");
  }
  return text;
}

// "added_tokens_decoder": {"32000": {"content": "<pad>", "special": true, ...}}
void read_added_tokens(const JsonObject& config, std::vector<AddedToken>& tokens) {
  if (!config.has("added_tokens_decoder")) return;
  const JsonObject entries = config.get_object("added_tokens_decoder");
  for (const auto& [key, value] : entries.json().items()) {
    std::int64_t id = -1;
    const auto result = std::from_chars(key.data(), key.data() + key.size(), id);
    if (result.ptr != key.data() + key.size() || id < 0 || id >= Vocabulary::kMaxSize) {
      fail(Exit::bad_data, "{}: '{}' is not the id of a token", entries.where(), key);
    }
    Json entry = value;
    if (entry.is_object()) entry["id"] = id;
    tokens.push_back(AddedToken::read({entry, entries.where() + ": '" + key + "'"}));
  }
}

// What special_tokens_map.json or tokenizer_config.json names: {"eos_token": "</s>",
// "additional_special_tokens": ["<pad>"]}, each as its content or as an object that holds it.
void read_special_tokens(const std::string& path, std::set<std::string>& contents) {
  if (!exists(path)) return;
  const Json file = read_json_file(path, kLimits);
  const JsonObject map(file, path);
  const auto add = [&](const Json& token) {
    if (token.is_string()) contents.insert(token.get<std::string>());
    if (token.is_object() && token.contains("content") && token["content"].is_string())
      contents.insert(token["content"].get<std::string>());
  };
  for (const auto& [key, value] : map.json().items()) {
    if (!key.ends_with("_token") && key != "additional_special_tokens") continue;
    add(value);
    if (!value.is_array()) continue;
    for (const Json& token : value) add(token);
  }
}

// <|im_start|> or [PAD]: such folders rarely name all of their markup.
bool looks_like_markup(const std::string& content) {
  return (content.starts_with('<') && content.ends_with('>')) ||
         (content.starts_with('[') && content.ends_with(']'));
}

// added_tokens.json: {"<pad>": 32000}, which does not say what is special.
void read_added_tokens_file(const std::string& path, const std::set<std::string>& special,
                            std::vector<AddedToken>& tokens) {
  const Json file = read_json_file(path, kLimits);
  const JsonObject entries(file, path);
  for (const auto& [content, id] : entries.json().items()) {
    AddedToken token;
    token.content = content;
    token.special = special.contains(content) || looks_like_markup(content);
    token.id = static_cast<Token>(entries.get_int(content.c_str(), 0, Vocabulary::kMaxSize - 1));
    tokens.push_back(std::move(token));
  }
}

bool is_llama_class(const std::string& tokenizer_class, const std::string& folder) {
  if (!tokenizer_class.empty()) return tokenizer_class.find("LlamaTokenizer") != std::string::npos;
  const std::string path = folder + "/config.json";
  if (!exists(path)) return false;
  const Json config = read_json_file(path, kLimits);
  const std::string type = JsonObject(config, path).find_string("model_type").value_or("");
  return type == "llama" || type == "mistral";
}

}  // namespace

TokenizerConfig read_tokenizer_config(const std::string& folder) {
  TokenizerConfig result;
  if (const std::string path = folder + "/tokenizer_config.json"; exists(path)) {
    const Json file = read_json_file(path, kLimits);
    const JsonObject config(file, path);
    result.is_llama_class =
        is_llama_class(config.find_string("tokenizer_class").value_or(""), folder);
    result.add_bos_token = config.find_bool("add_bos_token");
    result.bos_token = read_content(config, "bos_token");
    result.eos_token = read_content(config, "eos_token");
    result.chat_template = read_template(config);
    read_added_tokens(config, result.added_tokens);
  }
  if (const std::string path = folder + "/added_tokens.json";
      result.added_tokens.empty() && exists(path)) {
    std::set<std::string> special;
    for (const char* name : {"/special_tokens_map.json", "/tokenizer_config.json"})
      read_special_tokens(folder + name, special);
    read_added_tokens_file(path, special, result.added_tokens);
  }
  if (const std::string path = folder + "/chat_template.jinja"; exists(path)) {
    result.chat_template = read_file(path, kLimits.max_bytes);
  }
  return result;
}

}  // namespace starattn
