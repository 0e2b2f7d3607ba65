// SPDX-License-Identifier: Apache-2.0
#include "simulate/timeline.h"

#include <algorithm>
#include <queue>
#include <utility>

#include "base/error.h"

namespace starattn {

Timeline::Timeline(int n_ranks, const Links& links)
    : links_(links), ranks_(static_cast<std::size_t>(n_ranks)) {
  STARATTN_CHECK(n_ranks > 0 && links.ranks_per_node > 0);
}

void Timeline::add(Rank rank, Operation operation) {
  ranks_[index(rank)].program.push_back(operation);
  ++n_operations_;
}

void Timeline::compute(Rank rank, double seconds) {
  std::vector<Operation>& program = ranks_[index(rank)].program;
  if (!program.empty() && program.back().kind == Kind::compute) {
    program.back().value += seconds;
  } else if (seconds > 0) {
    add(rank, {seconds, 0, Kind::compute});
  }
}

Timeline::Message Timeline::send(Rank from, double n_bytes, std::span<const Rank> readers) {
  const auto first = static_cast<Message>(messages_.size());
  bool is_out = false;  // to the ranks of this node
  for (const Rank to : readers) {
    const bool is_again = is_near(from, to) && std::exchange(is_out, true);
    add(from, {n_bytes, static_cast<Message>(messages_.size()),
               is_again ? Kind::send_again : Kind::send});
    messages_.push_back({to});
  }
  return first;
}

Timeline::Message Timeline::send_on_and_on(Rank from, double n_bytes, double piece_bytes,
                                           std::span<const Rank> readers) {
  const auto first = static_cast<Message>(messages_.size());
  const double piece = std::min(piece_bytes, n_bytes);
  const int my_node = from / links_.ranks_per_node;
  int node = my_node;
  int n_nodes = 0;        // reached so far, beside the sender's
  bool has_left[2] = {};  // to the sender's node, to the next one
  for (const Rank to : readers) {
    const int its_node = to / links_.ranks_per_node;
    const bool is_leader = its_node != my_node && its_node != std::exchange(node, its_node);
    if (is_leader) ++n_nodes;
    double delay = std::max(0, n_nodes - 1) * links_.far.seconds(piece);
    if (its_node != my_node && !is_leader) delay += links_.near.seconds(piece);
    bool& is_out = has_left[its_node != my_node];
    add(from, {n_bytes, static_cast<Message>(messages_.size()),
               std::exchange(is_out, true) ? Kind::send_again : Kind::send});
    messages_.push_back({to, static_cast<float>(delay)});
  }
  return first;
}

void Timeline::wait(Rank rank, Message message) {
  STARATTN_CHECK(messages_[message].to == rank);
  add(rank, {0, message, Kind::wait});
}

void Timeline::slow_down(Rank rank, double factor) {
  ranks_[index(rank)].factor = factor;
}

void Timeline::leave(Rank from, const Operation& send) {
  RankState& sender = ranks_[index(from)];
  InFlight& message = messages_[send.message];
  RankState& reader = ranks_[index(message.to)];
  const ByteTime& line = is_near(from, message.to) ? links_.near : links_.far;
  const double on_its_way = send.value / line.bytes_per_s;
  double leaves = std::max(sender.now, sender.out_is_free);
  if (send.kind == Kind::send_again) {
    leaves = std::max(sender.now, sender.out_is_free - on_its_way);  // with the one before
  } else {
    sender.out_is_free = leaves + on_its_way;
    n_bytes_ += send.value;
    if (links_.takes_time) sender.now += on_its_way;
  }
  if (links_.takes_time) message.copy = static_cast<float>(on_its_way);
  message.arrival = std::max(leaves + line.start_s + message.delay, reader.in_is_free) + on_its_way;
  reader.in_is_free = message.arrival;
  if (message.is_waited_for) woken_.push_back(message.to);
}

bool Timeline::step(Rank rank) {
  RankState& me = ranks_[index(rank)];
  if (me.next == me.program.size()) return false;
  const Operation& operation = me.program[me.next];
  switch (operation.kind) {
    case Kind::compute:
      me.now += operation.value * me.factor;
      break;
    case Kind::send:
    case Kind::send_again:
      leave(rank, operation);
      break;
    case Kind::wait: {
      InFlight& message = messages_[operation.message];
      if (message.arrival == std::numeric_limits<double>::infinity()) {
        message.is_waited_for = true;
        return false;
      }
      const double begin = me.now + message.copy;
      me.waited += std::max(0.0, message.arrival - begin);
      me.now = std::max(begin, message.arrival);
      break;
    }
  }
  ++me.next;
  return true;
}

// Always the rank that is furthest behind, so that messages leave in the order of time.
void Timeline::run() {
  using Turn = std::pair<double, Rank>;
  std::priority_queue<Turn, std::vector<Turn>, std::greater<>> turns;
  for (std::size_t rank = 0; rank < ranks_.size(); ++rank)
    turns.emplace(0, static_cast<Rank>(rank));
  while (!turns.empty()) {
    const Rank rank = turns.top().second;
    turns.pop();
    if (step(rank)) turns.emplace(ranks_[index(rank)].now, rank);
    for (const Rank woken : woken_) turns.emplace(ranks_[index(woken)].now, woken);
    woken_.clear();
  }
  for (const RankState& rank : ranks_) STARATTN_CHECK(rank.next == rank.program.size());
}

double Timeline::seconds() const {
  double last = 0;
  for (const RankState& rank : ranks_) last = std::max(last, rank.now);
  return last;
}

}  // namespace starattn
