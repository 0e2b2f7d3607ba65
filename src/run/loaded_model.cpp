// SPDX-License-Identifier: Apache-2.0
#include "run/loaded_model.h"

#include <algorithm>
#include <thread>

#include "backend/timed_backend.h"
#include "base/cores.h"
#include "base/error.h"
#include "base/text.h"
#include "checkpoint/fingerprint.h"
#include "mpi/runtime.h"
#include "star/answer.h"
#include "trace/range.h"
#include "version.h"

namespace starattn {
namespace {

void check_dtype(const std::string& dtype, const Backend& backend) {
  if (dtype != "auto" && dtype_from_name(dtype) != backend.activation_dtype()) {
    fail(Exit::usage, "--dtype {}: this device computes in {}", dtype,
         name_of(backend.activation_dtype()));
  }
}

Digest sample_of(const LoadedModel& model) {
  std::vector<std::span<const std::byte>> tensors;
  for (const WeightView& tensor : model.weights.all()) {
    tensors.push_back(model.weights.bytes_in_file(tensor));
    if (tensor.scales.data && !model.weights.is_made(tensor))
      tensors.push_back(
          std::as_bytes(std::span(tensor.scales_of_row(0), tensor.n_scales_of_row())));
  }
  return sampled_fingerprint(canonical_text(model.config), tensors);
}

// A device with memory of its own has them from here on, unless it shares them with others.
void make_weights(const LoadedModel& model, bool is_shared) {
  const trace::Range range("make weights");
  const bool moves = !model.backend->is_host_memory() && !is_shared;
  for (const WeightView& weight : model.weights.all()) {
    if (!model.weights.is_made(weight)) continue;
    model.weights.fill(weight);
    if (!moves) continue;
    model.backend->load(weight);
    model.weights.forget(weight);
  }
}

// Collective.
void read_weights(LoadedModel& model, const Ranks& ranks) {
  const bool is_shared = model.sharing.layers != nullptr;
  if (model.weights.are_made()) collectively(ranks.world, [&] { make_weights(model, is_shared); });
  model.watch = WeightWatch(model.weights, *model.backend, ranks.world, ranks.n_threads, is_shared);
  connect_layers(model.sharing);
  try {
    for (const auto& [token, at] :
         find_bad_weights(model.weights, *model.backend, ranks.world, is_shared))
      model.unusable_tokens[token] = describe_bad_value(model.weights, model.weights.embedding, at);
  } catch (const AgreedError&) {
    collectively(ranks.world, [&] { model.watch.check(); });  // that would be the reason
    throw;
  }
}

// A long list, broken behind commas to fit a terminal of 80 columns.
void log_wrapped(std::string_view list) {
  constexpr std::size_t kWidth = 72;
  while (list.size() > kWidth && !log::is_json()) {
    const std::size_t comma = list.rfind(", ", kWidth - 1);
    if (comma == std::string_view::npos) break;
    log::info("{}", list.substr(0, comma + 1));
    list.remove_prefix(comma + 2);
  }
  log::info("{}", list);
}

}  // namespace

std::unique_ptr<Backend> make_backend(const DeviceOptions& options, const Ranks& ranks) {
  const int n_devices = options.device == "cpu" ? 0 : n_cuda_devices();
  const bool on_gpu = options.device == "cuda" || n_devices > 0;
  auto backend = on_gpu ? make_cuda_backend(ranks.node_rank % std::max(1, n_devices))
                        : make_cpu_backend(ranks.n_threads);
  check_dtype(options.dtype, *backend);
  if (options.kv_dtype == "fp8") backend->keep_kv_in_f8();
  if (options.activations == "fp8") backend->round_rows_to_f8();
  if (trace::is_recording()) backend = make_timed_backend(std::move(backend));
  return backend;
}

Ranks arrange_ranks(const RankOptions& options) {
  Communicator world = Communicator::world();
  const std::string mismatch = launcher_mismatch(world.size());
  if (!mismatch.empty()) throw AgreedError(Exit::unfit, mismatch);
  if (options.ranks_per_document > world.size()) {
    throw AgreedError(
        Exit::usage,
        fmt::format("--ranks-per-document: expected at most the {} ranks of this job, got {}",
                    world.size(), options.ranks_per_document));
  }
  const int group_size = options.ranks_per_document > 0 ? options.ranks_per_document : world.size();
  const int group_index = world.rank() / group_size;
  Communicator group = world.split(group_index);
  if (options.transport == "mpi") group.keep_to_messages();

  // The cores of a node are shared out among its ranks, unless the launcher bound each to its own.
  const Communicator node = world.split_by_node();
  const int cores = n_usable_cores();
  const std::vector<int> all_cores = node.allgather(cores);
  const int widest = *std::max_element(all_cores.begin(), all_cores.end());
  const bool is_bound =
      widest * node.size() <= static_cast<int>(std::thread::hardware_concurrency());
  int n_threads = std::min(options.threads, cores);
  if (n_threads == 0) n_threads = is_bound ? cores : std::max(1, cores / node.size());
  if (options.threads > cores && world.rank() == 0) {
    const bool by_launcher = cores < static_cast<int>(std::thread::hardware_concurrency());
    log::warn("--threads {}: a rank may use {} core(s) here, so it takes {} thread(s){}",
              options.threads, cores, n_threads,
              by_launcher ? fmt::format("; the launcher bound it to them: start with 'mpirun "
                                        "--bind-to none' or 'srun --cpus-per-task={}'",
                                        options.threads)
                          : "");
  }
  const int n_groups = (world.size() + group_size - 1) / group_size;
  const bool shares_cores = world.any(!is_bound && node.size() > cores);
  return {std::move(world), std::move(group), group_index, n_groups,
          node.rank(),      n_threads,        shares_cores};
}

Communicator sharers_of_device(const Communicator& comm, const Ranks& ranks,
                               const Backend& backend) {
  const bool on_host = backend.is_host_memory();
  return comm.split_by_node().split(on_host ? 0 : ranks.node_rank % std::max(1, n_cuda_devices()));
}

std::unique_ptr<LoadedModel> open_model(const Options& options, const Ranks& ranks) {
  auto model = std::make_unique<LoadedModel>();
  collectively(ranks.world, [&] {
    const trace::Range range("open model", trace::Lane::files);
    static_cast<TextModel&>(*model) = open_text_model(options.model, options, options);
    options.check_windows(model->config.widest_window());
    model->weights = ModelWeights::open(options.model, model->config);
    model->eos_tokens = model->config.eos_tokens;
    for (const Token token : model->chat.stops) model->eos_tokens.push_back(token);
    model->backend = make_backend(options, ranks);
    model->backend->check_model(model->config.shape());
    options.settle_precision(model->config.fp8);
    model->weights_sample = sample_of(*model);
    if (model->config.fp8.scales == Fp8Config::Scales::made) model->weights.make_fp8();
    for (const WeightView& weight : model->weights.all())
      model->weight_bytes += model->backend->bytes_in_memory(weight);
  });
  collectively(ranks.world, [&] {  // a group may have a reason of its own against it
    model->sharing = share_weights(options, options.transport,
                                   options.dry_run ? "device" : options.weight_memory, ranks.group,
                                   *model->backend, model->config, model->weights);
  });
  if (!options.dry_run) read_weights(*model, ranks);
  collectively(ranks.world, [&] {
    const std::int64_t max_rows = std::max(model->backend->chunk_rows(), Answerer::kMaxRows);
    model->decoder = std::make_unique<Decoder>(model->config, model->weights, *model->backend,
                                               max_rows, model->sharing.fetched());
  });
  collectively(ranks.world, [&] {
    model->answering =
        std::make_unique<Answering>(ranks.group, *model->decoder, model->weights, model->sharing);
  });
  const Backend& backend = *model->backend;
  model->sharers = sharers_of_device(ranks.group, ranks, backend).allgather(ranks.group.rank());
  const int n_sharers = sharers_of_device(ranks.world, ranks, backend).size();
  if (model->sharing.layers) {
    model->weight_bytes = shared_bytes(
        model->weights, shared_model(model->weights, model->sharing.plan, model->config.head_dim),
        backend, model->sharing.node->rank());
  }
  if (model->sharing.streamed) {
    const std::uint64_t n_all = model->weight_bytes;
    model->weight_bytes = streamed_bytes(model->weights, backend);
    model->pinned_weight_bytes = n_all - model->weight_bytes;
  }
  const std::uint64_t weights =
      model->weight_bytes * model->n_copies(static_cast<std::size_t>(n_sharers));
  const std::uint64_t left = backend.is_host_memory()
                                 ? memory_of_node() - std::min(memory_of_node(), weights)
                                 : backend.free_bytes();
  ranks.world.barrier();  // before a rank takes more
  model->shares_device =
      backend.is_host_memory() ? ranks.shares_cores : ranks.world.any(n_sharers > 1);
  model->memory_share = left / static_cast<std::uint64_t>(n_sharers);
  return model;
}

void print_banner(const Ranks& ranks, const LoadedModel& model) {
  const std::vector<std::string> lines = ranks.world.gather_texts(
      fmt::format("{}, {}, cores {}", host_name(), model.backend->describe(), n_usable_cores()), 0);
  if (!ranks.is_first()) return;
  log::info("starattn {}, {}", STARATTN_VERSION, mpi_library_version());
  log::info("command: {}", command_line());
  // Equal ranks in one line: "ranks 0-3: host, cpu, ..."
  for (std::size_t first = 0; first < lines.size();) {
    std::size_t last = first;
    while (last + 1 < lines.size() && lines[last + 1] == lines[first]) ++last;
    if (first == last) {
      log::info("rank {}: {}", first, lines[first]);
    } else {
      log::info("ranks {}-{}: {}", first, last, lines[first]);
    }
    first = last + 1;
  }
  if (ranks.n_groups > 1) {
    log::info("{} groups of {} rank(s), each on a document of its own", ranks.n_groups,
              ranks.group.size());
  }
  log::info("model {}, weights {}", model.folder, human_bytes(model.weights.total_bytes()));
  log_wrapped(describe(model.config));
  if (ranks.group.size() > 1) log::info("{}", model.answering->describe());
  if (model.sharing.streamed) {
    log::info("GPUs fetch the layers from host memory, {} a rank",
              human_bytes(model.pinned_weight_bytes));
  }
  log::info("chat markup {}", describe(model.chat));
}

}  // namespace starattn
