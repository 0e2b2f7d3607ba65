// SPDX-License-Identifier: Apache-2.0
#include "backend/timed_links.h"

#include <utility>

#include "trace/span.h"

namespace starattn {
namespace {

using trace::Lane;
using trace::Span;

class TimedLinks : public PeerLinks {
 public:
  TimedLinks(std::unique_ptr<PeerLinks> links, trace::DeviceClock* clock)
      : links_(std::move(links)), clock_(clock) {}
  PeerAddress address() const override { return links_->address(); }
  void connect(std::span<const PeerAddress> all, int me) override { links_->connect(all, me); }
  void exchange(std::span<const std::vector<Strip>> to,
                std::span<const std::vector<Strip>> from) override {
    double n_bytes = 0;
    for (const auto& strips : {to, from})
      for (const std::vector<Strip>& of_rank : strips)
        for (const Strip& strip : of_rank) n_bytes += static_cast<double>(strip.n_bytes());
    trace::message("exchange between devices", static_cast<std::uint64_t>(n_bytes));
    const Span span("exchange between devices", Lane::compute, {.n_bytes = n_bytes}, clock_);
    links_->exchange(to, from);
  }
  void exchange_rows(Rows mine, std::span<const Share> columns, Rows all, const RowNorm* norm,
                     Rows normed, Reader reader) override {
    const auto n_values = static_cast<double>(all.n_rows * all.width);  // sent or received
    const double n_bytes = n_values * size_of(Dtype::bf16);
    trace::message("exchange between devices", static_cast<std::uint64_t>(n_bytes));
    const Span span("exchange between devices", Lane::compute, {.n_bytes = n_bytes}, clock_);
    links_->exchange_rows(mine, columns, all, norm, normed, reader);
  }
  void announce_parts(std::span<const Partial> mine, std::span<const Share> heads) override {
    links_->announce_parts(mine, heads);
  }
  void leave_parts(std::span<const Partial> all, std::span<const std::int64_t> n_parts,
                   const AttentionShape& own) override {
    links_->leave_parts(all, n_parts, own);
  }
  void announce(Rows mine, std::span<const Share> columns, Rows all) override {
    links_->announce(mine, columns, all);
  }
  void set_wait_limit(double seconds) override { links_->set_wait_limit(seconds); }
  bool has_given_up() override { return links_->has_given_up(); }

 private:
  std::unique_ptr<PeerLinks> links_;
  trace::DeviceClock* clock_;
};

}  // namespace

std::unique_ptr<PeerLinks> make_timed_links(std::unique_ptr<PeerLinks> links,
                                            trace::DeviceClock* clock) {
  return std::make_unique<TimedLinks>(std::move(links), clock);
}

}  // namespace starattn
