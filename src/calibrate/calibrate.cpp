// SPDX-License-Identifier: Apache-2.0
#include "command/calibrate.h"

#include <algorithm>
#include <ctime>
#include <iterator>
#include <numeric>

#include "base/clock.h"
#include "base/file.h"
#include "base/log.h"
#include "base/random.h"
#include "command/calibrate_layers.h"
#include "exchange/group_channel.h"
#include "exchange/query_exchange.h"
#include "star/answer.h"
#include "star/context_attention.h"
#include "star/machine.h"
#include "study/machine.h"

namespace starattn {
namespace {

// Sizes that are measured; those between are interpolated.
constexpr std::int64_t kWidths[] = {256, 1024, 4096, 12288};
constexpr std::int64_t kWidest = 12288;
constexpr std::int64_t kWidth = 4096;                    // of rows, where one size is enough
constexpr std::int64_t kKeyChunks[] = {1, 2, 4, 8, 16};  // keys, in chunks of rows
constexpr std::int64_t kHeadDims[] = {64, 128};
constexpr std::int64_t kThinInputs[] = {1024, 4096, 12288};
constexpr std::int64_t kFewOutputs = 1024, kManyOutputs = 12288;
constexpr std::int64_t kSmallVocabulary = 4096;
constexpr std::int64_t kLargeVocabulary = 131072;

class Calibration {
 public:
  Calibration(Backend& backend, const Ranks& ranks)
      : backend_(backend),
        ranks_(ranks),
        element_(static_cast<double>(size_of(backend.activation_dtype()))),
        chunk_(backend.chunk_rows()) {
    numbers_.resize(static_cast<std::size_t>(kWidest * kWidest));
    for (std::size_t i = 0; i < numbers_.size(); ++i)
      numbers_[i] = f32_to_bf16(static_cast<float>(random_unit(1, i) - 0.5) * 0.03F);
    backend_.load(weight(kWidest, kWidest));
  }

  // f8_kv: the same device, keeping keys and values in FP8.
  Machine measure(double reference, Backend& f8_kv) {
    Machine m;
    m.name = backend_.describe();
    char date[16] = {};
    const std::time_t now = std::time(nullptr);
    std::tm utc{};
    std::strftime(date, sizeof(date), "%Y-%m-%d", gmtime_r(&now, &utc));
    m.date = date;
    m.dtype = backend_.activation_dtype();
    m.chunk_rows = chunk_;
    m.n_ranks = ranks_.world.size();
    m.reference_flops_per_s = reference;
    warm_up();
    measure_products(m);
    measure_attention(m);
    measure_rows(m);
    measure_recall(m);
    measure_thin_operations(m);
    LayerCalibration layers(backend_, f8_kv, ranks_.world.split(ranks_.world.rank()),
                            [this](auto n) {
                              return [this, n](const std::function<void()>& operation) {
                                return seconds_of([&](std::int64_t) { operation(); }, n);
                              };
                            });
    layers.measure(m);
    if (ranks_.world.size() > 1) measure_messages(m);
    if (!backend_.is_host_memory()) m.bus_bytes_per_s = bus_rate();
    return m;
  }

 private:
  // A matrix of random numbers; `turn` takes others, so that none stays in a cache.
  WeightView weight(std::int64_t n_out, std::int64_t n_in, std::int64_t turn = 0) const {
    const std::int64_t n_places = std::ssize(numbers_) / (n_out * n_in);
    const std::int64_t first = turn % n_places * n_out * n_in;
    return {reinterpret_cast<const std::byte*>(numbers_.data() + first), Dtype::bf16, n_out, n_in};
  }

  // The same 1024 rows again and again.
  RowBuffer random_rows(std::int64_t n_rows, std::int64_t width) {
    RowBuffer buffer(backend_, n_rows, width);
    const std::int64_t n_made = std::min<std::int64_t>(n_rows, 1024);
    std::vector<float> wide;
    std::vector<std::uint16_t> narrow;
    for (std::int64_t i = 0; i < n_made * width; ++i) {
      wide.push_back(static_cast<float>(2 * random_unit(2, static_cast<std::uint64_t>(i)) - 1));
      narrow.push_back(f32_to_bf16(wide.back()));
    }
    const bool is_wide = backend_.activation_dtype() == Dtype::f32;
    const auto bytes = is_wide ? std::as_bytes(std::span(wide)) : std::as_bytes(std::span(narrow));
    const std::size_t row_bytes = bytes.size() / static_cast<std::size_t>(n_made);
    for (std::int64_t row = 0; row < n_rows; row += n_made) {
      const std::int64_t n = std::min(n_made, n_rows - row);
      backend_.upload(bytes.first(static_cast<std::size_t>(n) * row_bytes),
                      buffer.rows(row, n).data);
    }
    return buffer;
  }

  // Seconds of one call, over so many bundles of calls on all ranks at once: on a GPU their mean,
  // because at its power limit it is now faster, now slower; on a CPU the best, because it is other
  // processes that make the rest slower. The mean over ranks. operation(i): i = 0, 1, ...
  template <typename Operation>
  double seconds_of(const Operation& operation, std::size_t n_bundles = kBundles) {
    const bool on_host = backend_.is_host_memory();
    const double bundle = on_host ? 0.01 : n_bundles < kBundles ? 0.02 : 0.05;
    std::int64_t next = 0;
    const auto timed = [&](std::int64_t n) {
      backend_.synchronize();
      const Stopwatch clock;
      for (std::int64_t i = 0; i < n; ++i) operation(next++);
      backend_.synchronize();
      return clock.seconds() / static_cast<double>(n);
    };
    const double first = timed(1);
    // What takes long needs neither a warm-up nor a third time.
    std::vector<double> bundles;
    std::int64_t n = 1;
    if (on_host && first > 0.25) {
      bundles.push_back(first);
    } else {
      n = static_cast<std::int64_t>(std::clamp(bundle / timed(1), 1.0, 1e4));
    }
    ranks_.world.barrier();
    const Stopwatch clock;
    while (bundles.size() < n_bundles && (bundles.size() < 2 || clock.seconds() < 1))
      bundles.push_back(timed(n));
    const double mean =
        std::accumulate(bundles.begin(), bundles.end(), 0.0) / static_cast<double>(bundles.size());
    const double mine = on_host ? *std::ranges::min_element(bundles) : mean;
    const std::vector<double> all = ranks_.world.allgather(mine);
    return std::accumulate(all.begin(), all.end(), 0.0) / static_cast<double>(all.size());
  }

  // The clock of a GPU falls under load, and documents take long.
  void warm_up() {
    if (backend_.is_host_memory()) return;
    const RowBuffer x = random_rows(chunk_, kWidth);
    const RowBuffer y(backend_, chunk_, kWidth);
    for (const Stopwatch clock; clock.seconds() < 3; backend_.synchronize())
      for (int i = 0; i < 100; ++i)
        backend_.linear(x.rows(chunk_), {weight(kWidth, kWidth, i), WeightView{}, y.rows(chunk_)},
                        Product::chunk);
  }

  void measure_products(Machine& m) {
    const RowBuffer x = random_rows(chunk_, kWidest);
    const RowBuffer y(backend_, chunk_, kWidest);
    for (const std::int64_t n_in : kWidths) {
      for (const std::int64_t n_out : kWidths) {
        const Rows in{x.rows(chunk_).data, chunk_, n_in};
        const Rows out{y.rows(chunk_).data, chunk_, n_out};
        const double seconds = seconds_of([&](std::int64_t i) {
          backend_.linear(in, {weight(n_out, n_in, i), WeightView{}, out}, Product::chunk);
        });
        m.products.push_back(
            {n_in, n_out, 2 * static_cast<double>(chunk_ * n_in * n_out) / seconds});
      }
    }
  }

  // Heads in groups of four, a causal segment, as the last chunk of a block has it.
  void measure_attention(Machine& m) {
    for (const std::int64_t head_dim : kHeadDims) {
      const AttentionShape shape{kWidth / head_dim, kWidth / head_dim / 4, head_dim};
      const std::int64_t most = kKeyChunks[std::size(kKeyChunks) - 1] * chunk_;
      const RowBuffer q = random_rows(chunk_, kWidth);
      const RowBuffer kv = random_rows(most, kWidth / 2);
      const RowBuffer out(backend_, chunk_, kWidth);
      const PartialBuffer scratch(backend_, chunk_, shape);
      for (const std::int64_t n_chunks : kKeyChunks) {
        const std::int64_t n_keys = n_chunks * chunk_;
        const std::byte* keys = kv.rows(most).data;
        const KvSegment segment{keys, keys + kv_bytes(n_keys, shape) / 2, n_keys, true};
        const double seconds = seconds_of([&](std::int64_t) {
          backend_.attend_all(q.rows(chunk_), {&segment, 1}, shape, Product::chunk,
                              scratch.partial(), out.rows(chunk_));
        });
        const double pairs = static_cast<double>(chunk_) * (static_cast<double>(n_keys - chunk_) +
                                                            static_cast<double>(chunk_ + 1) / 2);
        m.attention.push_back({head_dim, n_keys, 4 * kWidth * pairs / seconds});
      }
    }
  }

  // What is not a product in a layer of phase 1, in the proportions of one; star/seconds.cpp counts
  // its bytes alike.
  void measure_rows(Machine& m) {
    const RowBuffer x = random_rows(chunk_, kWidth);
    const RowBuffer wide = random_rows(chunk_, 3 * kWidth);
    const RowBuffer up = random_rows(chunk_, 3 * kWidth);
    const Buffer angles = angles_of(chunk_);
    const double width = (4 + 2 + 9 + 3) * static_cast<double>(kWidth);
    const double seconds = seconds_of([&](std::int64_t) {
      const Rows rows = x.rows(chunk_);
      backend_.rms_norm(rows, weight(1, kWidth), 1e-5, rows);
      backend_.rms_norm(rows, weight(1, kWidth), 1e-5, rows);
      backend_.rope(rows, 128, cos_of(angles), sin_of(angles, chunk_));
      backend_.swiglu(wide.rows(chunk_), up.rows(chunk_), up.rows(chunk_));
      backend_.add(rows, rows);
    });
    m.row_bytes_per_s = static_cast<double>(chunk_) * width * element_ / seconds;
  }

  void measure_recall(Machine& m) {
    const AttentionShape shape{kWidth / 128, kWidth / 128 / 4, 128};
    const std::int64_t n_keys = 8 * chunk_;
    const std::int64_t n_asking = chunk_ / 2;
    const RowBuffer q = random_rows(n_asking, kWidth);
    const RowBuffer keys = random_rows(n_keys, kWidth / 4);
    const Buffer z = floats(n_asking * shape.n_heads);
    const Buffer scores = floats(n_keys);
    const Buffer numbers = floats(n_keys);
    const Buffer best = floats(n_keys);
    const KvSegment segment{keys.rows(n_keys).data, nullptr, n_keys, false};
    const auto f32 = [](const Buffer& buffer) { return reinterpret_cast<float*>(buffer.data()); };
    auto* i32 = reinterpret_cast<std::int32_t*>(numbers.data());
    const double scoring = seconds_of([&](std::int64_t) {
      backend_.score_keys(q.rows(n_asking), f32(z), segment, shape, f32(scores));
    });
    m.scoring_flops_per_s = 2 * static_cast<double>(kWidth * n_asking * n_keys) / scoring;
    const double choosing = seconds_of([&](std::int64_t) {
      backend_.choose_best(f32(scores), n_keys, n_keys / 16, i32, f32(best));
    });
    m.best_of_keys_per_s = static_cast<double>(n_keys) / choosing;
    const double asking = seconds_of(
        [&](std::int64_t) { backend_.choose_asking_rows(segment, shape, n_keys / 16, i32); });
    m.likeness_bytes_per_s = static_cast<double>(n_keys * kWidth / 4) * element_ /
                             std::max(asking - choosing, 0.1 * asking);
  }

  void measure_thin_operations(Machine& m) {
    const RowBuffer x = random_rows(Answerer::kMaxRows, kWidest);
    const RowBuffer y(backend_, Answerer::kMaxRows, kManyOutputs);
    const RowBuffer kv = random_rows(n_many_keys(chunk_), kWidth / 2);
    for (const std::int64_t n : kThinRows) {
      for (const std::int64_t n_in : kThinInputs) {
        const auto seconds = [&](std::int64_t n_out) {
          return seconds_of(
              [&](std::int64_t i) {
                backend_.linear({x.rows(n).data, n, n_in},
                                {weight(n_out, n_in, i), WeightView{}, {y.rows(n).data, n, n_out}},
                                Product::batch_invariant);
              },
              kFewBundles);
        };
        const auto bytes = [&](std::int64_t n_out) {
          return 2 * static_cast<double>(n_out * n_in);
        };
        m.thin_products.push_back({n, n_in,
                                   line_through(bytes(kFewOutputs), seconds(kFewOutputs),
                                                bytes(kManyOutputs), seconds(kManyOutputs))});
      }
      for (const std::int64_t head_dim : kHeadDims)
        m.thin_attention.push_back({n, head_dim, thin_attention(n, head_dim, x, kv)});
      m.thin_merges.push_back({n, 0, merges(n, x, kv)});
      m.next_tokens.push_back({n, 0, line_of_draws(n)});
    }
  }

  // Of one block. kv [8 chunks, keys and values]
  ByteTime thin_attention(std::int64_t n, std::int64_t head_dim, const RowBuffer& q,
                          const RowBuffer& kv) {
    const AttentionShape shape{kWidth / head_dim, kWidth / head_dim / 4, head_dim};
    const PartialBuffer partial(backend_, n, shape);
    const auto seconds = [&](std::int64_t n_keys) {
      return seconds_of(
          [&](std::int64_t i) {
            const std::int64_t n_places = 8 * chunk_ / n_keys;
            const std::byte* keys = kv.rows(i % n_places * n_keys, n_keys).data;
            const KvSegment block{keys, keys + kv_bytes(n_keys, shape) / 2, n_keys, false};
            const Partial part = partial.partial();
            backend_.attend_blocks({q.rows(n).data, n, kWidth}, {&block, 1}, shape, {}, {&part, 1});
          },
          kFewBundles);
    };
    const auto few = static_cast<double>(kv_bytes(chunk_, shape));
    return line_through(few, seconds(chunk_), 8 * few, seconds(8 * chunk_));
  }

  // What a block costs beside its keys where a call attends to several: eight beside one.
  ByteTime merges(std::int64_t n, const RowBuffer& q, const RowBuffer& kv) {
    constexpr int kBlocks = ContextAttention::kBlocksAtOnce;
    const auto seconds = [&](const AttentionShape& shape, int n_blocks) {
      const std::int64_t n_keys = 8 * chunk_ / n_blocks;
      std::vector<KvSegment> blocks;
      std::vector<PartialBuffer> memory;
      std::vector<Partial> parts;
      std::vector<Merge> merges;
      for (int i = 0; i < n_blocks; ++i) {
        const std::byte* keys = kv.rows(0, 1).data + kv_bytes(i * n_keys, shape);
        blocks.push_back({keys, keys + kv_bytes(n_keys, shape) / 2, n_keys, false});
        memory.emplace_back(backend_, n, shape);
        parts.push_back(memory.back().partial());
      }
      for (int step = 1; step < n_blocks; step *= 2)
        for (int i = 0; i + step < n_blocks; i += 2 * step) merges.push_back({i, i + step});
      return seconds_of(
          [&](std::int64_t) {
            backend_.attend_blocks({q.rows(n).data, n, shape.n_heads * shape.head_dim}, blocks,
                                   shape, merges, parts);
          },
          kFewBundles);
    };
    const auto of_one = [&](const AttentionShape& shape) {
      return std::max(1e-9, (seconds(shape, kBlocks) - seconds(shape, 1)) / (kBlocks - 1));
    };
    const AttentionShape small{8, 2, 128}, large{kWidth / 128, kWidth / 512, 128};
    return line_through(static_cast<double>(PartialBuffer::n_bytes(n, small)), of_one(small),
                        static_cast<double>(PartialBuffer::n_bytes(n, large)), of_one(large));
  }

  // From logits to tokens on the host.
  ByteTime line_of_draws(std::int64_t n) {
    const std::vector<Draw> draws(static_cast<std::size_t>(n));
    std::vector<Token> tokens(static_cast<std::size_t>(n));
    const Buffer logits = floats(n * kLargeVocabulary);
    const auto seconds = [&](std::int64_t vocabulary) {
      return seconds_of(
          [&](std::int64_t) {
            backend_.draw_tokens(reinterpret_cast<float*>(logits.data()), vocabulary, draws,
                                 tokens);
          },
          kFewBundles);
    };
    const auto bytes = [&](std::int64_t vocabulary) {
      return static_cast<double>(n * vocabulary) * sizeof(float);
    };
    return line_through(bytes(kSmallVocabulary), seconds(kSmallVocabulary), bytes(kLargeVocabulary),
                        seconds(kLargeVocabulary));
  }

  // Between the ranks of this run: the first sends to all others at once, then phase 2's exchange.
  void measure_messages(Machine& m) {
    const Communicator node = ranks_.world.split_by_node();
    const auto one_way = [&](std::size_t n_bytes) {
      GroupChannel channel(ranks_.world, node, backend_);
      const Buffer memory = backend_.allocate(n_bytes);
      std::vector<Channel::Reader> readers;
      for (Rank rank = 1; rank < ranks_.world.size(); ++rank) readers.push_back({rank, n_bytes});
      double best = 1e9;
      for (int i = 0; i < 20; ++i) {
        ranks_.world.barrier();
        const Stopwatch clock;
        if (ranks_.is_first()) {
          channel.send({memory.data()}, readers);
        } else {
          channel.wait(channel.receive(0, {memory.data(), n_bytes}), "calibrate");
        }
        channel.wait_until_idle("calibrate");
        backend_.synchronize();
        const std::vector<double> all = ranks_.world.allgather(clock.seconds());
        best = std::min(best, *std::ranges::max_element(all));
      }
      return best;
    };
    constexpr std::size_t kFew = std::size_t{64} << 10;
    constexpr std::size_t kMany = 8 * Channel::kPieceBytes;
    m.message = line_through(kFew, one_way(kFew), kMany, one_way(kMany));

    const AttentionShape shape{kWidth / 128, kWidth / 128 / 4, 128};
    QueryExchange exchange(ranks_.world, node, backend_, shape, Answerer::kMaxRows);
    exchange.start_document(
        std::vector<std::int64_t>(static_cast<std::size_t>(ranks_.world.size()), 1));
    const auto layer = [&](std::int64_t n_rows) {
      constexpr int kLayers = 8;
      const RowBuffer x = random_rows(n_rows, kWidth);
      const PartialBuffer partial(backend_, n_rows, shape);
      const std::int64_t n_mine = ranks_.is_first() ? n_rows : 0;
      std::vector<std::int64_t> counts(static_cast<std::size_t>(ranks_.world.size()), 0);
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
        backend_.synchronize();
        best = std::min(best, clock.seconds() / kLayers);
      }
      return ranks_.world.bcast_value(best, 0);
    };
    const double row_bytes =
        element_ * kWidth +
        static_cast<double>(PartialBuffer::n_bytes(1, shape)) * (ranks_.world.size() - 1);
    m.step = line_through(row_bytes, layer(1), 64 * row_bytes, layer(64));
  }

  double bus_rate() {
    constexpr std::size_t kBytes = std::size_t{256} << 20;
    const Buffer host = backend_.allocate_pinned(kBytes);
    const Buffer device = backend_.allocate(kBytes);
    const double seconds = seconds_of([&](std::int64_t) {
      backend_.upload({host.data(), kBytes}, device.data());
    });
    return static_cast<double>(kBytes) / seconds;
  }

  std::size_t kv_bytes(std::int64_t n_keys, const AttentionShape& shape) const {
    return static_cast<std::size_t>(2 * n_keys * shape.n_kv_heads * shape.head_dim) *
           size_of(backend_.activation_dtype());
  }
  Buffer floats(std::int64_t n) {
    Buffer buffer = backend_.allocate(static_cast<std::size_t>(n) * sizeof(float));
    const std::vector<float> zeros(static_cast<std::size_t>(n), 0.5F);
    backend_.upload(std::as_bytes(std::span(zeros)), buffer.data());
    return buffer;
  }
  Buffer angles_of(std::int64_t n_rows) { return floats(2 * n_rows * 64); }
  static const float* cos_of(const Buffer& angles) {
    return reinterpret_cast<const float*>(angles.data());
  }
  static const float* sin_of(const Buffer& angles, std::int64_t n_rows) {
    return cos_of(angles) + n_rows * 64;
  }

  Backend& backend_;
  const Ranks& ranks_;
  double element_;                      // bytes of an activation, of a key's or value's number
  std::int64_t chunk_;                  // rows
  std::vector<std::uint16_t> numbers_;  // bf16 [kWidest, kWidest]: every matrix is a part of it
};

}  // namespace

Exit calibrate_to(const std::string& path, const DeviceOptions& options, const Ranks& ranks) {
  collectively(ranks.world, [&] {
    if (ranks.is_first()) require_creatable(path);
  });
  const std::unique_ptr<Backend> backend = make_backend(options, ranks);
  const double reference = product_rate(ranks, *backend) / ranks.world.size();
  DeviceOptions with_f8_kv = options;
  with_f8_kv.kv_dtype = "fp8";
  const std::unique_ptr<Backend> f8_kv = make_backend(with_f8_kv, ranks);
  const Machine machine = Calibration(*backend, ranks).measure(reference, *f8_kv);
  const double swing = swing_of({reference, product_rate(ranks, *backend) / ranks.world.size()});
  if (ranks.is_first() && swing > kBusySwing) {
    log::warn(
        "the machine's own products swung by {:.0f} % during the calibration: something else is at "
        "work on it, or its clocks move. Times by this file will be wrong; make it again",
        100 * swing);
  }
  collectively(ranks.world, [&] {
    if (ranks.is_first()) write_file_durably(path, to_text(machine));
  });
  return Exit::ok;
}

}  // namespace starattn
