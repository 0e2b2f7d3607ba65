// SPDX-License-Identifier: Apache-2.0
// bench: a study of how fast the two phases run on the ranks it was started on, beside the rate of
// the machine's own products. docs/metrics.md defines each figure, docs/scaling.md shows studies.
#include <algorithm>
#include <fstream>
#include <iostream>
#include <map>

#include "base/clock.h"
#include "base/file.h"
#include "base/text.h"
#include "calibrate/calibrate.h"
#include "command/commands.h"
#include "model/shapes.h"
#include "mpi/runtime.h"
#include "run/recording.h"
#include "study/machine.h"
#include "study/median.h"
#include "study/point_runner.h"
#include "study/random_model.h"
#include "study/table.h"

namespace starattn {
namespace {

struct BenchOptions {
  Options common;
  SweepLists lists;
  std::string shape = "150m";
  std::vector<int> n_queries = {1};  // of each batch to time
  int n_new_tokens = 16;
  std::int64_t n_layers = 0;  // 0: as the shape has them
  bool skips_recompute = false;
  int n_repeats = 6;
  int n_warm_ups = 1;
  std::string json;
  std::string csv;
  std::string check;
  bool checks_alone = false;
  std::string calibrate;  // the machine file to write; none: time the phases
};

// A line at a time, each safe from a later failure of this process. A closed one takes nothing.
class LineFile {
 public:
  explicit LineFile(const std::string& path) : path_(path) {
    if (path.empty()) return;
    file_.open(path, std::ios::trunc);
    if (!file_) fail(Exit::cannot_create, "{}: cannot be created", path);
  }
  void put(const std::string& line) {
    if (path_.empty()) return;
    file_ << line << std::endl;
    if (!file_) fail(Exit::io, "{}: writing failed; is the disk full?", path_);
  }

 private:
  std::string path_;
  std::ofstream file_;
};

// What results must be, bit for bit: those of another study, or the first of this one.
class Reference {
 public:
  // Throws Error(usage) where the study's results are those of another model or machine.
  Reference(const std::string& path, const Json& head) {
    if (path.empty()) return;  // expect() may come
    const Study study = read_study(path);
    for (const char* key : {"version", "model", "weights", "device", "dtype"}) {
      if (study.head.contains(key) && study.head[key] == head[key]) continue;
      fail(Exit::usage,
           "--check {}: its key '{}' is {}, and here it is {}: bits cannot be compared", path, key,
           study.head.contains(key) ? to_line(study.head[key]) : "absent", to_line(head[key]));
    }
    for (const Measurement& one : study.measurements)
      digests_.emplace(one.result_key(), one.digest);
    is_given_ = true;
  }

  // What one rank alone has computed.
  void expect(const Measurement& one) {
    digests_.emplace(one.result_key(), one.digest);
    is_given_ = true;
  }

  // Nothing to compare with: no answer where a study is given, else it is what others will be held
  // against.
  std::optional<bool> is_right(const Measurement& one) {
    const auto found = digests_.find(one.result_key());
    if (found != digests_.end()) return found->second == one.digest;
    if (is_given_) return std::nullopt;
    digests_.emplace(one.result_key(), one.digest);
    return true;
  }

 private:
  bool is_given_ = false;
  std::map<std::string, std::string> digests_;
};

// The first rank's side: files, table and what they sum up to.
class Recorder {
 public:
  Recorder(const BenchOptions& options, const Json& head, const std::vector<StudyPoint>& points)
      : ceilings_(ceilings_of(options.common)),
        n_ranks_(static_cast<double>(head["ranks"].size())),
        reference_(options.check, head),
        json_(options.json),
        csv_(options.csv),
        table_(names_of(points)) {
    json_.put(to_line(head));
    csv_.put(csv_head());
    std::cout << table_.head(head, options.checks_alone    ? "those of one rank alone"
                                   : options.check.empty() ? "those of the first"
                                                           : "those in " + one_line(options.check))
              << std::flush;
  }

  void products(double rate) { rates_.push_back(rate); }
  void expect(const Measurement& one) { reference_.expect(one); }

  // Of a warm-up only what it computed counts.
  void check(const Measurement& one) { n_wrong_ += reference_.is_right(one) == false; }

  void take(Measurement one, std::int64_t repeat) {
    one.repeat = repeat;
    one.product_rate = rates_.back();
    one.is_right = reference_.is_right(one);
    one.ceilings = {one.product_rate / n_ranks_, ceilings_.bytes_per_s,
                    ceilings_.bytes_per_s > 0
                        ? "its products just now, and bytes of " + ceilings_.of
                        : "its products just now"};
    n_wrong_ += one.is_right == false;
    json_.put(to_line(one));
    csv_.put(to_csv_line(one));
    peak_bytes_ = std::max(peak_bytes_, one.peak_bytes);
    repeats_.push_back(std::move(one));
  }

  // The rows of what has been taken since the last point, which had so many operations.
  void finish_point(std::size_t n_operations) {
    std::vector<Measurement> profiled;
    for (std::size_t i = 0; i < n_operations; ++i) {
      std::vector<Measurement> of_one;
      for (std::size_t k = i; k < repeats_.size(); k += n_operations) of_one.push_back(repeats_[k]);
      std::cout << table_.row(of_one) << std::flush;
      profiled.push_back(middle_of(of_one));
    }
    for (const Measurement& one : profiled)
      if (one.profile) std::cout << profile_text(one) << std::flush;
    repeats_.clear();
    ++n_points_;
  }

  Exit finish() const {
    const double swing = swing_of(rates_);
    if (swing > kBusySwing) {
      std::cout << fmt::format(
          "# BUSY: the machine's own products swung by {:.0f} % during the study: something else "
          "is at work on it,\n# or its clocks move. The intervals are of this hour; another may "
          "give other medians\n",
          100 * swing);
    }
    const auto sum_up = [](const char* key, const auto& value) {
      std::cout << fmt::format("# SUMMARY {} {}\n", key, value);
    };
    sum_up("points", n_points_);
    sum_up("wrong", n_wrong_);
    sum_up("product_flop_per_second", fmt::format("{:.4g}", median_of_rates()));
    sum_up("product_swing", fmt::format("{:.3f}", swing));
    sum_up("busy", swing > kBusySwing ? 1 : 0);
    sum_up("peak_bytes", peak_bytes_);
    sum_up("seconds", fmt::format("{:.1f}", clock_.seconds()));
    if (n_wrong_ == 0) return Exit::ok;
    fail(Exit::bad_data, "{} result(s) have other bits than they should: see the column 'wrong'",
         n_wrong_);
  }

 private:
  static std::vector<std::string> names_of(const std::vector<StudyPoint>& points) {
    std::vector<std::string> names;
    for (const StudyPoint& point : points) names.push_back(point.setting);
    return names;
  }
  // The repeat that took the median time.
  static Measurement middle_of(std::vector<Measurement> repeats) {
    const auto middle = repeats.begin() + std::ssize(repeats) / 2;
    std::ranges::nth_element(repeats, middle, {}, &Measurement::seconds);
    return *middle;
  }
  static std::string profile_text(const Measurement& one) {
    std::string text =
        fmt::format("#\n# PROFILE of the {} above, repeat {}\n", one.operation, one.repeat + 1);
    for (const std::string& line : to_table(*one.profile, one.ceilings)) text += "# " + line + "\n";
    return text + "#\n";
  }
  double median_of_rates() const { return rates_.empty() ? 0 : median_of(rates_).value; }

  Ceilings ceilings_;
  double n_ranks_;
  Reference reference_;
  LineFile json_;
  LineFile csv_;
  StudyTable table_;
  std::vector<double> rates_;
  std::vector<Measurement> repeats_;  // of the point in work
  std::int64_t n_points_ = 0;
  std::int64_t n_wrong_ = 0;
  std::int64_t peak_bytes_ = 0;
  Stopwatch clock_;
};

Json head_of(const BenchOptions& options, const Ranks& ranks, const LoadedModel& model) {
  Json head = {{"schema", kStudySchema}};
  head.update(describe_machine(ranks, *model.backend));
  head["model"] = describe(model.config);
  head["weights"] = options.common.model.empty()
                        ? fmt::format("random, seed {}", options.common.seed)
                        : options.common.model;
  head["phase_2"] = model.answering->describe();
  head["repeats"] = options.n_repeats;
  head["warm_ups"] = options.n_warm_ups;
  return head;
}

// The first rank alone, with the weights that it has anyway.
class Alone {
 public:
  // Collective over the world.
  Alone(const Options& options, const Ranks& ranks, LoadedModel& model)
      : ranks_{.world = ranks.world.split(ranks.world.rank()),
               .group = ranks.world.split(ranks.world.rank()),
               .n_threads = ranks.n_threads},
        answering_(ranks_.group, *model.decoder, model.weights, whole_),
        runner_(options, /*profiles=*/false, ranks_, model, answering_) {}

  // The plan is of several ranks: here the same blocks are all of one.
  std::vector<Measurement> run(StudyPoint point, std::span<const int> n_queries,
                               std::int64_t n_new_tokens, std::int64_t widest_window) {
    const BlockPlan& plan = point.plan;
    PlanRequest request;
    request.block_size = plan.block_size();
    request.anchor_size = TokenShare{plan.anchor_size()};
    request.recall = {plan.recall()};
    if (plan.recall() > 0) request.recall_rows = TokenShare{plan.recall_rows()};
    if (plan.reach() > 0) request.reach = plan.reach();
    point.plan = BlockPlan::make(request, plan.n_context(), 1, widest_window);
    return runner_.run(point, n_queries, n_new_tokens);
  }

 private:
  Ranks ranks_;
  WeightSharing whole_;  // none
  Answering answering_;
  PointRunner runner_;
};

Exit run_bench(const BenchOptions& options) {
  const Ranks ranks = arrange_ranks(options.common);
  if (!options.calibrate.empty()) return calibrate_to(options.calibrate, options.common, ranks);
  ModelConfig shape = model_shape(options.shape, options.n_layers);
  std::vector<StudyPoint> points;
  collectively(ranks.world, [&] {  // before weights are made
    if (options.common.model.empty()) options.common.settle_precision(shape.fp8);
    const std::int64_t widest_window =
        options.common.model.empty() ? shape.widest_window()
                                     : read_model_config(options.common.model).widest_window();
    points = points_of(options.lists, options.common, ranks.group.size(), !options.skips_recompute,
                       widest_window);
  });
  Recording recording(options.common, ranks);
  const std::unique_ptr<LoadedModel> model = options.common.model.empty()
                                                 ? make_random_model(shape, options.common, ranks)
                                                 : open_model(options.common, ranks);
  PointRunner runner(options.common, options.common.profiles(), ranks, *model, *model->answering);
  if (options.checks_alone && model->sharing.is_on()) {
    throw AgreedError(Exit::usage,
                      "--check-alone: the ranks share out the weights, and none has them all. Take "
                      "--shard-weights off, or --check with a study of one rank");
  }
  std::optional<Alone> alone;
  if (options.checks_alone) alone.emplace(options.common, ranks, *model);
  const Json head = head_of(options, ranks, *model);
  std::unique_ptr<Recorder> recorder;
  collectively(ranks.world, [&] {
    if (ranks.is_first()) recorder = std::make_unique<Recorder>(options, head, points);
  });
  const auto time_products = [&] {
    const double rate = product_rate(ranks, *model->backend);
    if (recorder) recorder->products(rate);
  };
  for (const StudyPoint& point : points) {
    collectively(ranks.world, [&] {
      if (!alone || !recorder) return;
      for (const Measurement& one : alone->run(point, options.n_queries, options.n_new_tokens,
                                               model->config.widest_window()))
        recorder->expect(one);
    });
    time_products();
    std::size_t n_operations = 0;
    for (int i = -options.n_warm_ups; i < options.n_repeats; ++i) {
      if (ranks.world.any(stop_requested()))
        throw AgreedError(Exit::stopped,
                          "stopped as asked; --json and --csv have what was measured");
      const std::vector<Measurement> all =
          runner.run(point, options.n_queries, options.n_new_tokens);
      n_operations = all.size();
      collectively(ranks.world, [&] {
        for (std::size_t k = 0; recorder && k < all.size(); ++k)
          i < 0 ? recorder->check(all[k]) : recorder->take(all[k], i);
      });
    }
    if (recorder) recorder->finish_point(n_operations);
  }
  time_products();
  Exit exit = Exit::ok;
  collectively(ranks.world, [&] {
    if (recorder) exit = recorder->finish();
  });
  recording.write_trace();
  return exit;
}

CLI::Option* add_list(CLI::App& app, const char* name, std::vector<std::string>& list,
                      const char* what) {
  return app.add_option(name, list, what)->delimiter(',')->capture_default_str();
}

// As `run` has them, but lists.
void add_sweep_options(CLI::App& app, SweepLists& lists, Options& common) {
  CLI::Option* tokens =
      add_list(app, "--tokens", lists.tokens, "Tokens of the context; several contexts: 32k,64k");
  add_list(app, "--tokens-a-rank", lists.tokens_a_rank,
           "The same for each rank there is (weak scaling), in place of --tokens")
      ->excludes(tokens);
  CLI::Option* setting = app.add_option(
      "--setting", lists.settings,
      "star:b=n/4, ring or dense as in eval, in place of the method's options; P stands for the "
      "number of ranks (b=n/P); repeatable");
  setting->allow_extra_args(false);
  const auto method = [&](const char* name, std::vector<std::string>& list, const char* what) {
    CLI::Option* option = add_list(app, name, list, what)->group("Method");
    setting->excludes(option);
    return option;
  };
  method("--attention", lists.attention, "star, ring (exact, balanced) or dense (exact, one block)")
      ->check(CLI::IsMember({"star", "ring", "dense"}));
  method("--block-size", lists.block_size, "Tokens a context block, or auto");
  method("--anchor-size", lists.anchor_size, "Tokens of block 0 that every block sees: 1k, b/16");
  method("--reach", lists.reach, "Blocks directly before it that a block also sees, or all");
  method("--recall", lists.recall, "Earlier tokens that a block also sees: 1k, b/2, auto, or 0");
  method("--recall-rows", lists.recall_rows, "Rows of a block that choose them: 64, b/16, or auto");
  setting->excludes(
      app.add_option("--placement", common.placement, "Blocks on ranks: contiguous, zigzag or auto")
          ->check(CLI::IsMember({"auto", "contiguous", "zigzag"}))
          ->capture_default_str()
          ->group("Method"));
}

}  // namespace

Command add_bench(CLI::App& parser) {
  auto options = std::make_shared<BenchOptions>();
  CLI::App* app = parser.add_subcommand(
      "bench",
      "Time both phases, over lists of lengths and settings, against this machine's sgemm");
  CLI::Option* shape = app->add_option("--shape", options->shape, "A model's shape, random weights")
                           ->check(CLI::IsMember(shape_names()))
                           ->capture_default_str();
  CLI::Option* layers =
      app->add_option("--layers", options->n_layers, "Fewer or more layers than the shape has")
          ->check(CLI::Range(1, 1000));
  app->add_option("--model", options->common.model, "A model folder, in place of a shape")
      ->excludes(shape)
      ->excludes(layers);
  add_sweep_options(*app, options->lists, options->common);
  app->add_option("--queries", options->n_queries, "Queries in one batch; several batches: 1,32")
      ->delimiter(',')
      ->check(CLI::Range(1, 4096))
      ->capture_default_str();
  app->add_option("--new-tokens", options->n_new_tokens, "New tokens a query")
      ->check(CLI::Range(1, 4096))
      ->capture_default_str();
  app->add_flag("--no-recompute", options->skips_recompute,
                "Do not time star attention with the anchor computed again for every block");
  app->add_option("--repeat", options->n_repeats,
                  "Times that a point is measured; 6 are the fewest for a 95 % interval of the "
                  "median")
      ->check(CLI::Range(1, 10000))
      ->capture_default_str();
  app->add_option("--warm-up", options->n_warm_ups, "Times before them that do not count")
      ->check(CLI::Range(0, 10000))
      ->capture_default_str();
  app->add_option("--json", options->json, "Write every repeat there, a line each, behind a head");
  app->add_option("--csv", options->csv, "The same as a table of comma-separated values");
  app->add_option("--check", options->check,
                  "A file of --json, of one rank for example: results must have its bits");
  app->add_flag("--check-alone", options->checks_alone,
                "The first rank computes each point alone, too, once and untimed: results must "
                "have its bits")
      ->excludes(app->get_option("--check"));
  app->add_option("--calibrate", options->calibrate,
                  "Time single operations, layers and, on several GPUs, what they do together "
                  "instead, and write the machine file that plan --machine makes times from");
  add_device_options(*app, options->common);
  add_precision_options(*app, options->common);
  add_group_options(*app, options->common);
  add_kv_memory_options(*app, options->common);
  add_weight_memory_options(*app, options->common);
  add_query_rank_options(*app, options->common);
  add_trace_options(*app, options->common, /*has_profile_file=*/false);
  return {app, [options] { return run_bench(*options); }, [] { return true; },
          [options](FilePurposes& files) {
            files.reads("--check", options->check);
            files.writes("--json", options->json);
            files.writes("--csv", options->csv);
            files.writes("--calibrate", options->calibrate);
            declare_trace_files(options->common, files);
            files.reads_folder("--model", options->common.model);
          }};
}

}  // namespace starattn
