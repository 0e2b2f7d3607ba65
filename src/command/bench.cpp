// SPDX-License-Identifier: Apache-2.0
// bench: how fast the two phases run on the ranks it was started on, with random weights, beside
// the machine's own sgemm rate and the arithmetic of the plan. docs/metrics.md defines each figure.
#include <algorithm>
#include <iostream>
#include <map>

#include "base/clock.h"
#include "base/text.h"
#include "command/commands.h"
#include "eval/setting.h"
#include "mpi/runtime.h"
#include "run/kv_memory.h"
#include "run/loaded_model.h"
#include "star/answer.h"
#include "star/cost.h"
#include "star/encode.h"
#include "trace/range.h"
#include "version.h"

namespace starattn {
namespace {

struct BenchOptions {
  Options common;
  std::string shape = "150m";
  std::vector<std::string> tokens = {"8k"};
  std::vector<std::string> settings;  // empty: the plan options
  std::vector<int> n_queries = {1};   // of each batch to time
  int n_new_tokens = 16;
  std::int64_t n_layers = 0;  // 0: as the shape has them
  bool skips_recompute = false;

  std::vector<std::int64_t> lengths() const {
    std::vector<std::int64_t> all;
    for (const std::string& text : tokens) all.push_back(parse_tokens(text, "--tokens"));
    return all;
  }
};

// Llama shapes by their number of parameters, and that of Qwen3-30B-A3B.
ModelConfig shape_of(const std::string& name, std::int64_t n_layers) {
  ModelConfig config;
  config.architecture = "LlamaForCausalLM";
  config.vocab_size = 32000;
  config.max_positions = std::int64_t{1} << 24;
  config.rope.theta = 500000;
  config.tied_embeddings = true;
  const auto set = [&](std::int64_t hidden, std::int64_t inter, std::int64_t layers,
                       std::int64_t heads, std::int64_t kv_heads, std::int64_t head_dim) {
    config.hidden_size = hidden;
    config.intermediate_size = inter;
    config.n_layers = layers;
    config.n_heads = heads;
    config.n_kv_heads = kv_heads;
    config.head_dim = head_dim;
  };
  if (name == "10m") {
    set(384, 1024, 6, 6, 2, 64);
  } else if (name == "150m") {
    set(1024, 2816, 12, 16, 4, 64);
  } else if (name == "1b") {
    set(2048, 8192, 16, 32, 8, 64);
  } else if (name == "30b-a3b") {
    set(2048, 6144, 48, 32, 4, 128);
    config.vocab_size = 151936;
    config.tied_embeddings = false;
    config.qk_norm = true;
    config.family = Family::qwen3_moe;
    config.mixture = {.n_experts = 128,
                      .n_chosen = 8,
                      .expert_size = 768,
                      .renormalise = true,
                      .layers = std::vector<bool>(48, true)};
  } else if (name == "70b") {
    set(8192, 28672, 80, 64, 8, 128);
    config.vocab_size = 128256;
    config.tied_embeddings = false;
  } else {
    set(4096, 14336, 32, 32, 8, 128);
    config.vocab_size = 128256;
  }
  if (n_layers > 0) config.n_layers = n_layers;
  return config;
}

// Operations a second of one large product, the best of a few: sgemm on the CPU, bf16 on a GPU.
double product_rate(Backend& backend, int n_threads) {
  if (backend.is_host_memory()) return measure_sgemm_rate(n_threads);
  constexpr std::int64_t kSize = 8192;
  std::vector<std::uint16_t> numbers(static_cast<std::size_t>(kSize * kSize));
  for (std::size_t i = 0; i < numbers.size(); ++i)
    numbers[i] = static_cast<std::uint16_t>(0x3c00 + i * 40503 % 768 + (i * 7 % 2 << 15));
  const WeightView w{reinterpret_cast<const std::byte*>(numbers.data()), Dtype::bf16, kSize, kSize};
  const RowBuffer x(backend, kSize, kSize);
  const RowBuffer y(backend, kSize, kSize);
  backend.upload(std::as_bytes(std::span(numbers)), x.rows(kSize).data);
  double best = 1e9;
  for (int i = 0; i < 10; ++i) {
    backend.synchronize();
    const Stopwatch clock;
    backend.linear(x.rows(kSize), {w, WeightView{}, y.rows(kSize)}, Product::chunk);
    backend.synchronize();
    best = std::min(best, clock.seconds());
  }
  return 2.0 * kSize * kSize * kSize / best;
}

struct Phase1 {
  double seconds = 0;         // of the slowest rank
  double least_wait = 0;      // of a rank for others' keys and values
  double most_wait = 0;       // of another
  std::uint64_t n_bytes = 0;  // handed over between ranks, sum
};

class Bench {
 public:
  Bench(const BenchOptions& options, const Ranks& ranks)
      : options_(options),
        ranks_(ranks),
        config_(shape_of(options.shape, options.n_layers)),
        weights_(ModelWeights::random_later(config_, Dtype::bf16, options.common.seed + 1)),
        backend_(make_backend(options.common, ranks)),
        sharing_(share_weights(options.common, ranks.group, *backend_, config_, weights_)),
        weight_bytes_(load_weights()),
        decoder_(config_, weights_, *backend_, std::max(backend_->chunk_rows(), Answerer::kMaxRows),
                 sharing_.layers.get()),
        encoder_(decoder_, ranks.group),
        answering_(ranks.group, decoder_, weights_, sharing_) {}

  void run() {
    sgemm_ = total(product_rate(*backend_, ranks_.n_threads));
    say("# starattn {} bench, {}, {} rank(s) x {} thread(s), {}", STARATTN_VERSION,
        mpi_library_version(), ranks_.world.size(), ranks_.n_threads, backend_->describe());
    say("# {}", describe(config_));
    if (ranks_.group.size() > 1) say("# {}", answering_.describe());
    say("{:<34}{:>12}", "matrix products of these ranks",
        fmt::format("{:.1f} GFLOP/s", sgemm_ * 1e-9));
    if (options_.settings.empty()) {
      for (const std::int64_t n : options_.lengths()) measure(options_.common.plan_request(), n);
    }
    for (const std::string& text : options_.settings) {
      const Setting setting = Setting::parse(text);
      say("# setting {}", setting.name());
      for (const std::int64_t n : options_.lengths()) measure(setting.plan_request(n), n);
    }
  }

 private:
  // Numbers are made a tensor at a time, and the host forgets what the device has. Returns the
  // bytes that this rank's device keeps.
  std::uint64_t load_weights() {
    SharedModel shared;
    if (sharing_.layers) shared = shared_model(weights_, sharing_.plan, config_.head_dim);
    std::map<const std::byte*, WeightView> kept;  // rows, where not all
    const auto note = [&](const SharedMatrix& matrix) {
      const Share rows = matrix.rows[static_cast<std::size_t>(ranks_.group.rank())];
      kept[matrix.whole.data] = matrix.whole.rows(rows.first, rows.count);
    };
    for (const auto& layer : shared.layers)
      for (const SharedMatrix& matrix : layer) note(matrix);
    if (sharing_.layers) {
      note(shared.lm_head);
      note(shared.embedding);
    }
    for (const WeightView& weight : weights_.all()) {
      const auto rows = kept.find(weight.data);
      const WeightView part = rows == kept.end() ? weight : rows->second;
      weights_.fill(part);
      backend_->load(weight);
      if (!backend_->is_host_memory()) weights_.forget(part);
    }
    ranks_.world.barrier();
    connect_layers(sharing_, ranks_.group);
    return sharing_.layers ? shared_bytes(weights_, shared, *backend_, ranks_.group.rank())
                           : weights_.total_bytes();
  }

  // Both phases over n tokens.
  void measure(const PlanRequest& request, std::int64_t n) {
    context_.clear();
    for (std::int64_t i = 0; i < n; ++i)
      context_.push_back(static_cast<Token>((i * 7919 + i / 13) % config_.vocab_size));
    plan_ = BlockPlan::make(request, n, ranks_.group.size());
    say("# context {} tokens, {} block(s) of {}, anchor {}, reach {}, recall {}",
        with_commas(plan_.n_context()), plan_.n_blocks(), with_commas(plan_.block_size()),
        with_commas(plan_.anchor_size()), plan_.reach(), with_commas(plan_.recall()));
    const KvMemory where = kv_memory();
    if (!backend_->is_host_memory())
      say("# KV in {} memory", where == KvMemory::host ? "host" : "device");
    DocumentKv kv;
    if (!backend_->is_host_memory()) warm_up(request);
    Phase1 recompute;  // first, so that only one KV cache is alive at a time
    const bool has_anchor = plan_.reach() == 0 && plan_.recall() == 0 && plan_.n_blocks() > 1;
    const bool recomputes = has_anchor && !options_.skips_recompute;
    if (recomputes) recompute = encode(AnchorMode::recompute, kv);
    const Phase1 broadcast = encode(AnchorMode::broadcast, kv);
    print_phase1(has_anchor ? "phase 1, anchor broadcast" : "phase 1", broadcast,
                 AnchorMode::broadcast);
    if (recomputes) {
      print_phase1("phase 1, anchor recompute", recompute, AnchorMode::recompute);
      const double allowed = slowest_rank_flops(config_, plan_, AnchorMode::recompute) /
                             slowest_rank_flops(config_, plan_, AnchorMode::broadcast);
      const double measured = recompute.seconds / broadcast.seconds;
      say("{:<34}{:>12}   FLOPs allow {:.2f}x: {:.0f} % of it", "broadcast over recompute",
          fmt::format("{:.2f}x", measured), allowed, 100 * measured / allowed);
    }
    for (const int n_queries : options_.n_queries) answer(kv, n_queries);
    const auto device_peaks = ranks_.world.allgather(backend_->peak_bytes());
    if (!backend_->is_host_memory())
      say("{:<34}{:>12}", "peak GPU memory of a rank",
          human_bytes(*std::max_element(device_peaks.begin(), device_peaks.end())));
    const auto peaks = ranks_.world.allgather(trace::peak_memory_bytes());
    say("{:<34}{:>12}   random weights are not shared between ranks", "peak memory of a rank",
        human_bytes(*std::max_element(peaks.begin(), peaks.end())));
  }

  template <typename... Args>
  void say(fmt::format_string<Args...> format, Args&&... args) const {
    if (ranks_.is_first())
      std::cout << fmt::format(format, std::forward<Args>(args)...) << std::endl;
  }

  double total(double mine) const {
    double sum = 0;
    for (const double rate : ranks_.world.allgather(mine)) sum += rate;
    return sum;
  }

  // Two blocks: kernels are loaded, algorithms chosen, memory taken.
  void warm_up(PlanRequest request) {
    const std::int64_t n = std::min(plan_.n_context(), 2 * plan_.block_size());
    if (request.attention != Attention::dense) request.block_size = plan_.block_size();
    const BlockPlan plan = BlockPlan::make(request, n, ranks_.group.size());
    encoder_.encode(plan, std::span(context_).first(static_cast<std::size_t>(n)));
  }

  KvMemory kv_memory() const {
    std::optional<bool> fits;
    if (!backend_->is_host_memory()) {
      const MemoryNeed on_device = fullest(
          memory_needs(config_, plan_, AnchorMode::recompute, weight_bytes_, backend_->kv_dtype(),
                       backend_->activation_dtype(), backend_->chunk_rows()));
      const std::vector<std::uint64_t> answering =
          answer_workspaces(config_, plan_,
                            {options_.common.query_ranks == "all", options_.common.merge == "tree",
                             answering_.n_shares()},
                            backend_->activation_dtype(), backend_->chunk_rows());
      const std::uint64_t need = std::max(on_device.total() - on_device.weights,
                                          on_device.own_kv + *std::ranges::max_element(answering));
      const int n_sharers = sharers_of_device(ranks_.world, ranks_, *backend_).size();
      fits = need <= backend_->free_bytes() / static_cast<std::uint64_t>(n_sharers);
    }
    return choose_kv_memory(options_.common.kv_memory, fits, ranks_.group);
  }

  Phase1 encode(AnchorMode mode, DocumentKv& kv) {
    kv = {};
    const KvMemory where = kv_memory();
    trace::reset();
    ranks_.world.barrier();
    const Stopwatch clock;
    kv = encoder_.encode(plan_, context_, {.anchor_mode = mode, .kv_memory = where});
    struct Times {
      double seconds = 0;
      double wait = 0;
      std::uint64_t n_bytes = 0;
    };
    Times mine{clock.seconds()};
    for (const trace::Total& total : trace::totals()) {
      mine.n_bytes += total.n_bytes;
      if (total.name == "wait for anchor" || total.name == "wait for segments" ||
          total.name == "wait for recall")
        mine.wait += total.seconds;
    }
    Phase1 result{.least_wait = mine.wait, .most_wait = mine.wait};
    for (const Times& share : ranks_.world.allgather(mine)) {
      result.seconds = std::max(result.seconds, share.seconds);
      result.least_wait = std::min(result.least_wait, share.wait);
      result.most_wait = std::max(result.most_wait, share.wait);
      result.n_bytes += share.n_bytes;
    }
    return result;
  }

  void print_phase1(const char* what, const Phase1& phase, AnchorMode mode) const {
    const double flops = phase1_flops(config_, plan_, mode).total();
    const double rate = flops / phase.seconds;
    const double bound = slowest_rank_flops(config_, plan_, mode) * ranks_.group.size() / flops;
    say("{:<34}{:>12}   {:.0f} tokens/s, {:.1f} GFLOP/s, {:.0f} % of the products' rate ({:.0f} % "
        "of "
        "what the block plan allows), moved {}, ranks waited {:.3f} to {:.3f} s",
        what, fmt::format("{:.3f} s", phase.seconds),
        static_cast<double>(plan_.n_context()) / phase.seconds, rate * 1e-9, 100 * rate / sgemm_,
        100 * rate / sgemm_ * bound, human_bytes(phase.n_bytes), phase.least_wait, phase.most_wait);
  }

  void answer(const DocumentKv& kv, int n_queries) {
    std::vector<QueryJob> jobs;
    for (int i = 0; i < n_queries; ++i) {
      jobs.push_back({std::vector<Token>(8, static_cast<Token>(i + 5)), options_.n_new_tokens, 0});
    }
    AnswerOptions answer_options;
    answer_options.spread_queries = options_.common.query_ranks == "all";
    answer_options.tree_merge = options_.common.merge == "tree";
    Answerer answerer = answering_.answerer(kv, answer_options);
    trace::reset();
    ranks_.world.barrier();
    const Stopwatch clock;
    answerer.answer(jobs);
    const double seconds = clock.seconds();
    const StepBytes least = step_bytes(config_, plan_, Dtype::bf16, backend_->kv_dtype());
    const double bytes = static_cast<double>(least.weights) +
                         static_cast<double>(plan_.n_context()) *
                             static_cast<double>(config_.kv_bytes_per_token(backend_->kv_dtype()));
    const double step = seconds / options_.n_new_tokens;
    // The next tokens are all that the host waits for: the rest of a step it only starts.
    std::string wait;
    if (!backend_->is_host_memory() && (ranks_.group.size() == 1 || answering_.n_shares() > 1))
      wait = fmt::format("; the host waited for the GPU during {:.2f} ms of it",
                         seconds_of("logits") / options_.n_new_tokens * 1e3);
    say("{:<34}{:>12}   {} new tokens each; {:.1f} GB/s of weights and KV{}",
        fmt::format("phase 2, one step, {} {}", n_queries, n_queries == 1 ? "query" : "queries"),
        fmt::format("{:.2f} ms", step * 1e3), options_.n_new_tokens, bytes / step * 1e-9, wait);
  }

  static double seconds_of(std::string_view range) {
    for (const trace::Total& total : trace::totals())
      if (total.name == range) return total.seconds;
    return 0;
  }

  const BenchOptions& options_;
  const Ranks& ranks_;
  ModelConfig config_;
  ModelWeights weights_;
  std::unique_ptr<Backend> backend_;
  WeightSharing sharing_;
  std::uint64_t weight_bytes_;  // of this rank's device
  Decoder decoder_;
  Encoder encoder_;
  Answering answering_;
  double sgemm_ = 0;  // operations a second of all ranks together
  std::vector<Token> context_;
  BlockPlan plan_;
};

Exit run_bench(const BenchOptions& options) {
  const Ranks ranks = arrange_ranks(options.common);
  collectively(ranks.world, [&] {  // before weights are made
    options.lengths();
    options.common.plan_request();
    for (const std::string& text : options.settings) Setting::parse(text);
  });
  Bench(options, ranks).run();
  return Exit::ok;
}

}  // namespace

Command add_bench(CLI::App& parser) {
  auto options = std::make_shared<BenchOptions>();
  CLI::App* app = parser.add_subcommand(
      "bench", "Time both phases with random weights against this machine's sgemm");
  app->add_option("--shape", options->shape, "Llama shape")
      ->check(CLI::IsMember({"10m", "150m", "1b", "8b", "70b", "30b-a3b"}))
      ->capture_default_str();
  app->add_option("--layers", options->n_layers, "Fewer or more layers than the shape has")
      ->check(CLI::Range(1, 1000));
  app->add_option("--tokens", options->tokens, "Tokens of the context; several contexts: 32k,64k")
      ->delimiter(',')
      ->capture_default_str();
  CLI::Option* setting = app->add_option("--setting", options->settings,
                                         "star:b=n/4, ring or dense as in eval, in place of the "
                                         "plan options; repeatable");
  setting->allow_extra_args(false);
  app->add_option("--queries", options->n_queries, "Queries in one batch; several batches: 1,32")
      ->delimiter(',')
      ->check(CLI::Range(1, 4096))
      ->capture_default_str();
  app->add_option("--new-tokens", options->n_new_tokens, "New tokens a query")
      ->check(CLI::Range(1, 4096))
      ->capture_default_str();
  app->add_flag("--no-recompute", options->skips_recompute,
                "Do not time star attention with the anchor computed again for every block");
  add_plan_options(*app, options->common);
  for (const char* method : {"--attention", "--block-size", "--anchor-size", "--reach", "--recall",
                             "--recall-rows", "--placement"})
    setting->excludes(app->get_option(method));
  add_device_options(*app, options->common);
  add_group_options(*app, options->common);
  add_kv_memory_options(*app, options->common);
  add_query_rank_options(*app, options->common);
  return {app, [options] { return run_bench(*options); }, [] { return true; }};
}

}  // namespace starattn
