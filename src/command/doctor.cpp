// SPDX-License-Identifier: Apache-2.0
// doctor: is this machine, as this launcher set it up, fit for a run? One line a finding.
#include <cstdlib>
#include <fstream>
#include <iostream>
#include <set>

#include "base/clock.h"
#include "base/cores.h"
#include "base/json.h"
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

struct DoctorOptions {
  Options common;
  bool json = false;
};

// What was found, as lines for people while it is being found, or as one object at the end. On the
// first rank; the others print nothing.
class Findings {
 public:
  Findings(bool is_first, bool as_json) : is_first_(is_first), as_json_(as_json) {
    json_["schema"] = "starattn-doctor-1";
    json_["warnings"] = Json::array();
  }

  void say(const char* what, const std::string& finding) const {
    if (is_first_ && !as_json_) std::cout << fmt::format("{:<12}{}\n", what, finding);
  }
  void warn(const char* what, const std::string& finding) {
    json_["warnings"].push_back(finding);
    say(what, finding);
  }
  void set(const char* key, Json value) { json_[key] = std::move(value); }
  void finish() const {
    if (is_first_ && as_json_) std::cout << to_line(json_) << "\n";
  }

 private:
  bool is_first_;
  bool as_json_;
  Json json_;
};

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
  const KvLayout layout{backend.kv_dtype(), 1, kWidth};
  const KvCache block_0(backend, world.is_root() ? kLayers : 0, n_tokens, layout);
  backend.synchronize();
  GroupChannel channel(world, world.split_by_node(), backend);
  const std::vector<bool> everybody(static_cast<std::size_t>(world.size()), true);
  double best = 1e9;
  for (int i = 0; i < 3; ++i) {
    AnchorBroadcast broadcast(channel, world.rank(), channel.nodes(), everybody, 0, backend,
                              kLayers, n_tokens, layout);
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

void look_at_ranks(const Ranks& ranks, const Backend& backend, Findings& found) {
  const Json mine = {{"host", host_name()},
                     {"processor", processor_name()},
                     {"usable_cores", n_usable_cores()},
                     {"threads", ranks.n_threads},
                     {"device", backend.describe()},
                     {"memory_bytes", memory_of_node()}};
  Json all = Json::array();
  std::set<std::string> processors;
  for (const std::string& text : ranks.world.gather_texts(to_line(mine), 0)) {
    const Json rank = parse_json(text, "what a rank found");
    found.say("rank",
              fmt::format("{}: {} | {} | {} usable core(s) | {} | {}", all.size(),
                          rank["host"].get<std::string>(), rank["processor"].get<std::string>(),
                          rank["usable_cores"].get<int>(), rank["device"].get<std::string>(),
                          human_bytes(rank["memory_bytes"].get<std::uint64_t>())));
    processors.insert(rank["processor"].get<std::string>());
    all.push_back(rank);
  }
  found.set("ranks", std::move(all));
  if (processors.size() > 1) {
    found.warn(
        "warning",
        "the ranks' processors differ: answers are bit-identical only on one model of processor");
  }
  if (ranks.n_threads > n_usable_cores()) {
    found.warn("warning",
               fmt::format("{} threads on {} core(s): lower --threads or bind fewer ranks to a "
                           "core",
                           ranks.n_threads, n_usable_cores()));
  }
}

void time_exchanges(const Ranks& ranks, Backend& backend, Findings& found) {
  const AnchorWay way = time_anchor(ranks.world, backend);
  found.set("anchor_layer", {{"bytes", way.layer_bytes}, {"seconds", way.seconds}});
  found.say(
      "anchor",
      fmt::format("{} of a layer, from rank 0's {} to all ranks' in {:.2f} ms, {:.2f} GB/s",
                  human_bytes(way.layer_bytes), backend.is_host_memory() ? "memory" : "GPU",
                  way.seconds * 1e3, static_cast<double>(way.layer_bytes) / way.seconds * 1e-9));
  const double one_row = time_queries(ranks.world, backend, 1);
  const double many_rows = time_queries(ranks.world, backend, 32);
  found.set("query_layer_seconds", {{"1_row", one_row}, {"32_rows", many_rows}});
  found.say("queries", fmt::format("a layer's Q to all ranks and partials back: {:.0f} us for 1 "
                                   "row, {:.0f} us for 32",
                                   one_row * 1e6, many_rows * 1e6));
  const Communicator node = ranks.world.split_by_node();
  if (ranks.world.any(node.size() < ranks.world.size())) return;
  const std::string shares = probe_exchanges(ranks.world, backend);
  found.set("shares", shares);
  found.say("shares", shares);
}

Exit diagnose(const DoctorOptions& options) {
  const Ranks ranks = arrange_ranks(options.common);
  const auto backend = make_backend(options.common, ranks);
  Findings found(ranks.is_first(), options.json);
  found.set("version", STARATTN_VERSION);
  found.say("starattn", STARATTN_VERSION);
  found.set("mpi", mpi_library_version());
  found.say("MPI", fmt::format("{}, {} rank(s)", mpi_library_version(), ranks.world.size()));
  look_at_ranks(ranks, *backend, found);
  if (ranks.world.size() > 1) {
    time_exchanges(ranks, *backend, found);
  } else if (std::getenv("SLURM_JOB_ID") && !std::getenv("OMPI_COMM_WORLD_SIZE")) {
    found.warn(
        "note",
        "one rank inside a Slurm job: start several with 'srun --mpi=pmix -n N' or 'mpirun -n N'");
  }
  found.set("hdf5", hdf5_version());
  found.say("HDF5", hdf5_version());
  if (!options.common.checkpoint_dir.empty()) {
    const std::string finding = probe_checkpoints(ranks.world, options.common.checkpoint_dir);
    found.set("checkpoints", finding);
    found.say("checkpoints", finding);
  }
  found.set("cuda_devices", n_cuda_devices());
  found.say("device",
            fmt::format("{}; {} CUDA device(s) visible", backend->describe(), n_cuda_devices()));
  found.set("verdict", "fit");
  found.say("verdict", "fit");
  found.finish();
  return Exit::ok;
}

}  // namespace

Command add_doctor(CLI::App& parser) {
  auto options = std::make_shared<DoctorOptions>();
  CLI::App* app =
      parser.add_subcommand("doctor", "Check MPI, binding, processors and memory of this job");
  app->add_flag("--json", options->json, "Print one line of JSON at the end instead");
  add_device_options(*app, options->common);
  app->add_option("--checkpoint-dir", options->common.checkpoint_dir,
                  "Save, read back and remove 64 MiB there");
  return {app, [options] { return diagnose(*options); }, [] { return true; }};
}

}  // namespace starattn
