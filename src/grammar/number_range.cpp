// SPDX-License-Identifier: Apache-2.0
// Numbers between bounds, digit by digit: where a number's digits first differ from a bound's, that
// digit decides.
#include <algorithm>
#include <charconv>
#include <cmath>
#include <string>

#include "grammar/json_text.h"

namespace starattn {
namespace {

constexpr std::uint32_t kMostDigits = 15;         // that a double tells apart
constexpr double kLimit = 1e15;                   // numbers are smaller
constexpr std::uint32_t kUnboundWholeDigits = 9;  // of numbers that are no integers

// Not negative: digits before the point, without leading zeros, and behind it, without trailing
// ones.
struct Decimal {
  std::string whole = "0";
  std::string fraction;
};

// Of an absolute value, the shortest that reads back as it.
Decimal decimal_of(double value) {
  char buffer[512];
  const char* end =
      std::to_chars(buffer, buffer + sizeof buffer, std::abs(value), std::chars_format::fixed).ptr;
  const std::string text(static_cast<const char*>(buffer), end);
  const std::size_t point = std::min(text.find('.'), text.size());
  return {text.substr(0, point), text.substr(std::min(point + 1, text.size()))};
}

// Numbers that are not negative.
class Range {
 public:
  struct Bound {
    Decimal at;
    bool is_excluded = false;
  };

  // No high: up to n_whole digits before the point. Up to n_fraction digits behind it.
  Range(Expressions& in, Bound low, std::optional<Bound> high, std::uint32_t n_whole,
        std::uint32_t n_fraction)
      : in_(in), low_(std::move(low)), high_(std::move(high)), n_fraction_(n_fraction) {
    most_ = high_ ? high_->at.whole : std::string(n_whole, '9');
  }

  Expression expression() {
    std::vector<Expression> ways;
    const std::size_t n_low = low_.at.whole.size();
    for (std::size_t n = n_low; n <= most_.size(); ++n) {  // digits before the point
      is_low_bound_ = n == n_low;
      is_high_bound_ = high_ && n == most_.size();
      from_ = is_low_bound_ ? low_.at.whole : "1" + std::string(n - 1, '0');
      to_ = n == most_.size() ? most_ : std::string(n, '9');
      if (from_ <= to_) ways.push_back(whole(0, true, true));
    }
    return in_.either(std::move(ways));
  }

 private:
  Expression digits(int first, int last) {
    return first > last
               ? kNoText
               : in_.one_of(static_cast<unsigned char>(first), static_cast<unsigned char>(last));
  }

  // A digit from `first` to `last`, and what follows: next(is_low, is_high). is_low: all digits so
  // far are the lower bound's, so this one is not below its digit `first`; is_high likewise.
  template <typename Next>
  Expression digit(char first, char last, bool is_low, bool is_high, const Next& next) {
    if (is_low && is_high && first == last)
      return in_.sequence(digits(first, last), next(true, true));
    std::vector<Expression> ways = {
        in_.sequence(digits(first + is_low, last - is_high), next(false, false))};
    if (is_low) ways.push_back(in_.sequence(digits(first, first), next(true, false)));
    if (is_high) ways.push_back(in_.sequence(digits(last, last), next(false, true)));
    return in_.either(std::move(ways));
  }

  // From digit i before the point on.
  Expression whole(std::size_t i, bool is_low, bool is_high) {
    if (!is_low && !is_high) {
      const auto n_left = static_cast<std::uint32_t>(from_.size() - i);
      return in_.sequence(in_.repeat(digits('0', '9'), n_left, n_left), fraction(false, false));
    }
    if (i == from_.size()) return fraction(is_low && is_low_bound_, is_high && is_high_bound_);
    return digit(
        is_low ? from_[i] : '0', is_high ? to_[i] : '9', is_low, is_high,
        [&](bool still_low, bool still_high) { return whole(i + 1, still_low, still_high); });
  }

  Expression fraction(bool is_low, bool is_high) {
    if (n_fraction_ == 0) return may_end(0, is_low, is_high) ? kEmptyText : kNoText;
    const Expression more = in_.sequence(in_.text("."), fraction_digit(0, is_low, is_high));
    return may_end(0, is_low, is_high) ? in_.optional(more) : more;
  }

  // From digit i behind the point on; at least one.
  Expression fraction_digit(std::uint32_t i, bool is_low, bool is_high) {
    if (!is_low && !is_high) return in_.repeat(digits('0', '9'), 1, n_fraction_ - i);
    const auto at = [&](const std::string& digits) { return i < digits.size() ? digits[i] : '0'; };
    return digit(is_low ? at(low_.at.fraction) : '0', is_high ? at(high_->at.fraction) : '9',
                 is_low, is_high, [&](bool still_low, bool still_high) {
                   std::vector<Expression> ways;
                   if (may_end(i + 1, still_low, still_high)) ways.push_back(kEmptyText);
                   if (i + 1 < n_fraction_)
                     ways.push_back(fraction_digit(i + 1, still_low, still_high));
                   return in_.either(std::move(ways));
                 });
  }

  // Whether a number with i digits behind the point is within the bounds.
  bool may_end(std::uint32_t i, bool is_low, bool is_high) const {
    const bool is_high_itself = is_high && i >= high_->at.fraction.size();
    return !(is_low && (i < low_.at.fraction.size() || low_.is_excluded)) &&
           !(is_high_itself && high_->is_excluded);
  }

  Expressions& in_;
  Bound low_;
  std::optional<Bound> high_;
  std::uint32_t n_fraction_;
  std::string most_;  // digits of the largest number before the point
  // The range of those with as many digits before the point, and whether its ends are the bounds'.
  std::string from_, to_;
  bool is_low_bound_ = false, is_high_bound_ = false;
};

// n_whole: digits before the point where no bound has more.
Expression within(Expressions& in, NumberBounds bounds, std::uint32_t n_whole, bool is_integer) {
  std::optional<double>& low = bounds.low;
  std::optional<double>& high = bounds.high;
  if ((low && *low >= kLimit) || (high && *high <= -kLimit)) return kNoText;
  if (low && *low <= -kLimit) low.reset();
  if (high && *high >= kLimit) high.reset();
  if (low && high &&
      (*low > *high || (*low == *high && (bounds.excludes_low || bounds.excludes_high))))
    return kNoText;
  const auto bound = [](double value, bool is_excluded) {
    return Range::Bound{decimal_of(value), is_excluded};
  };
  if (low && high) n_whole = 0;
  for (const std::optional<double>& end : {low, high}) {
    if (end) n_whole = std::max(n_whole, static_cast<std::uint32_t>(decimal_of(*end).whole.size()));
  }
  const std::uint32_t n_fraction = is_integer ? 0 : kMostDigits - std::min(kMostDigits, n_whole);
  std::vector<Expression> ways;
  if (!high || *high >= 0) {
    const bool has_low = low && *low >= 0;
    ways.push_back(Range(in, has_low ? bound(*low, bounds.excludes_low) : Range::Bound{},
                         high ? std::optional(bound(*high, bounds.excludes_high)) : std::nullopt,
                         n_whole, n_fraction)
                       .expression());
  }
  if (!low || *low < 0) {
    const bool has_high = high && *high < 0;
    const Expression positive =
        Range(in, has_high ? bound(*high, bounds.excludes_high) : Range::Bound{{}, true},
              low ? std::optional(bound(*low, bounds.excludes_low)) : std::nullopt, n_whole,
              n_fraction)
            .expression();
    ways.push_back(in.sequence(in.text("-"), positive));
  }
  return in.either(std::move(ways));
}

}  // namespace

Expression json_integer_within(Expressions& in, const NumberBounds& bounds) {
  NumberBounds whole;
  if (bounds.low) {
    whole.low = bounds.excludes_low ? std::floor(*bounds.low) + 1 : std::ceil(*bounds.low);
  }
  if (bounds.high) {
    whole.high = bounds.excludes_high ? std::ceil(*bounds.high) - 1 : std::floor(*bounds.high);
  }
  return within(in, whole, kMostDigits, /*is_integer=*/true);
}

Expression json_number_within(Expressions& in, const NumberBounds& bounds) {
  return within(in, bounds, kUnboundWholeDigits, /*is_integer=*/false);
}

}  // namespace starattn
