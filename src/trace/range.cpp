// SPDX-License-Identifier: Apache-2.0
#include "trace/range.h"

#include <fmt/format.h>
#include <sys/resource.h>

#include <atomic>
#include <cstring>

#include "trace/recorder.h"

namespace starattn::trace {
namespace {

struct Sum {
  const char* name;
  double seconds = 0;
  std::uint64_t n_calls = 0;
  std::uint64_t n_bytes = 0;
};

std::vector<Sum> sums;  // few

Sum& sum_of(const char* name) {
  for (Sum& sum : sums)
    if (sum.name == name) return sum;
  for (Sum& sum : sums)
    if (std::strcmp(sum.name, name) == 0) return sum;
  return sums.emplace_back(Sum{name});
}

std::atomic<const char*> innermost = nullptr;  // open range
std::atomic<const char*> last_closed = "start";
std::atomic<std::uint64_t> moves = 0;

}  // namespace

Range::Range(const char* name, Lane lane, const Place& place)
    : name_(name), lane_(lane), at_(place), start_(now()), outer_(innermost) {
  innermost = name;
  ++moves;
  if (is_recording()) recorder().open(name, /*is_phase=*/outer_ == nullptr);
}

Range::~Range() {
  innermost = outer_;
  last_closed = name_;
  ++moves;
  const double end = now();
  Sum& sum = sum_of(name_);
  sum.seconds += end - start_;
  ++sum.n_calls;
  if (is_recording()) recorder().close({name_, lane_, start_, end, {}, here});
}

std::string where_now() {
  const char* open = innermost;
  return fmt::format("{} '{}'", open ? "in" : "after", open ? open : last_closed.load());
}
std::uint64_t n_moves() {
  return moves;
}

void count_bytes(const char* name, std::uint64_t n_bytes, Lane lane) {
  sum_of(name).n_bytes += n_bytes;
  if (lane == Lane::messages) message(name, n_bytes);
}

std::vector<Total> totals() {
  std::vector<Total> all;
  for (const Sum& sum : sums) all.push_back({sum.name, sum.seconds, sum.n_calls, sum.n_bytes});
  return all;
}

void reset() {
  sums.clear();
  recorder().forget_counts();
}

std::uint64_t peak_memory_bytes() {
  struct rusage usage {};
  ::getrusage(RUSAGE_SELF, &usage);
  return static_cast<std::uint64_t>(usage.ru_maxrss) * 1024;
}

}  // namespace starattn::trace
