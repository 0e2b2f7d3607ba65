// SPDX-License-Identifier: Apache-2.0
#include "run/model_settings.h"

#include <unistd.h>

#include "base/file.h"
#include "checkpoint/digest.h"
#include "io/answer_writer.h"

namespace starattn {
namespace {

constexpr std::size_t kMaxTokenizerBytes = std::size_t{1} << 30;

// Of the files that decide which tokens a text becomes and what a chat looks like.
Digest tokenizer_digest(const std::string& folder) {
  StreamDigest digest;
  const auto exists = [&](const std::string& name) {
    return ::access((folder + "/" + name).c_str(), F_OK) == 0;
  };
  std::vector<std::string> names = {"tokenizer.json", "tokenizer.model", "tokenizer_config.json",
                                    "added_tokens.json", "chat_template.jinja"};
  if (!exists("tokenizer.json")) names.emplace_back("special_tokens_map.json");
  for (const std::string& name : names) {
    if (!exists(name)) continue;
    const std::string path = folder + "/" + name;
    const std::string bytes = read_file(path, kMaxTokenizerBytes);
    digest.add(fmt::format("{} {} ", name, bytes.size()));
    digest.add(bytes);
  }
  return digest.value();
}

// The default is not what it stands for as a text: the published tool's records do without it.
std::string query_prefix(const LoadedModel& model) {
  if (model.text_options.query_prefix) return *model.text_options.query_prefix;
  return model.chat.query_prefix.empty() ? "" : kDefaultQueryPrefix;
}

// Outputs of version 0.1.0, which did not run templates, do not say what markup they were made
// with: it is said where it is not the same.
bool has_markup_of_0_1_0(const LoadedModel& model) {
  const auto old = chat_style_of_0_1_0(model.text_options.chat, model.folder, *model.tokenizer);
  return old && markup_of(*old) == markup_of(model.chat);
}

}  // namespace

Json model_settings(const LoadedModel& model) {
  Json json;
  json["model"] = describe(model.config);
  json["weights"] = model.weights_sample.hex();
  json["tokenizer"] = tokenizer_digest(model.folder).hex();
  json["eos_tokens"] = model.eos_tokens;
  json["dtype"] = name_of(model.backend->activation_dtype());
  if (model.backend->kv_dtype() == Dtype::f8) json["kv_dtype"] = name_of(Dtype::f8);
  json["chat"] = model.text_options.chat;
  if (!has_markup_of_0_1_0(model)) json["chat_markup"] = markup_of(model.chat);
  json["query_prefix"] = query_prefix(model);
  json["special_tokens"] = model.text_options.special_tokens;
  return json;
}

}  // namespace starattn
