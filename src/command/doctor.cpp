// SPDX-License-Identifier: Apache-2.0
// doctor: is this machine, as this launcher set it up, fit for a run? One line a finding.
#include <cstdlib>
#include <fstream>
#include <iostream>
#include <set>

#include "base/clock.h"
#include "base/cores.h"
#include "base/text.h"
#include "checkpoint/hdf5_version.h"
#include "command/checkpoint_probe.h"
#include "command/commands.h"
#include "command/exchange_probe.h"
#include "exchange/anchor_broadcast.h"
#include "exchange/group_channel.h"
#include "exchange/query_exchange.h"
#include "mpi/runtime.h"
#include "run/loaded_model.h"
#include "star/kv.h"
#include "version.h"

namespace starattn {
namespace {

std::string processor_name() {
  std::ifstream info("/proc/cpuinfo");
  for (std::string line; std::getline(info, line);) {
    if (line.starts_with("model name")) return line.substr(line.find(':') + 2);
  }
  return "unknown processor";
}

void print(const Ranks& ranks, const char* what, const std::string& finding) {
  if (ranks.is_first()) std::cout << fmt::format("{:<12}{}\n", what, finding);
}

// How long one layer of an anchor takes from rank 0's device to those of all ranks.
struct AnchorWay {
  std::size_t layer_bytes = 0;
  double seconds = 0;
};

AnchorWay time_anchor(const Communicator& world, Backend& backend) {
  constexpr std::int64_t kLayers = 4;
  constexpr std::int64_t kWidth = 1024;
  const auto n_tokens =
      static_cast<std::int64_t>((std::size_t{16} << 20) / (kWidth * size_of(backend.kv_dtype())));
  const KvCache block_0(backend, world.is_root() ? kLayers : 0, n_tokens, kWidth);
  backend.synchronize();
  GroupChannel channel(world, world.split_by_node(), backend);
  const std::vector<bool> everybody(static_cast<std::size_t>(world.size()), true);
  double best = 1e9;
  for (int i = 0; i < 3; ++i) {
    AnchorBroadcast broadcast(channel, world.rank(), channel.nodes(), everybody, 0, backend,
                              kLayers, n_tokens, kWidth);
    world.barrier();
    const Stopwatch clock;
    for (std::int64_t layer = 0; world.is_root() && layer < kLayers; ++layer)
      broadcast.send({block_0.k(layer)}, {block_0.v(layer)});
    broadcast.finish();
    world.barrier();
    best = std::min(best, clock.seconds());
  }
  return {2 * block_0.part_bytes(), best / kLayers};
}

// Seconds in which one layer of phase 2 of an 8B model brings rank 0's rows to all ranks and their
// partials back, beside the attention itself.
double time_queries(const Communicator& world, Backend& backend, std::int64_t n_rows) {
  constexpr int kTimes = 200;
  const AttentionShape shape{32, 8, 128};
  const auto n_ranks = static_cast<std::size_t>(world.size());
  QueryExchange exchange(world, world.split_by_node(), backend, shape, n_rows);
  exchange.start_document(std::vector<std::int64_t>(n_ranks, 1));
  std::vector<std::int64_t> rows_by_rank(n_ranks, 0);
  rows_by_rank.front() = n_rows;
  exchange.meet(0);
  exchange.start_step(rows_by_rank);
  const RowBuffer q(backend, n_rows, shape.n_heads * shape.head_dim);
  const PartialBuffer buffer(backend, n_rows, shape);
  const Partial part = buffer.partial();
  backend.clear(part, shape);
  const auto layer = [&] {
    exchange.share(q.rows(world.is_root() ? n_rows : 0));
    exchange.collect({&part, 1});
  };
  layer();
  world.barrier();
  const Stopwatch clock;
  for (int i = 0; i < kTimes; ++i) layer();
  backend.synchronize();
  world.barrier();
  return clock.seconds() / kTimes;
}

Exit diagnose(const Options& options) {
  const Ranks ranks = arrange_ranks(options);
  const auto backend = make_backend(options, ranks);
  print(ranks, "starattn", STARATTN_VERSION);
  print(ranks, "MPI", fmt::format("{}, {} rank(s)", mpi_library_version(), ranks.world.size()));

  const std::string mine =
      fmt::format("{} | {} | {} usable core(s) | {} | {}", host_name(), processor_name(),
                  n_usable_cores(), backend->describe(), human_bytes(memory_of_node()));
  const std::vector<std::string> all = ranks.world.gather_texts(mine, 0);
  const std::vector<std::string> processors = ranks.world.gather_texts(processor_name(), 0);
  for (std::size_t rank = 0; rank < all.size(); ++rank)
    print(ranks, "rank", fmt::format("{}: {}", rank, all[rank]));
  if (std::set<std::string>(processors.begin(), processors.end()).size() > 1) {
    print(ranks, "warning",
          "the ranks' processors differ: answers are bit-identical only on one model of processor");
  }
  const auto cores = ranks.world.allgather(n_usable_cores());
  if (ranks.n_threads > n_usable_cores()) {
    print(ranks, "warning",
          fmt::format("{} threads on {} core(s): lower --threads or bind fewer ranks to a core",
                      ranks.n_threads, n_usable_cores()));
  }
  if (ranks.world.size() > 1) {
    const AnchorWay way = time_anchor(ranks.world, *backend);
    print(
        ranks, "anchor",
        fmt::format("{} of a layer, from rank 0's {} to all ranks' in {:.2f} ms, {:.2f} GB/s",
                    human_bytes(way.layer_bytes), backend->is_host_memory() ? "memory" : "GPU",
                    way.seconds * 1e3, static_cast<double>(way.layer_bytes) / way.seconds * 1e-9));
    const double one_row = time_queries(ranks.world, *backend, 1);
    const double many_rows = time_queries(ranks.world, *backend, 32);
    print(ranks, "queries",
          fmt::format("a layer's Q to all ranks and partials back: {:.0f} us for 1 row, {:.0f} us "
                      "for 32",
                      one_row * 1e6, many_rows * 1e6));
    const Communicator node = ranks.world.split_by_node();
    if (!ranks.world.any(node.size() < ranks.world.size()))
      print(ranks, "shares", probe_exchanges(ranks.world, *backend));
  } else if (std::getenv("SLURM_JOB_ID") && !std::getenv("OMPI_COMM_WORLD_SIZE")) {
    print(
        ranks, "note",
        "one rank inside a Slurm job: start several with 'srun --mpi=pmix -n N' or 'mpirun -n N'");
  }
  print(ranks, "HDF5", hdf5_version());
  if (!options.checkpoint_dir.empty()) {
    print(ranks, "checkpoints", probe_checkpoints(ranks.world, options.checkpoint_dir));
  }
  print(ranks, "device",
        fmt::format("{}; {} CUDA device(s) visible", backend->describe(), n_cuda_devices()));
  print(ranks, "verdict", "fit");
  return Exit::ok;
}

}  // namespace

Command add_doctor(CLI::App& parser) {
  auto options = std::make_shared<Options>();
  CLI::App* app =
      parser.add_subcommand("doctor", "Check MPI, binding, processors and memory of this job");
  add_device_options(*app, *options);
  app->add_option("--checkpoint-dir", options->checkpoint_dir,
                  "Save, read back and remove 64 MiB there");
  return {app, [options] { return diagnose(*options); }, [] { return true; }};
}

}  // namespace starattn
