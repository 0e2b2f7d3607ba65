// SPDX-License-Identifier: Apache-2.0
#include "tokenizer/chat_template.h"

namespace starattn {
namespace {

// {{ expression }}, {% statement %} or {# comment #}
bool opens_block(std::string_view text) {
  return text.starts_with("{{") || text.starts_with("{%") || text.starts_with("{#");
}

class TemplateReader {
 public:
  explicit TemplateReader(std::string_view rest) : rest_(rest) {}

  std::vector<std::string> texts() {
    while (!rest_.empty()) {
      if (!opens_block(rest_)) {
        read_text();
      } else if (rest_[1] == '#') {
        take(rest_.find("#}"));
        take(2);
      } else {
        read_code(rest_[1] == '{' ? "}}" : "%}");
      }
    }
    return std::move(texts_);
  }

 private:
  std::string_view take(std::size_t n) {
    const std::string_view taken = rest_.substr(0, n);
    rest_.remove_prefix(taken.size());
    return taken;
  }

  void read_text() {
    std::size_t n = 1;
    while (n < rest_.size() && !opens_block(rest_.substr(n))) ++n;
    texts_.emplace_back(take(n));
  }

  void read_code(std::string_view end) {
    take(2);
    while (!rest_.empty() && !rest_.starts_with(end)) {
      const char c = take(1)[0];
      if (c == '\'' || c == '"') read_literal(c);
    }
    take(2);
  }

  void read_literal(char quote) {
    std::string text;
    while (!rest_.empty() && rest_[0] != quote) {
      const char c = take(1)[0];
      text += c == '\\' && !rest_.empty() ? unescaped(take(1)[0]) : c;
    }
    take(1);
    texts_.push_back(std::move(text));
  }

  static char unescaped(char c) { return c == 'n' ? '\n' : c == 't' ? '\t' : c; }

  std::string_view rest_;
  std::vector<std::string> texts_;
};

}  // namespace

std::vector<std::string> texts_of_template(std::string_view chat_template) {
  return TemplateReader(chat_template).texts();
}

}  // namespace starattn
