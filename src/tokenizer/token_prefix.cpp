// SPDX-License-Identifier: Apache-2.0
#include "tokenizer/token_prefix.h"

#include "base/error.h"
#include "tokenizer/unsupported.h"

namespace starattn {
namespace {

constexpr std::size_t kMaxPrefix = 64;

class PrefixReader {
 public:
  explicit PrefixReader(FunctionRef<bool(Token)> knows) : knows_(knows) {}

  void read(const JsonObject& json) {
    const std::string type = json.get_string("type");
    if (type == "Sequence") {
      for (const Json& step : json.get("processors")) read({step, json.where()});
    } else if (type == "TemplateProcessing") {
      read_template(json);
    } else if (type != "ByteLevel") {  // which only moves offsets
      unsupported(json.where(), "post-processor '" + type + "'",
                  "TemplateProcessing, ByteLevel and Sequence are");
    }
  }

  std::vector<Token> take() { return std::move(prefix_); }

 private:
  // "single": [{"SpecialToken": {"id": "<s>", ...}}, {"Sequence": {...}}, ...]
  void read_template(const JsonObject& json) {
    const Json& single = json.get("single");
    if (!single.is_array()) fail(Exit::bad_data, "{}: single: expected an array", json.where());
    for (const Json& entry : single) {
      const JsonObject item(entry, json.where() + ": single");
      if (!item.has("SpecialToken")) return;  // the text itself
      add(json.get_object("special_tokens"), item.get_object("SpecialToken").get_string("id"));
    }
  }

  void add(const JsonObject& special_tokens, const std::string& name) {
    const JsonObject entry = special_tokens.get_object(name.c_str());
    for (const Json& id : entry.get("ids")) {
      const bool is_id = id.is_number_unsigned() && id.get<std::uint64_t>() <= INT32_MAX;
      if (!is_id || !knows_(id.get<Token>())) {
        fail(Exit::bad_data, "{}: ids: {} is not the id of a token", entry.where(),
             to_line(id).substr(0, 80));
      }
      prefix_.push_back(id.get<Token>());
      if (prefix_.size() > kMaxPrefix) {
        fail(Exit::bad_data, "{}: more than {} tokens in front of a text", entry.where(),
             kMaxPrefix);
      }
    }
  }

  FunctionRef<bool(Token)> knows_;
  std::vector<Token> prefix_;
};

}  // namespace

std::vector<Token> read_prefix(const JsonObject& tokenizer, FunctionRef<bool(Token)> knows) {
  PrefixReader reader(knows);
  if (tokenizer.has("post_processor")) reader.read(tokenizer.get_object("post_processor"));
  return reader.take();
}

}  // namespace starattn
