// SPDX-License-Identifier: Apache-2.0
// What a command line can say, in parts by purpose: each room of a run takes the part that it
// heeds. options.h has all of them together, with their names and help.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "model/config.h"
#include "star/plan.h"
#include "tokenizer/tokenizer.h"

namespace starattn {

// The documents.
struct InputOptions {
  std::string input;
  std::string question_marker;  // of requests; none: by the rule in docs/batch-files.md
  std::string shard;
  bool strict = false;

  // "2/8"; 0/1 when absent. Throws Error(usage).
  void shard_numbers(std::int64_t& index, std::int64_t& count) const;
};

struct OutputOptions {
  std::string output;
  std::string output_format = "starattn";
  bool overwrite = false;
};

// Which tokens a text becomes, and what of an answer's is thought.
struct TextOptions {
  std::string chat = "auto";
  std::optional<std::string> query_prefix;  // none: the chat style's
  std::string special_tokens = "auto";
  std::string thinking = "text";
  bool allow_long = false;

  std::optional<SpecialTokens> special() const;
  bool splits_thinking() const { return thinking == "keep" || thinking == "drop"; }
};

// What an answer looks like.
struct FormOptions {
  std::string schema;  // a file
  std::string regex;
  std::vector<std::string> choice;
};

// What holds for every query that does not say otherwise.
struct QueryOptions {
  std::int64_t max_new_tokens = 128;
  std::vector<std::string> stop;
  double temperature = 0;
  double top_p = 1;
  std::uint64_t seed = 0;
};

// The method: blocks, what each sees, and who has which.
struct MethodOptions {
  std::string attention = "star";
  std::string block_size = "auto";
  std::string anchor_size = "block";
  std::string reach = "0";
  std::string recall = "0";
  std::string recall_rows = "auto";
  std::string placement = "auto";
  std::string anchor = "broadcast";

  AnchorMode anchor_mode() const {
    return anchor == "recompute" ? AnchorMode::recompute : AnchorMode::broadcast;
  }
  // Throws Error(usage) naming the option.
  PlanRequest plan_request() const;
  // Throws Error(usage) where a model with layers that have windows cannot be run with these.
  void check_windows(std::int64_t widest_window) const;
};

// The job's ranks, and their threads.
struct RankOptions {
  int ranks_per_document = 0;
  int threads = 0;
  std::string transport = "auto";
};

// The device of a rank, and the numbers that it computes with.
struct DeviceOptions {
  std::string device = "auto";
  std::string dtype = "auto";
  std::string weights = "auto";
  std::string activations = "bf16";
  std::string weight_memory = "auto";
  std::string kv_dtype = "auto";

  // What --weights and --activations make of a model's matrices. Throws Error(usage) where there
  // are no FP8 ones.
  void settle_precision(Fp8Config& fp8) const;
};

// How ranks answer together (phase 2).
struct Phase2Options {
  std::string query_ranks = "1";
  std::string merge = "gather";
  std::string shard_weights = "auto";
  std::string lookup = "0";
  std::int64_t logprobs = 0;

  bool spreads_queries() const { return query_ranks == "all"; }
  bool merges_along_tree() const { return merge == "tree"; }
  bool adapts_lookup() const { return lookup == "auto"; }
  std::int64_t n_lookup() const { return adapts_lookup() ? 7 : std::stoll(lookup, nullptr, 0); }
};

// One document on its way through both phases.
struct DocumentOptions : MethodOptions, Phase2Options {
  std::string checkpoint_dir;
  std::string kv_memory = "auto";
};

// Where time goes.
struct RecordOptions {
  std::string trace;
  bool profile = false;
  std::string profile_file;
  std::string machine;  // its file

  bool profiles() const { return profile || !profile_file.empty(); }
};

struct ProgressOptions {
  std::string progress_file;
  std::string metrics_file;
};

}  // namespace starattn
