// SPDX-License-Identifier: Apache-2.0
// From logits to tokens: the highest, and those that are drawn.
#include <array>
#include <cmath>

#include "both_sides.h"

namespace starattn {
namespace {

TEST_F(CudaBackend, FindsTheFirstHighest) {
  for (const std::int64_t n_out : {1, 31, 1000, 128256}) {
    const std::int64_t n_in = 64, n_rows = 33;
    const WeightView w = weight(numbers_.bell(n_out * n_in), n_in);
    const Rows x = gpu_->rows(numbers_.bell(n_rows * n_in), n_in);
    Floats logits(static_cast<std::size_t>(n_rows * n_out));
    gpu_->backend->linear_to_host(x, w, logits);
    std::vector<Token> tokens(static_cast<std::size_t>(n_rows));
    gpu_->next_tokens(x, w, std::vector<Draw>(tokens.size()), tokens);
    for (std::int64_t row = 0; row < n_rows; ++row) {
      const auto first = logits.begin() + row * n_out;
      EXPECT_EQ(tokens[static_cast<std::size_t>(row)],
                std::max_element(first, first + n_out) - first)
          << n_out << ", row " << row;
    }
  }
  // Equal logits: the first of them. Not finite: none.
  const WeightView same = weight(Floats(5000 * 64, 1), 64);
  Floats values(2 * 64, 1);
  std::vector<Token> tokens(2, -1);
  const std::vector<Draw> greedy(2);
  gpu_->next_tokens(gpu_->rows(values, 64), same, greedy, tokens);
  EXPECT_EQ(tokens, (std::vector<Token>{0, 0}));
  // Half of the tokens that are all equal: the first half.
  const std::vector<Draw> drawn{{1, 0.5, 0}, {1, 0.5, std::nextafter(1.0, 0.0)}};
  gpu_->next_tokens(gpu_->rows(values, 64), same, drawn, tokens);
  EXPECT_EQ(tokens, (std::vector<Token>{0, 2499}));
  values[70] = std::nanf("");
  for (const auto& draws : {greedy, drawn}) {
    gpu_->next_tokens(gpu_->rows(values, 64), same, draws, tokens);
    EXPECT_GE(tokens[0], 0);
    EXPECT_EQ(tokens[1], kNoToken);
  }
}

// Columns shared out between three devices, of which one has none.
TEST_F(CudaBackend, FindsTheHighestOfTheHighestOfItsParts) {
  for (const std::int64_t n : {2, 700, 128256}) {
    const std::int64_t n_rows = 7, cut = n / 2 - n / 2 % 16 + 1;
    Floats logits = numbers_.bell(n_rows * n);
    logits[static_cast<std::size_t>(2 * n + 1)] = std::nanf("");
    logits[static_cast<std::size_t>(3 * n)] = INFINITY;
    std::fill_n(logits.begin() + 4 * n, n, 1.F);
    std::vector<std::uint32_t> allowed(static_cast<std::size_t>((n + 31) / 32), 0xaaaaaaaa);
    const std::vector<std::uint32_t> none(allowed.size(), 0);
    std::vector<Draw> draws(static_cast<std::size_t>(n_rows));
    draws[4].allowed = draws[5].allowed = allowed;
    draws[6].allowed = none;
    std::vector<Token> expected;
    for (std::int64_t row = 0; row < n_rows; ++row)
      expected.push_back(next_token(
          std::span(logits).subspan(static_cast<std::size_t>(row * n), static_cast<std::size_t>(n)),
          draws[static_cast<std::size_t>(row)]));
    const Share shares[] = {{0, cut}, {cut, 0}, {cut, n - cut}};
    for (Side* side : {&*gpu_, &*cpu_}) {
      constexpr std::size_t kParts = Backend::kHighestParts;
      std::vector<Highest> parts(static_cast<std::size_t>(n_rows) * 3 * kParts);
      for (std::size_t rank = 0; rank < 3; ++rank) {
        const Share& share = shares[rank];
        Floats own;
        for (std::int64_t row = 0; row < n_rows; ++row)
          own.insert(own.end(), logits.begin() + row * n + share.first,
                     logits.begin() + row * n + share.end());
        const auto* there =
            reinterpret_cast<const float*>(side->keep(std::as_bytes(std::span(own))));
        std::vector<Highest> found(static_cast<std::size_t>(n_rows) * kParts);
        std::byte* to = side->keep(std::as_bytes(std::span(found)));
        side->backend->find_highest(there, share.count, static_cast<Token>(share.first), draws,
                                    reinterpret_cast<Highest*>(to));
        side->backend->download(to, std::as_writable_bytes(std::span(found)));
        for (std::size_t i = 0; i < found.size(); ++i)
          parts[(i / kParts * 3 + rank) * kParts + i % kParts] = found[i];
      }
      const std::byte* all = side->keep(std::as_bytes(std::span(parts)));
      std::vector<Token> tokens(expected.size(), 77);
      std::byte* to = side->keep(std::as_bytes(std::span(tokens)));
      side->backend->choose_highest(reinterpret_cast<const Highest*>(all), n_rows, 3 * kParts,
                                    reinterpret_cast<Token*>(to));
      side->backend->download(to, std::as_writable_bytes(std::span(tokens)));
      EXPECT_EQ(tokens, expected) << n;
    }
  }
}

// Sizes around a block of threads; places in its first, middle and last warp.
TEST_F(CudaBackend, SeesEveryLogitOfARow) {
  const std::int64_t n_in = 64;
  const Rows x = gpu_->rows(Floats(static_cast<std::size_t>(n_in), 1), n_in);
  const auto weight_with = [&](std::int64_t n_out, std::initializer_list<std::int64_t> places,
                               float value) {
    Floats values(static_cast<std::size_t>(n_out * n_in), 1);
    for (const std::int64_t place : places) values[static_cast<std::size_t>(place * n_in)] = value;
    return weight(values, n_in);
  };
  std::vector<Token> token(1);
  for (const std::int64_t n_out : {1, 31, 1023, 1024, 1025, 2049}) {
    for (const std::int64_t place : {std::int64_t{0}, n_out / 2, n_out - 1}) {
      for (const Draw draw : {Draw{}, Draw{1, 0.9, 0.5}}) {
        for (const float value : {std::nanf(""), INFINITY, -INFINITY}) {
          gpu_->next_tokens(x, weight_with(n_out, {place}, value), {&draw, 1}, token);
          EXPECT_EQ(token[0], kNoToken) << value << ", " << n_out << ", place " << place;
        }
      }
      const Draw greedy;
      gpu_->next_tokens(x, weight_with(n_out, {place, n_out - 1}, 2), {&greedy, 1}, token);
      EXPECT_EQ(token[0], place) << "equal ones at " << place << " and " << n_out - 1;
    }
  }
}

TEST_F(CudaBackend, DrawsTokens) {
  // A draw is monotone: the GPU's token lies between those of slightly smaller and larger random
  // numbers. Its weights are fp32; one of 128,256 equal tokens more or less in the nucleus is 8e-6.
  constexpr double kSlack = 2e-5;
  for (const std::int64_t n_out : {1, 31, 1000, 128256}) {
    const std::int64_t n_in = 64, n_rows = 33;
    const WeightView w = weight(numbers_.bell(n_out * n_in), n_in);
    const Rows x = gpu_->rows(numbers_.bell(n_rows * n_in), n_in);
    Floats logits(static_cast<std::size_t>(n_rows * n_out));
    gpu_->backend->linear_to_host(x, w, logits);
    for (const double temperature : {1e-300, 0.3, 1.0, 8.0, 100.0}) {
      std::vector<Draw> draws;
      // In every third row one token in seven may come.
      std::vector<std::uint32_t> allowed(static_cast<std::size_t>((n_out + 31) / 32));
      for (std::size_t token = 0; token < static_cast<std::size_t>(n_out); token += 7)
        allowed[token / 32] |= 1U << (token % 32);
      for (std::int64_t row = 0; row < n_rows; ++row) {
        const double top_p = std::array{1.0, 0.95, 0.5, 0.0}[static_cast<std::size_t>(row % 4)];
        draws.push_back({temperature, top_p, static_cast<double>(row) / n_rows});
        if (row % 3 == 1) draws.back().allowed = allowed;
      }
      std::vector<Token> tokens(draws.size());
      gpu_->next_tokens(x, w, draws, tokens);
      for (std::size_t row = 0; row < draws.size(); ++row) {
        const auto n = static_cast<std::size_t>(n_out);
        const auto of_row = std::span(logits).subspan(row * n, n);
        Draw less = draws[row], more = draws[row];
        less.unit = std::max(0.0, less.unit - kSlack);
        more.unit += kSlack;
        EXPECT_GE(tokens[row], next_token(of_row, less)) << n_out << ", row " << row;
        EXPECT_LE(tokens[row], next_token(of_row, more)) << n_out << ", row " << row;
        EXPECT_TRUE(row % 3 != 1 || tokens[row] % 7 == 0) << tokens[row] << " may not come";
      }
    }
  }
}

}  // namespace
}  // namespace starattn
