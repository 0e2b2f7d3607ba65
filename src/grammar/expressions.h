// SPDX-License-Identifier: Apache-2.0
// Regular expressions over bytes. What may follow behind a byte is an expression again, its
// derivative (Brzozowski, "Derivatives of regular expressions", J. ACM 11, 1964; as sets of partial
// derivatives, Antimirov, TCS 155, 1996), so an automaton's states are made as a text reaches them:
// neither counts of billions nor patterns with exponentially many states take memory beforehand.
//
// Equal expressions have one number. A new one is made without parts that no text matches.
#pragma once

#include <bitset>
#include <cstdint>
#include <initializer_list>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

namespace starattn {

using Expression = std::uint32_t;  // its number among those of one Expressions
using ByteSet = std::bitset<256>;

constexpr Expression kNoText = 0;     // matches nothing
constexpr Expression kEmptyText = 1;  // matches the empty text alone

class Expressions {
 public:
  static constexpr std::uint32_t kNoLimit = UINT32_MAX;
  // Parts of one form. One takes some 100 bytes.
  static constexpr std::size_t kMostParts = std::size_t{1} << 20;

  // writable: the bytes that can be written one by one (see can_be_written).
  explicit Expressions(const ByteSet& writable);

  // All throw Error(bad_data) where there are too many parts: a form may have kMostParts, and an
  // automaton four times as many with what its texts have reached.
  Expression one_of(const ByteSet& bytes);
  Expression one_of(unsigned char first, unsigned char last);
  Expression text(std::string_view bytes);
  Expression any_of_texts(std::vector<std::string> texts);
  Expression sequence(Expression first, Expression rest);
  Expression sequence(std::initializer_list<Expression> parts);
  Expression either(std::vector<Expression> ways);
  Expression repeat(Expression of, std::uint32_t min, std::uint32_t max = kNoLimit);
  Expression optional(Expression of) { return either({kEmptyText, of}); }
  // Any bytes up to the first occurrence of `end`, which belongs to it.
  Expression through(std::string_view end);

  // Whether the text may end here.
  bool may_end(Expression e) const { return nodes_[e].may_end; }
  // Whether some text of it consists of writable bytes.
  bool can_be_written(Expression e) const { return nodes_[e].can_be_written; }
  // The places in it that a next byte may match: what after() looks at.
  std::uint32_t n_ways(Expression e) const { return nodes_[e].n_ways; }

  // What may follow behind the byte.
  Expression after(Expression e, unsigned char byte);
  // Where after(e, byte) may differ from that of the byte before: the first bytes of ranges within
  // which it is the same, ascending, the first of them 0.
  std::vector<unsigned char> ranges(Expression e) const;

  // The same as far as n_bytes bytes can tell: counts beyond that are no longer told apart. Texts
  // of up to n_bytes bytes have an expression behind them here where they have one there.
  Expression within(Expression e, std::uint32_t n_bytes);

  // e of another one, here. copied: what was copied from there before.
  Expression copy(const Expressions& other, Expression e,
                  std::unordered_map<Expression, Expression>& copied);
  std::size_t n_parts() const { return nodes_.size() + members_.size(); }

 private:
  enum class Kind : std::uint8_t { nothing, empty, bytes, sequence, either, repeat, through };
  struct Node {
    Kind kind = Kind::nothing;
    bool may_end = false;
    bool can_be_written = false;
    std::uint32_t a = 0;  // bytes: which set; sequence: the first; either: where its members begin;
                          // repeat: of what; through: which end
    std::uint32_t b = 0;  // sequence: the rest; either: how many members; through: bytes of the end
                          // that are matched
    std::uint32_t min = 0, max = 0;  // repeat
    std::uint32_t n_ways = 0;
    std::uint32_t highest_count = 0;  // of the repeats in it, but for kNoLimit
  };
  // What stands behind a part, from the inside out.
  struct Behind {
    Expression first;
    const Behind* rest;
  };

  Expression intern(const Node& node, std::span<const Expression> members = {});
  Expression through(std::uint32_t end, std::uint32_t n_matched);
  std::span<const Expression> members(const Node& node) const {
    return std::span(members_).subspan(node.a, node.b);
  }
  Expression any_of_sorted(std::span<const std::string> texts, std::size_t begin);
  void add_after(Expression e, unsigned char byte, const Behind* behind,
                 std::vector<Expression>& ways);
  Expression joined(const Behind* behind);
  std::uint32_t number_of_end(std::string_view end);
  Expression copy_alone(const Expressions& other, const Node& node,
                        std::unordered_map<Expression, Expression>& copied);
  void mark_ranges(Expression e, std::bitset<257>& begins) const;

  ByteSet writable_;
  std::vector<Node> nodes_;
  std::vector<Expression> members_;
  std::vector<ByteSet> sets_;
  std::vector<std::string> ends_;
  std::unordered_multimap<std::uint64_t, Expression> numbers_;                  // by a hash
  std::map<std::uint32_t, std::unordered_map<Expression, Expression>> within_;  // by n_bytes
};

}  // namespace starattn
