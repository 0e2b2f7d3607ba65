// SPDX-License-Identifier: Apache-2.0
#define PCRE2_CODE_UNIT_WIDTH 8
#include "tokenizer/pattern.h"

#include <pcre2.h>

#include "base/error.h"
#include "tokenizer/pattern_syntax.h"
#include "tokenizer/unicode.h"

namespace starattn {
namespace {

constexpr std::size_t kMaxPatternBytes = std::size_t{1} << 16;
constexpr std::uint32_t kMaxSteps = 50'000'000;  // a second or so for one match
constexpr std::uint32_t kMaxHeapKiB = 256 << 10;
constexpr std::size_t kJitStackBytes = std::size_t{64} << 20;  // reserved, grown into when needed

std::string message_of(int error) {
  PCRE2_UCHAR text[256] = {};
  pcre2_get_error_message(error, text, sizeof(text));
  return reinterpret_cast<const char*>(text);
}

template <auto free_function>
struct Free {
  template <typename T>
  void operator()(T* object) const {
    free_function(object);
  }
};

}  // namespace

struct Pattern::Compiled {
  std::unique_ptr<pcre2_code, Free<pcre2_code_free>> code;
  std::unique_ptr<pcre2_match_data, Free<pcre2_match_data_free>> match;
  std::unique_ptr<pcre2_match_context, Free<pcre2_match_context_free>> limits;
  std::unique_ptr<pcre2_jit_stack, Free<pcre2_jit_stack_free>> jit_stack;
  std::string where;
};

Pattern Pattern::compile(const std::string& text, unsigned options, const std::string& where) {
  if (text.empty() || text.size() > kMaxPatternBytes) {
    fail(Exit::bad_data, "{}: expected a pattern of 1 to {} bytes, got {}", where, kMaxPatternBytes,
         text.size());
  }
  const std::unique_ptr<pcre2_compile_context, Free<pcre2_compile_context_free>> context(
      pcre2_compile_context_create(nullptr));
  pcre2_set_newline(context.get(), PCRE2_NEWLINE_LF);
  int error = 0;
  PCRE2_SIZE offset = 0;
  auto compiled = std::make_shared<Compiled>();
  compiled->where = where;
  compiled->code.reset(pcre2_compile(reinterpret_cast<PCRE2_SPTR>(text.data()), text.size(),
                                     PCRE2_UTF | options, &error, &offset, context.get()));
  if (!compiled->code) {
    fail(Exit::bad_data, "{}: pattern '{}', byte {}: {}", where, text.substr(0, 200), offset,
         message_of(error));
  }
  // Without JIT (some kernels forbid it) matching is slower, nothing else.
  pcre2_jit_compile(compiled->code.get(), PCRE2_JIT_COMPLETE);
  compiled->match.reset(pcre2_match_data_create_from_pattern(compiled->code.get(), nullptr));
  compiled->limits.reset(pcre2_match_context_create(nullptr));
  compiled->jit_stack.reset(pcre2_jit_stack_create(64 << 10, kJitStackBytes, nullptr));
  if (!compiled->match || !compiled->limits || !compiled->jit_stack) {
    fail(Exit::unfit, "{}: no memory for a pattern", where);
  }
  pcre2_set_match_limit(compiled->limits.get(), kMaxSteps);
  pcre2_set_heap_limit(compiled->limits.get(), kMaxHeapKiB);
  pcre2_jit_stack_assign(compiled->limits.get(), nullptr, compiled->jit_stack.get());
  return Pattern(std::move(compiled));
}

Pattern Pattern::regex(const std::string& expression, const std::string& where) {
  return compile(to_pcre2_syntax(expression, where),
                 PCRE2_UCP | PCRE2_MULTILINE | PCRE2_NEVER_BACKSLASH_C, where);
}

Pattern Pattern::literal(const std::string& text, const std::string& where) {
  return compile(text, PCRE2_LITERAL, where);
}

Pattern Pattern::read(const JsonObject& json, const char* key) {
  const JsonObject pattern = json.get_object(key);
  if (pattern.has("Regex")) return regex(pattern.get_string("Regex"), pattern.where());
  return literal(pattern.get_string("String"), pattern.where());
}

void Pattern::each_match(std::string_view text,
                         FunctionRef<void(std::size_t, std::size_t)> found) const {
  constexpr auto kNowhere = static_cast<std::size_t>(-1);
  std::size_t last_end = kNowhere;
  for (std::size_t at = 0; at <= text.size();) {
    const int status =
        pcre2_match(compiled_->code.get(), reinterpret_cast<PCRE2_SPTR>(text.data()), text.size(),
                    at, PCRE2_NO_UTF_CHECK, compiled_->match.get(), compiled_->limits.get());
    if (status == PCRE2_ERROR_NOMATCH) return;
    if (status < 0) {
      fail(Exit::bad_data,
           "{}: the pattern takes too long behind byte {} of {} ({}). Break up the stretch without "
           "white space that the text has there",
           compiled_->where, at, text.size(), message_of(status));
    }
    const PCRE2_SIZE* range = pcre2_get_ovector_pointer(compiled_->match.get());
    const std::size_t begin = range[0];
    const std::size_t end = range[1];
    if (begin < at || end < begin) {  // \K can do that
      fail(Exit::bad_data, "{}: the pattern matches backwards at byte {}", compiled_->where, at);
    }
    if (begin == end && end == last_end) {  // an empty match behind another: look further on
      at = end < text.size() ? end + character_bytes(text, end) : end + 1;
      continue;
    }
    at = last_end = end;
    found(begin, end);
  }
}

}  // namespace starattn
