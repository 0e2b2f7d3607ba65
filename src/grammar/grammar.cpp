// SPDX-License-Identifier: Apache-2.0
#include "grammar/grammar.h"

#include <array>
#include <deque>
#include <unordered_map>
#include <utility>

#include "base/error.h"

namespace starattn {
namespace {

constexpr std::uint32_t kMostBlanks = 8;  // around what was thought
// An automaton with more is full; one takes 100 bytes a part, 1 KiB a row, 16 KiB a set of 128K
// tokens.
constexpr std::size_t kMostRows = std::size_t{1} << 15;
constexpr std::size_t kMostSets = 1024;

Expression with_preamble(Expressions& in, Preamble preamble, Expression answer) {
  if (preamble == Preamble::none) return answer;
  const Expression blanks = in.repeat(in.any_of_texts({" ", "\t", "\r", "\n"}), 0, kMostBlanks);
  const Expression rest = in.sequence({in.through("</think>"), blanks, answer});
  if (preamble == Preamble::rest_of_thinking) return rest;
  return in.either({answer, in.sequence({blanks, in.text("<think>"), rest})});
}

std::uint64_t key_of(Expression e, bool is_opening) {
  return std::uint64_t{e} << 1 | (is_opening ? 1 : 0);
}

}  // namespace

class Grammar::Automaton {
 public:
  using Row = std::array<Expression, 256>;  // what may follow behind each byte

  explicit Automaton(const ByteSet& writable) : expressions(writable) {}

  bool is_full() const {
    return expressions.n_parts() > 2 * Expressions::kMostParts || rows_.size() > kMostRows ||
           sets.size() > kMostRows || n_sets > kMostSets;
  }

  const Row& row(Expression e) {
    if (known_.size() <= e) known_.resize(e + 1);
    if (known_[e].row) return *known_[e].row;
    if (expressions.n_ways(e) > kMostWays) {
      fail(Exit::bad_data, "{} places may match the next character, at most {} can be followed",
           expressions.n_ways(e), kMostWays);
    }
    Row row;
    const std::vector<unsigned char> ranges = expressions.ranges(e);
    for (std::size_t i = 0; i < ranges.size(); ++i) {
      const std::size_t end = i + 1 < ranges.size() ? ranges[i + 1] : row.size();
      const Expression rest = expressions.after(e, ranges[i]);
      std::fill(row.begin() + ranges[i], row.begin() + static_cast<std::ptrdiff_t>(end), rest);
    }
    known_[e].row = &rows_.emplace_back(row);
    return *known_[e].row;
  }

  // Calls use(token) for those of the tree that may follow. Goes down it with what is left behind
  // each byte of a path.
  template <typename Use>
  void for_tokens(const TokenTree& tree, std::size_t n_most_bytes, Expression start,
                  const Use& use) {
    ++walk_;
    std::uint64_t work = 0;
    const auto visit = [&](Expression e) {
      const Row& row = this->row(e);
      if (std::exchange(known_[e].walk, walk_) != walk_) work += expressions.n_ways(e);
      if (work > kMostWork) {
        fail(Exit::bad_data,
             "too much may follow here: repetitions of what matches in several ways, such as "
             "(a|b)*a(a|b){{1000}}, take too long");
      }
      return &row;
    };
    const std::span<const TokenTree::Node> nodes = tree.nodes();
    std::vector<const Row*> rows(n_most_bytes + 1);  // of what is left before each byte
    rows[0] = visit(start);
    for (std::size_t i = 0; i < nodes.size();) {
      const TokenTree::Node& node = nodes[i];
      const Expression rest = (*rows[node.depth])[node.byte];
      if (rest == kNoText) {
        i = node.end;
        continue;
      }
      if (node.n_tokens > 0 && expressions.can_be_written(rest)) {
        for (const Token token : tree.tokens(node)) use(token);
      }
      if (++i < node.end) rows[node.depth + 1U] = visit(rest);
    }
  }

  static void add(Token token, TokenSet& set) {
    set[static_cast<std::size_t>(token) / 32] |= std::uint32_t{1} << (token % 32);
  }

  // By state: of all tokens, and of the short ones alone. States may have one set between them.
  using Sets = std::unordered_map<std::uint64_t, std::shared_ptr<const TokenSet>>;

  Expressions expressions;
  Sets sets, short_sets;
  std::size_t n_sets = 0;

 private:
  struct Known {
    const Row* row = nullptr;
    std::uint32_t walk = 0;  // that came by last
  };
  std::deque<Row> rows_;
  std::vector<Known> known_;  // by expression
  std::uint32_t walk_ = 0;
};

Grammar::Grammar(const GrammarVocabulary& vocabulary, const AnswerForm& form, Preamble preamble)
    : vocabulary_(&vocabulary),
      name_(name_of(form.kind)),
      automaton_(std::make_shared<Automaton>(vocabulary.single_bytes())) {
  Expressions& in = automaton_->expressions;
  const Expression answer = parse_answer_form(in, form, name_);
  if (in.n_parts() > Expressions::kMostParts)
    fail(Exit::bad_data, "{}: more than {} parts; make it smaller", name_, Expressions::kMostParts);
  if (answer == kEmptyText || answer == kNoText)
    fail(Exit::bad_data, "{}: no answer but an empty one has this form", name_);
  start_ = with_preamble(in, preamble, answer);
  if (!in.can_be_written(start_)) {
    fail(Exit::bad_data,
         "{}: the model's vocabulary has no tokens for bytes that every answer of this form has",
         name_);
  }
  allowed(start());  // what is too large is refused before anything is asked
}

Grammar::~Grammar() = default;

// The state's rest in an automaton that has room.
Expression Grammar::here(const State& state) {
  if (automaton_->is_full()) {
    const auto next = std::make_shared<Automaton>(vocabulary_->single_bytes());
    std::unordered_map<Expression, Expression> copied;
    start_ = next->expressions.copy(automaton_->expressions, start_, copied);
    automaton_ = next;
  }
  if (state.in == automaton_) return state.rest;
  std::unordered_map<Expression, Expression> copied;
  return automaton_->expressions.copy(state.in->expressions, state.rest, copied);
}

Grammar::State Grammar::after(const State& state, Token token) try {
  State next{nullptr, here(state), state.is_opening};
  next.in = automaton_;
  const std::string& text = vocabulary_->text(token, state.is_opening);
  if (text.empty()) next.rest = kNoText;
  for (const char byte : text)
    next.rest = automaton_->row(next.rest)[static_cast<unsigned char>(byte)];
  next.is_opening = state.is_opening && vocabulary_->is_mark(token);
  return next;
} catch (const Error& error) {
  throw error.within(name_);
}

// No token is long enough to tell higher counts apart than it has bytes. Nearly all tokens are
// short, so that most states are alike to them, and what these may come next is found once.
std::shared_ptr<const TokenSet> Grammar::allowed(const State& state) try {
  const Expression rest = here(state);
  const bool is_opening = state.is_opening && vocabulary_->has_opening_texts();
  const auto within = [&](std::uint32_t n_bytes) {
    return automaton_->expressions.within(rest, n_bytes);
  };
  const Expression e = within(vocabulary_->longest());
  std::shared_ptr<const TokenSet>& known = automaton_->sets[key_of(e, is_opening)];
  if (known) return known;
  std::shared_ptr<const TokenSet> set = short_ones(within(GrammarVocabulary::kShort), is_opening);
  std::vector<Token> longer;
  automaton_->for_tokens(vocabulary_->long_tree(is_opening), vocabulary_->longest(), e,
                         [&](Token token) { longer.push_back(token); });
  if (!longer.empty()) {
    auto all = std::make_shared<TokenSet>(*set);
    for (const Token token : longer) Automaton::add(token, *all);
    set = std::move(all);
    ++automaton_->n_sets;
  }
  return known = std::move(set);
} catch (const Error& error) {
  throw error.within(name_);
}

// And EOS.
std::shared_ptr<const TokenSet> Grammar::short_ones(Expression e, bool is_opening) {
  std::shared_ptr<const TokenSet>& known = automaton_->short_sets[key_of(e, is_opening)];
  if (known) return known;
  auto set = std::make_shared<TokenSet>((static_cast<std::size_t>(vocabulary_->size()) + 31) / 32);
  automaton_->for_tokens(vocabulary_->short_tree(is_opening), GrammarVocabulary::kShort, e,
                         [&](Token token) { Automaton::add(token, *set); });
  if (automaton_->expressions.may_end(e))
    for (const Token token : vocabulary_->eos()) Automaton::add(token, *set);
  ++automaton_->n_sets;
  return known = std::move(set);
}

}  // namespace starattn
