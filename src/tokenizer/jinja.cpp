// SPDX-License-Identifier: Apache-2.0
#include "tokenizer/jinja.h"

#include <algorithm>
#include <cctype>
#include <initializer_list>
#include <utility>

namespace starattn::jinja {
namespace {

constexpr std::size_t kMaxSourceBytes = std::size_t{1} << 20;
constexpr std::size_t kMaxResultBytes = std::size_t{1} << 20;
constexpr int kMaxDepth = 64;
constexpr int kMaxSteps = 200'000;
constexpr int kMaxCalls = 4;  // of macros within each other, each with a stack of expressions
constexpr const char* kSpace = " \t\r\n\v\f";

// A stretch of text, {{ what is in here }}, or {% what is in here %}.
struct Segment {
  enum class Kind { text, output, statement } kind;
  std::string content;
};

std::string trimmed(std::string_view text) {
  const std::size_t first = text.find_first_not_of(kSpace);
  if (first == std::string_view::npos) return "";
  return std::string(text.substr(first, text.find_last_not_of(kSpace) + 1 - first));
}

// Where the block ends that `source` begins with; texts inside may hold anything.
std::size_t end_of_block(std::string_view source) {
  const std::string_view end = source[1] == '{' ? "}}" : source[1] == '%' ? "%}" : "#}";
  char quote = 0;
  for (std::size_t at = 2; at < source.size(); ++at) {
    const char c = source[at];
    if (quote != 0) {
      if (c == '\\') {
        ++at;
      } else if (c == quote) {
        quote = 0;
      }
    } else if (source.substr(at).starts_with(end)) {
      return at;
    } else if ((c == '\'' || c == '"') && source[1] != '#') {
      quote = c;
    }
  }
  throw NotUnderstood("a block without its end");
}

std::size_t find_block(std::string_view source) {
  for (std::size_t at = 0; at + 1 < source.size(); ++at) {
    const char c = source[at + 1];
    if (source[at] == '{' && (c == '{' || c == '%' || c == '#')) return at;
  }
  return source.size();
}

std::vector<Segment> segments_of(std::string_view source) {
  if (source.ends_with('\n')) source.remove_suffix(1);
  std::vector<Segment> segments;
  bool strips = false;      // a block with - behind stands before
  bool drops_line = false;  // a statement or comment stands before: its line end goes
  bool opens_line = true;   // nothing stands before on this line
  while (!source.empty()) {
    const std::size_t at = find_block(source);
    std::string text(source.substr(0, at));
    source.remove_prefix(at);
    if (drops_line && text.starts_with('\n')) text.erase(0, 1), opens_line = true;
    if (strips) text.erase(0, text.find_first_not_of(kSpace));
    const bool is_statement = source.starts_with("{%") || source.starts_with("{#");
    const std::size_t line = text.find_last_of('\n');
    if (is_statement && !source.substr(2).starts_with('+') &&
        (line != std::string::npos || opens_line)) {
      const std::size_t begin = line == std::string::npos ? 0 : line + 1;
      if (text.find_first_not_of(" \t", begin) == std::string::npos) text.erase(begin);
    }
    if (source.substr(0, 3).ends_with('-') && source.size() > 2)
      text.erase(text.find_last_not_of(kSpace) + 1);
    if (!text.empty()) segments.push_back({Segment::Kind::text, text});
    if (source.empty()) break;

    const std::size_t end = end_of_block(source);
    std::string_view content = source.substr(2, end - 2);
    strips = content.ends_with('-');
    if (content.starts_with('-') || content.starts_with('+')) content.remove_prefix(1);
    if (strips && !content.empty()) content.remove_suffix(1);
    if (source[1] == '{') segments.push_back({Segment::Kind::output, trimmed(content)});
    if (source[1] == '%') segments.push_back({Segment::Kind::statement, trimmed(content)});
    source.remove_prefix(end + 2);
    drops_line = is_statement;
    opens_line = is_statement && source.starts_with('\n');
  }
  return segments;
}

bool is_name(std::string_view text) {
  return !text.empty() &&
         std::ranges::all_of(text, [](unsigned char c) { return std::isalnum(c) || c == '_'; });
}

// What stands between commas, but for those in texts and brackets.
std::vector<std::string_view> parts_of_list(std::string_view list) {
  std::vector<std::string_view> parts;
  std::size_t begin = 0;
  int depth = 0;
  char quote = 0;
  for (std::size_t at = 0; at < list.size(); ++at) {
    const char c = list[at];
    if (quote != 0) {
      if (c == '\\') ++at;
      if (c == quote) quote = 0;
    } else if (c == '\'' || c == '"') {
      quote = c;
    } else if (c == '(' || c == '[' || c == '{') {
      ++depth;
    } else if (c == ')' || c == ']' || c == '}') {
      --depth;
    } else if (c == ',' && depth == 0) {
      parts.push_back(list.substr(begin, at - begin));
      begin = at + 1;
    }
  }
  if (!trimmed(list.substr(begin)).empty()) parts.push_back(list.substr(begin));
  return parts;
}

struct Statement {
  std::string word;
  std::string rest;
};

Statement statement_of(const std::string& content) {
  const std::size_t n = content.find_first_of(" \t\r\n(");
  if (n == std::string::npos) return {content, ""};
  return {content.substr(0, n), trimmed(content.substr(n))};
}

class Run {
 public:
  Run(std::vector<Segment> segments, std::map<std::string, Json> variables)
      : segments_(std::move(segments)), variables_(std::move(variables)) {}

  std::string whole() {
    run(true, {});
    return std::move(result_);
  }

 private:
  using Words = std::initializer_list<std::string_view>;
  struct Parameter {
    std::string name;
    std::string otherwise;  // the expression of what it is where the call says nothing, or none
  };

  // Up to a statement that begins with one of `ends`, which it returns. Not live: nothing is done.
  Statement run(bool is_live, Words ends) {
    if (++depth_ > kMaxDepth) throw NotUnderstood("blocks that are too deep");
    for (; at_ < segments_.size(); ++at_) {
      if (++n_steps_ > kMaxSteps) throw NotUnderstood("a template that takes too long");
      const Segment& segment = segments_[at_];
      if (segment.kind == Segment::Kind::statement) {
        const Statement statement = statement_of(segment.content);
        if (std::find(ends.begin(), ends.end(), statement.word) != ends.end()) {
          --depth_;
          return statement;
        }
        execute(statement, is_live);
      } else if (is_live) {
        result_ += segment.kind == Segment::Kind::text
                       ? segment.content
                       : to_text(evaluate(segment.content, variables_));
        if (result_.size() > kMaxResultBytes) throw NotUnderstood("a text that is too long");
      }
    }
    if (ends.size() > 0) throw NotUnderstood("no " + std::string(*(ends.end() - 1)));
    --depth_;
    return {};
  }
  Statement run_block(bool is_live, Words ends) {  // from the segment behind this one
    ++at_;
    return run(is_live, ends);
  }

  void execute(const Statement& statement, bool is_live) {
    const auto& [word, rest] = statement;
    if (word == "if") {
      execute_if(rest, is_live);
    } else if (word == "for") {
      execute_for(rest, is_live);
    } else if (word == "set") {
      execute_set(rest, is_live);
    } else if (word == "macro") {
      execute_macro(rest, is_live);
    } else if (is_live && word != "generation" && word != "endgeneration") {
      throw NotUnderstood("the statement " + word);
    } else if (word == "call") {
      run_block(false, {"endcall"});
    } else if (word == "filter") {
      run_block(false, {"endfilter"});
    }
  }

  void execute_if(std::string condition, bool is_live) {
    bool is_taken = false;
    for (std::string word = "if"; word != "endif";) {
      const bool is_asked = is_live && !is_taken;
      const bool holds = is_asked && (word == "else" || is_true(evaluate(condition, variables_)));
      const Statement next = run_block(holds, {"elif", "else", "endif"});
      is_taken = is_taken || holds;
      word = next.word;
      condition = next.rest;
    }
  }

  void execute_for(const std::string& rest, bool is_live) {
    const std::size_t in = rest.find(" in ");
    const std::string name = trimmed(std::string_view(rest).substr(0, in));
    Json items = Json::array();
    if (is_live) {
      if (in == std::string::npos || name.find(',') != std::string::npos ||
          rest.find(" if ", in) != std::string::npos) {
        throw NotUnderstood("for " + rest);
      }
      items = evaluate(std::string_view(rest).substr(in + 4), variables_);
      if (!is_true(items)) items = Json::array();
      if (!items.is_array()) throw NotUnderstood("a loop over something that is no list");
    }
    const std::size_t begin = at_;
    const std::size_t n = items.size();
    std::string word;
    for (std::size_t i = 0; i < n; ++i) {
      at_ = begin;
      variables_.open_scope();
      variables_.set(name, items[i]);
      variables_.set("loop", {{"index0", i},
                              {"index", i + 1},
                              {"first", i == 0},
                              {"last", i + 1 == n},
                              {"length", n}});
      word = run_block(true, {"else", "endfor"}).word;
      variables_.close_scope();
    }
    if (n == 0) word = run_block(false, {"else", "endfor"}).word;
    if (word == "else") run_block(is_live && n == 0, {"endfor"});
  }

  // Outside of loops and other macros, whose names it would see as well.
  void execute_macro(const std::string& rest, bool is_live) {
    const std::size_t begin = at_;
    run_block(false, {"endmacro"});
    if (!is_live) return;
    const std::size_t open = rest.find('(');
    const std::string name = trimmed(std::string_view(rest).substr(0, open));
    if (open == std::string::npos || !rest.ends_with(')') || variables_.has_inner_scopes())
      throw NotUnderstood("macro " + rest);
    std::vector<Parameter> parameters;
    const std::string_view list = std::string_view(rest).substr(open + 1);
    for (const std::string_view one : parts_of_list(list.substr(0, list.size() - 1))) {
      const std::size_t equals = std::min(one.size(), one.find('='));
      parameters.push_back(
          {trimmed(one.substr(0, equals)), trimmed(one.substr(std::min(one.size(), equals + 1)))});
      if (!is_name(parameters.back().name)) throw NotUnderstood("macro " + rest);
    }
    variables_.macros[name] = [this, begin, parameters](const Arguments& arguments) {
      return call_macro(begin, parameters, arguments);
    };
  }

  // The macro behind segment `begin`. An expression may read over what fails in there.
  std::string call_macro(std::size_t begin, const std::vector<Parameter>& parameters,
                         const Arguments& arguments) {
    if (++n_steps_ > kMaxSteps) throw NotUnderstood("a template that takes too long");
    if (n_calls_ == kMaxCalls) throw NotUnderstood("macros that are too deep");
    const std::size_t at = std::exchange(at_, begin);
    const int depth = depth_;
    ++n_calls_;
    std::string before = std::exchange(result_, "");
    std::vector<Variables::Scope> scopes = variables_.take_inner_scopes();
    const auto go_back = [&] {
      at_ = at;
      depth_ = depth;
      --n_calls_;
      variables_.put_inner_scopes(std::move(scopes));
      return std::exchange(result_, std::move(before));
    };
    try {
      variables_.open_scope();
      set_parameters(parameters, arguments);
      run_block(true, {"endmacro"});
    } catch (...) {
      go_back();
      throw;
    }
    return go_back();
  }

  // Defaults see the parameters before them.
  void set_parameters(const std::vector<Parameter>& parameters, const Arguments& arguments) {
    std::size_t n_given = arguments.values.size();
    for (std::size_t i = 0; i < parameters.size(); ++i) {
      const auto& [name, otherwise] = parameters[i];
      const auto named = arguments.named.find(name);
      const bool is_placed = i < arguments.values.size(), is_named = named != arguments.named.end();
      if (is_placed && is_named) throw NotUnderstood("a macro with " + name + " twice");
      if (is_named) ++n_given;
      Json value = is_placed           ? arguments.values[i]
                   : is_named          ? named->second
                   : otherwise.empty() ? undefined()
                                       : evaluate(otherwise, variables_);
      variables_.set(name, std::move(value));
    }
    if (n_given != arguments.values.size() + arguments.named.size() ||
        arguments.values.size() > parameters.size())
      throw NotUnderstood("a macro with values that it does not take");
  }

  void execute_set(const std::string& rest, bool is_live) {
    const std::size_t equals = rest.find('=');
    const std::string name = trimmed(std::string_view(rest).substr(0, equals));
    if (equals == std::string::npos) {
      if (is_live) throw NotUnderstood("set " + rest);
      run_block(false, {"endset"});
      return;
    }
    if (!is_live) return;
    Json value = evaluate(std::string_view(rest).substr(equals + 1), variables_);
    const std::size_t dot = name.find('.');
    if (dot == std::string::npos) return variables_.set(name, std::move(value));
    Json* owner = variables_.find(name.substr(0, dot));
    if (!owner || !owner->is_object()) throw NotUnderstood("set " + name);
    // A macro has copies of what it was called with, where Jinja has the caller's own objects.
    if (n_calls_ > 0 && owner != variables_.find_outermost(name.substr(0, dot)))
      throw NotUnderstood("set " + name + " in a macro");
    (*owner)[name.substr(dot + 1)] = std::move(value);
  }

  std::vector<Segment> segments_;
  Variables variables_;
  std::size_t at_ = 0;
  int depth_ = 0;
  int n_steps_ = 0;
  int n_calls_ = 0;
  std::string result_;
};

}  // namespace

std::string render(std::string_view source, std::map<std::string, Json> variables) {
  if (source.size() > kMaxSourceBytes) throw NotUnderstood("a template that is too long");
  return Run(segments_of(source), std::move(variables)).whole();
}

}  // namespace starattn::jinja
