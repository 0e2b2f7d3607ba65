// SPDX-License-Identifier: Apache-2.0
// What stands beside a tokenizer: tokenizer_config.json, and behind each byte 0xff
// chat_template.jinja, added_tokens.json, special_tokens_map.json. Then the markup that they lead
// to.
#include <array>

#include "../tokenizer/byte_tokenizer.h"
#include "fuzz.h"
#include "tokenizer/chat.h"
#include "tokenizer/chat_template.h"
#include "tokenizer/tokenizer_config.h"

using namespace starattn;

STARATTN_FUZZ_TARGET {
  static const fuzz::Folder folder;
  static const std::array names{"tokenizer_config.json", "chat_template.jinja", "added_tokens.json",
                                "special_tokens_map.json"};
  texts_of_template(input);
  for (const char* name : names) {
    const std::size_t cut = input.find('\xff');
    if (input.empty()) {
      ::unlink(folder.file(name).c_str());
    } else {
      folder.write(name, input.substr(0, cut));
    }
    input = cut == std::string_view::npos ? "" : input.substr(cut + 1);
  }
  folder.write("tokenizer.json", to_line(byte_tokenizer({"<|im_start|>", "<|im_end|>", "<|eot_id|>",
                                                         "<|begin_of_text|>", "<|start_header_id|>",
                                                         "<|end_header_id|>"})));
  fuzz::only_refuses([&] {
    const auto tokenizer = Tokenizer::open(folder.path());
    const ChatStyle style = chat_style_from_name("auto", folder.path(), *tokenizer);
    describe(style);
    wrap_context(style, *tokenizer, "one", SpecialTokens::text);
    wrap_query(style, *tokenizer, "two", SpecialTokens::text);
  });
}
