// SPDX-License-Identifier: Apache-2.0
#include "grammar/expressions.h"

#include <algorithm>

#include "base/error.h"
#include "base/random.h"

namespace starattn {
namespace {

std::uint32_t saturated(std::uint64_t n) {
  return static_cast<std::uint32_t>(std::min<std::uint64_t>(n, UINT32_MAX));
}

std::uint32_t one_less(std::uint32_t count) {
  return count == 0 || count == Expressions::kNoLimit ? count : count - 1;
}

// How many bytes of `end` are matched when `byte` comes behind n_matched of them.
std::uint32_t n_matched_after(std::string_view end, std::uint32_t n_matched, unsigned char byte) {
  const std::string text = std::string(end.substr(0, n_matched)) + static_cast<char>(byte);
  for (std::size_t n = std::min(text.size(), end.size()); n > 0; --n)
    if (text.ends_with(end.substr(0, n))) return static_cast<std::uint32_t>(n);
  return 0;
}

}  // namespace

Expressions::Expressions(const ByteSet& writable) : writable_(writable) {
  nodes_.push_back({});
  nodes_.push_back({Kind::empty, true, true});
}

Expression Expressions::intern(const Node& node, std::span<const Expression> members) {
  const bool is_either = node.kind == Kind::either;
  std::uint64_t hash = mix(static_cast<std::uint64_t>(node.kind));
  if (!is_either) {
    hash = absorb(hash, std::uint64_t{node.a} << 32 | node.b);
    hash = absorb(hash, std::uint64_t{node.min} << 32 | node.max);
  }
  for (const Expression member : members) hash = absorb(hash, std::uint64_t{member});
  const auto [begin, end] = numbers_.equal_range(hash);
  for (auto it = begin; it != end; ++it) {
    const Node& known = nodes_[it->second];
    if (known.kind != node.kind) continue;
    if (is_either ? std::ranges::equal(this->members(known), members)
                  : known.a == node.a && known.b == node.b && known.min == node.min &&
                        known.max == node.max)
      return it->second;
  }
  if (n_parts() + members.size() >= 4 * kMostParts)
    fail(Exit::bad_data, "more than {} parts; make it smaller", 4 * kMostParts);
  const auto number = static_cast<Expression>(nodes_.size());
  nodes_.push_back(node);
  if (is_either) {
    nodes_.back().a = static_cast<std::uint32_t>(members_.size());
    nodes_.back().b = static_cast<std::uint32_t>(members.size());
    members_.insert(members_.end(), members.begin(), members.end());
  }
  numbers_.emplace(hash, number);
  return number;
}

Expression Expressions::one_of(const ByteSet& bytes) {
  if (bytes.none()) return kNoText;
  const auto known = std::ranges::find(sets_, bytes);
  const auto place = static_cast<std::uint32_t>(known - sets_.begin());
  if (known == sets_.end()) sets_.push_back(bytes);
  return intern(
      {.kind = Kind::bytes, .can_be_written = (bytes & writable_).any(), .a = place, .n_ways = 1});
}

Expression Expressions::one_of(unsigned char first, unsigned char last) {
  ByteSet bytes;
  for (unsigned byte = first; byte <= last; ++byte) bytes.set(byte);
  return one_of(bytes);
}

Expression Expressions::text(std::string_view bytes) {
  Expression e = kEmptyText;
  for (std::size_t i = bytes.size(); i-- > 0;) {
    const auto byte = static_cast<unsigned char>(bytes[i]);
    e = sequence(one_of(byte, byte), e);
  }
  return e;
}

Expression Expressions::any_of_texts(std::vector<std::string> texts) {
  std::ranges::sort(texts);
  texts.erase(std::unique(texts.begin(), texts.end()), texts.end());
  return any_of_sorted(texts, 0);
}

// Of what stands from `begin` on; beginnings that some share are there once.
Expression Expressions::any_of_sorted(std::span<const std::string> texts, std::size_t begin) {
  if (texts.empty()) return kNoText;
  if (texts.size() == 1) return text(std::string_view(texts[0]).substr(begin));
  std::vector<Expression> ways;
  if (texts[0].size() == begin) {
    ways.push_back(kEmptyText);
    texts = texts.subspan(1);
  }
  while (!texts.empty()) {
    const auto other = std::ranges::find_if(
        texts, [&](const std::string& t) { return t[begin] != texts[0][begin]; });
    const auto some = texts.first(static_cast<std::size_t>(other - texts.begin()));
    std::size_t end = begin + 1;  // of what all of these begin with
    while (end < some.front().size() && some.front()[end] == some.back()[end]) ++end;
    ways.push_back(sequence(text(std::string_view(some.front()).substr(begin, end - begin)),
                            any_of_sorted(some, end)));
    texts = texts.subspan(some.size());
  }
  return either(std::move(ways));
}

Expression Expressions::sequence(Expression first, Expression rest) {
  if (first == kNoText || rest == kNoText) return kNoText;
  std::vector<Expression> parts;  // of the first, which is no sequence afterwards
  for (; nodes_[first].kind == Kind::sequence; first = nodes_[first].b)
    parts.push_back(nodes_[first].a);
  parts.push_back(first);
  Expression e = rest;
  for (std::size_t i = parts.size(); i-- > 0;) {
    if (parts[i] == kEmptyText) continue;
    if (e == kEmptyText) {
      e = parts[i];
      continue;
    }
    const Node& a = nodes_[parts[i]];
    const Node& b = nodes_[e];
    e = intern({.kind = Kind::sequence,
                .may_end = a.may_end && b.may_end,
                .can_be_written = a.can_be_written && b.can_be_written,
                .a = parts[i],
                .b = e,
                .n_ways = saturated(std::uint64_t{a.n_ways} + (a.may_end ? b.n_ways : 0)),
                .highest_count = std::max(a.highest_count, b.highest_count)});
  }
  return e;
}

Expression Expressions::sequence(std::initializer_list<Expression> parts) {
  Expression e = kEmptyText;
  for (auto part = parts.end(); part != parts.begin();) e = sequence(*--part, e);
  return e;
}

Expression Expressions::either(std::vector<Expression> ways) {
  std::vector<Expression> all;  // none of them an `either`
  ByteSet bytes;                // of the ways that are one byte
  for (const Expression way : ways) {
    const Node& node = nodes_[way];
    if (node.kind == Kind::bytes) {
      bytes |= sets_[node.a];
    } else if (node.kind == Kind::either) {
      for (const Expression member : members(node)) {
        if (nodes_[member].kind == Kind::bytes) {
          bytes |= sets_[nodes_[member].a];
        } else {
          all.push_back(member);
        }
      }
    } else if (way != kNoText) {
      all.push_back(way);
    }
  }
  if (bytes.any()) all.push_back(one_of(bytes));
  std::ranges::sort(all);
  all.erase(std::unique(all.begin(), all.end()), all.end());
  if (all.empty()) return kNoText;
  if (all.size() == 1) return all[0];
  Node node{.kind = Kind::either};
  for (const Expression way : all) {
    const Node& member = nodes_[way];
    node.may_end |= member.may_end;
    node.can_be_written |= member.can_be_written;
    node.n_ways = saturated(std::uint64_t{node.n_ways} + member.n_ways);
    node.highest_count = std::max(node.highest_count, member.highest_count);
  }
  return intern(node, all);
}

Expression Expressions::repeat(Expression of, std::uint32_t min, std::uint32_t max) {
  STARATTN_CHECK(min <= max && min != kNoLimit);
  if (max == 0 || of == kEmptyText) return kEmptyText;
  if (of == kNoText) return min == 0 ? kEmptyText : kNoText;
  const Node& node = nodes_[of];
  if (node.may_end) min = 0;
  if (min == 1 && max == 1) return of;
  const bool is_star = node.kind == Kind::repeat && node.min == 0 && node.max == kNoLimit;
  if (is_star) return of;
  return intern({.kind = Kind::repeat,
                 .may_end = min == 0,
                 .can_be_written = min == 0 || node.can_be_written,
                 .a = of,
                 .min = min,
                 .max = max,
                 .n_ways = node.n_ways,
                 .highest_count = std::max({node.highest_count, min, max == kNoLimit ? 0 : max})});
}

Expression Expressions::through(std::string_view end) {
  STARATTN_CHECK(!end.empty());
  return through(number_of_end(end), 0);
}

std::uint32_t Expressions::number_of_end(std::string_view end) {
  const auto known = std::ranges::find(ends_, end);
  const auto number = static_cast<std::uint32_t>(known - ends_.begin());
  if (known == ends_.end()) ends_.emplace_back(end);
  return number;
}

Expression Expressions::through(std::uint32_t end, std::uint32_t n_matched) {
  if (n_matched == ends_[end].size()) return kEmptyText;
  const bool can_be_written = std::ranges::all_of(
      ends_[end], [&](char byte) { return writable_[static_cast<unsigned char>(byte)]; });
  return intern({.kind = Kind::through,
                 .can_be_written = can_be_written,
                 .a = end,
                 .b = n_matched,
                 .n_ways = 1});
}

Expression Expressions::after(Expression e, unsigned char byte) {
  std::vector<Expression> ways;
  add_after(e, byte, nullptr, ways);
  return either(std::move(ways));
}

void Expressions::add_after(Expression e, unsigned char byte, const Behind* behind,
                            std::vector<Expression>& ways) {
  for (;;) {
    const Node node = nodes_[e];  // no reference: they move when one is added
    switch (node.kind) {
      case Kind::nothing:
      case Kind::empty:
        return;
      case Kind::bytes:
        if (sets_[node.a][byte]) ways.push_back(joined(behind));
        return;
      case Kind::sequence: {
        const Behind rest{node.b, behind};
        add_after(node.a, byte, &rest, ways);
        if (!nodes_[node.a].may_end) return;
        e = node.b;
        continue;
      }
      case Kind::either:
        for (std::uint32_t i = 0; i < node.b; ++i)
          add_after(members_[node.a + i], byte, behind, ways);
        return;
      case Kind::repeat: {
        const Behind more{repeat(node.a, one_less(node.min), one_less(node.max)), behind};
        add_after(node.a, byte, &more, ways);
        return;
      }
      case Kind::through: {
        const std::uint32_t n_matched = n_matched_after(ends_[node.a], node.b, byte);
        ways.push_back(sequence(through(node.a, n_matched), joined(behind)));
        return;
      }
    }
  }
}

Expression Expressions::joined(const Behind* behind) {
  return behind ? sequence(behind->first, joined(behind->rest)) : kEmptyText;
}

std::vector<unsigned char> Expressions::ranges(Expression e) const {
  std::bitset<257> begins;
  begins.set(0);
  mark_ranges(e, begins);
  std::vector<unsigned char> all;
  for (unsigned byte = 0; byte < 256; ++byte)
    if (begins[byte]) all.push_back(static_cast<unsigned char>(byte));
  return all;
}

void Expressions::mark_ranges(Expression e, std::bitset<257>& begins) const {
  for (;;) {
    const Node& node = nodes_[e];
    switch (node.kind) {
      case Kind::nothing:
      case Kind::empty:
        return;
      case Kind::bytes:
        for (unsigned byte = 1; byte < 256; ++byte)
          if (sets_[node.a][byte] != sets_[node.a][byte - 1]) begins.set(byte);
        return;
      case Kind::sequence:
        mark_ranges(node.a, begins);
        if (!nodes_[node.a].may_end) return;
        e = node.b;
        continue;
      case Kind::either:
        for (const Expression member : members(node)) mark_ranges(member, begins);
        return;
      case Kind::repeat:
        e = node.a;
        continue;
      case Kind::through:
        for (const char c : ends_[node.a]) {
          begins.set(static_cast<unsigned char>(c));
          begins.set(static_cast<unsigned char>(c) + 1U);
        }
        return;
    }
  }
}

Expression Expressions::within(Expression e, std::uint32_t n_bytes) {
  std::unordered_map<Expression, Expression>& results = within_[n_bytes];
  std::vector<Expression> parts;  // along a sequence, which may be long
  Expression last = e;
  const auto is_known = [&] {
    return nodes_[last].highest_count <= n_bytes || results.contains(last);
  };
  for (; nodes_[last].kind == Kind::sequence && !is_known(); last = nodes_[last].b)
    parts.push_back(last);
  const Node node = nodes_[last];
  Expression result = last;
  if (node.highest_count <= n_bytes) {
    // as it is
  } else if (const auto known = results.find(last); known != results.end()) {
    result = known->second;
  } else if (node.kind == Kind::either) {
    std::vector<Expression> ways(members(node).begin(), members(node).end());
    for (Expression& way : ways) way = within(way, n_bytes);
    result = either(std::move(ways));
  } else {  // no other kind has counts
    result = repeat(within(node.a, n_bytes), std::min(node.min, n_bytes),
                    node.max > n_bytes ? kNoLimit : node.max);
  }
  results[last] = result;
  for (std::size_t i = parts.size(); i-- > 0;) {
    result = sequence(within(nodes_[parts[i]].a, n_bytes), result);
    results[parts[i]] = result;
  }
  return result;
}

Expression Expressions::copy(const Expressions& other, Expression e,
                             std::unordered_map<Expression, Expression>& copied) {
  std::vector<Expression> parts;  // along a sequence, which may be long
  Expression last = e;
  for (; other.nodes_[last].kind == Kind::sequence && !copied.contains(last);
       last = other.nodes_[last].b)
    parts.push_back(last);
  if (!copied.contains(last)) copied[last] = copy_alone(other, other.nodes_[last], copied);
  Expression result = copied[last];
  for (std::size_t i = parts.size(); i-- > 0;) {
    result = sequence(copy(other, other.nodes_[parts[i]].a, copied), result);
    copied[parts[i]] = result;
  }
  return result;
}

// Of what is no sequence.
Expression Expressions::copy_alone(const Expressions& other, const Node& node,
                                   std::unordered_map<Expression, Expression>& copied) {
  switch (node.kind) {
    case Kind::bytes:
      return one_of(other.sets_[node.a]);
    case Kind::either: {
      std::vector<Expression> ways;
      for (const Expression member : other.members(node))
        ways.push_back(copy(other, member, copied));
      return either(std::move(ways));
    }
    case Kind::repeat:
      return repeat(copy(other, node.a, copied), node.min, node.max);
    case Kind::through:
      return through(number_of_end(other.ends_[node.a]), node.b);
    default:
      return node.kind == Kind::nothing ? kNoText : kEmptyText;
  }
}

}  // namespace starattn
