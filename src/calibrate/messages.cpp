// SPDX-License-Identifier: Apache-2.0
#include "calibrate/messages.h"

#include <algorithm>
#include <vector>

#include "base/clock.h"
#include "calibrate/line_through.h"
#include "exchange/group_channel.h"
#include "exchange/query_exchange.h"

namespace starattn {
namespace {

double seconds_of_message(const Communicator& world, const Communicator& node, Backend& backend,
                          std::size_t n_bytes) {
  GroupChannel channel(world, node, backend);
  const Buffer memory = backend.allocate(n_bytes);
  std::vector<Channel::Reader> readers;
  for (Rank rank = 1; rank < world.size(); ++rank) readers.push_back({rank, n_bytes});
  double best = 1e9;
  for (int i = 0; i < 20; ++i) {
    world.barrier();
    const Stopwatch clock;
    if (world.is_root()) {
      channel.send({memory.data()}, readers);
    } else {
      channel.wait(channel.receive(0, {memory.data(), n_bytes}), "calibrate");
    }
    channel.wait_until_idle("calibrate");
    backend.synchronize();
    const std::vector<double> all = world.allgather(clock.seconds());
    best = std::min(best, *std::ranges::max_element(all));
  }
  return best;
}

double seconds_of_exchange(const Communicator& world, QueryExchange& exchange,
                           const CalibrationInputs& inputs, std::int64_t n_rows) {
  constexpr int kLayers = 8;
  const RowBuffer x = inputs.rows(n_rows, kWidth);
  const PartialBuffer partial(inputs.backend(), n_rows, shape_of_width(128));
  const std::int64_t n_mine = world.is_root() ? n_rows : 0;
  std::vector<std::int64_t> counts(static_cast<std::size_t>(world.size()), 0);
  counts[0] = n_rows;
  double best = 1e9;
  for (int i = 0; i < 50; ++i) {
    exchange.meet(0);
    exchange.start_step(counts);
    const Stopwatch clock;
    for (int k = 0; k < kLayers; ++k) {
      exchange.share(x.rows(n_mine));
      const Partial part = partial.partial();
      exchange.collect({&part, 1});
    }
    inputs.backend().synchronize();
    best = std::min(best, clock.seconds() / kLayers);
  }
  return world.bcast_value(best, 0);
}

}  // namespace

ByteTime time_messages(const Communicator& world, Backend& backend) {
  constexpr std::size_t kFew = std::size_t{64} << 10;
  constexpr std::size_t kMany = 8 * Channel::kPieceBytes;
  const Communicator node = world.split_by_node();
  return line_through(kFew, seconds_of_message(world, node, backend, kFew), kMany,
                      seconds_of_message(world, node, backend, kMany));
}

ByteTime time_query_exchange(const Communicator& world, const CalibrationInputs& inputs) {
  const AttentionShape shape = shape_of_width(128);
  QueryExchange exchange(world, world.split_by_node(), inputs.backend(), shape, Answerer::kMaxRows);
  exchange.start_document(std::vector<std::int64_t>(static_cast<std::size_t>(world.size()), 1));
  const double row_bytes =
      inputs.element() * kWidth +
      static_cast<double>(PartialBuffer::n_bytes(1, shape)) * (world.size() - 1);
  constexpr std::int64_t kMany = 64;
  return line_through(row_bytes, seconds_of_exchange(world, exchange, inputs, 1), kMany * row_bytes,
                      seconds_of_exchange(world, exchange, inputs, kMany));
}

}  // namespace starattn
