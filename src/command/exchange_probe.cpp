// SPDX-License-Identifier: Apache-2.0
#include "command/exchange_probe.h"

#include <algorithm>
#include <cstring>

#include "base/clock.h"
#include "base/error.h"
#include "base/text.h"
#include "exchange/shard_exchange.h"

namespace starattn {
namespace {

constexpr std::int64_t kWidth = 4096;    // fp32 numbers of all ranks in a row: 16 KiB
constexpr std::int64_t kManyRows = 512;  // 8 MiB

std::vector<Share> columns_of(std::int64_t n, int n_ranks) {
  std::vector<Share> columns;
  for (int rank = 0; rank < n_ranks; ++rank) {
    const std::int64_t first = n * rank / n_ranks;
    columns.push_back({first, n * (rank + 1) / n_ranks - first});
  }
  return columns;
}

// A number that says where it belongs and in which exchange.
std::uint32_t pattern(std::int64_t column, std::uint32_t turn) {
  return static_cast<std::uint32_t>(column) * 2654435761U + turn;
}

class Probe {
 public:
  Probe(const Communicator& node, Backend& backend, ShardExchange& exchange)
      : node_(node), backend_(backend), exchange_(exchange) {}

  // Seconds of one exchange.
  double seconds(std::int64_t n_rows, int n_times) {
    const std::vector<Share> columns = columns_of(kWidth, node_.size());
    const Share mine = columns[static_cast<std::size_t>(node_.rank())];
    const auto bytes = [&](std::int64_t width) {
      return static_cast<std::size_t>(std::max<std::int64_t>(1, n_rows * width)) *
             sizeof(std::uint32_t);
    };
    const Buffer own = backend_.allocate(bytes(mine.count));
    const Buffer all = backend_.allocate(bytes(kWidth));
    const auto exchange = [&] {
      exchange_.gather(own.data(), n_rows, columns, sizeof(std::uint32_t), all.data());
    };
    for (std::uint32_t turn = 0; turn < 4; ++turn) {
      std::vector<std::uint32_t> numbers;
      for (std::int64_t row = 0; row < n_rows; ++row)
        for (std::int64_t i = mine.first; i < mine.end(); ++i)
          numbers.push_back(pattern(row * kWidth + i, turn));
      backend_.upload(std::as_bytes(std::span(numbers)), own.data());
      exchange();
      numbers.resize(static_cast<std::size_t>(n_rows * kWidth));
      backend_.download(all.data(), std::as_writable_bytes(std::span(numbers)));
      const bool gave_up = exchange_.was_in_vain();
      collectively(node_, [&] {
        if (gave_up) fail(Exit::unfit, "exchange {}: waited in vain", exchange_.name());
        for (std::int64_t i = 0; i < std::ssize(numbers); ++i) {
          if (numbers[static_cast<std::size_t>(i)] != pattern(i, turn)) {
            fail(Exit::unfit, "exchange {}: a wrong value arrived on rank {} at {} of {}",
                 exchange_.name(), node_.rank(), i, numbers.size());
          }
        }
      });
    }
    node_.barrier();
    const Stopwatch clock;
    for (int i = 0; i < n_times; ++i) exchange();
    backend_.synchronize();
    node_.barrier();
    return clock.seconds() / n_times;
  }

  std::string finding() {
    const double one = seconds(1, 200);
    const double many = seconds(kManyRows, 10);
    const double moved = sizeof(std::uint32_t) * static_cast<double>(kManyRows * kWidth) *
                         (node_.size() - 1) / node_.size();  // to each rank
    return fmt::format("{}: 16 KiB in {:.1f} us, {:.1f} GB/s to each rank", exchange_.name(),
                       one * 1e6, moved / many * 1e-9);
  }

 private:
  const Communicator& node_;
  Backend& backend_;
  ShardExchange& exchange_;
};

}  // namespace

std::string probe_exchanges(const Communicator& node, Backend& backend) {
  const AttentionShape shape{node.size(), 1, 16};  // not used here
  const auto probe = [&](std::unique_ptr<PeerLinks> links) {
    const auto exchange = make_shard_exchange(
        node, node, backend, shape, columns_of(shape.n_heads, node.size()), 1, std::move(links));
    return Probe(node, backend, *exchange).finding();
  };
  std::string text = probe(nullptr);
  std::unique_ptr<PeerLinks> links;
  try {
    links = connect_peers(node, backend, /*on_one_device=*/false);
  } catch (const AgreedError& error) {
    return text + fmt::format("; not from device to device: {}", error.what());
  }
  return text + "; " + probe(std::move(links));
}

}  // namespace starattn
