// SPDX-License-Identifier: Apache-2.0
// Tokens of a step on the device: those that its rows have, and then those that are drawn behind
// them, which the next step may read there before the host knows them.
#pragma once

#include <cstdint>
#include <span>
#include <utility>

#include "backend/backend.h"
#include "trace/range.h"

namespace starattn {

class DeviceTokens {
 public:
  // max_tokens: of a step. The backend must outlive this.
  DeviceTokens(Backend& backend, std::int64_t max_tokens)
      : backend_(&backend),
        there_(backend.allocate(n_bytes(max_tokens))),
        here_(backend.allocate_pinned(n_bytes(max_tokens))) {}

  // The host's, on the device, until others are drawn.
  const Token* upload(std::span<const Token> tokens) {
    backend_->upload_later(std::as_bytes(tokens), there_.data());
    return all();
  }
  // Where the next n of a step's tokens are to be drawn, one behind the other.
  Token* next(std::size_t n) {
    Token* at = all() + n_drawn_;
    n_drawn_ += n;
    STARATTN_CHECK(n_drawn_ * sizeof(Token) <= there_.n_bytes());
    return at;
  }
  // Begins to fetch what is drawn; collect() waits for it, but not for later operations. Good until
  // the next step fetches its own.
  void fetch() {
    backend_->download_later(there_.data(), {here_.data(), n_drawn_ * sizeof(Token)});
    mark_ = backend_->mark();
  }
  std::span<const Token> collect() {
    const trace::Range range("logits");  // on a device that works behind the host, all of the step
    backend_->await(mark_);
    return {reinterpret_cast<const Token*>(here_.data()), std::exchange(n_drawn_, 0)};
  }
  Token* all() const { return reinterpret_cast<Token*>(there_.data()); }

 private:
  static std::size_t n_bytes(std::int64_t n) { return static_cast<std::size_t>(n) * sizeof(Token); }

  Backend* backend_;
  Buffer there_, here_;
  std::size_t n_drawn_ = 0;
  std::uint64_t mark_ = 0;
};

}  // namespace starattn
