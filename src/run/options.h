// SPDX-License-Identifier: Apache-2.0
// Every option of every command, declared once: parsing, help and the checks that need no file.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "star/plan.h"
#include "tokenizer/tokenizer.h"

namespace CLI {
class App;
}

namespace starattn {

class FilePurposes;

struct Options {
  // what to work on
  std::string model;
  std::string input;
  std::string output;
  std::string checkpoint_dir;
  // the method
  std::string block_size = "auto";
  std::string anchor_size = "block";
  std::string reach = "0";
  std::string recall = "0";
  std::string recall_rows = "auto";
  std::string attention = "star";
  std::string placement = "auto";
  std::string anchor = "broadcast";
  // answers
  std::int64_t max_new_tokens = 128;
  std::vector<std::string> stop;
  double temperature = 0;
  double top_p = 1;
  std::uint64_t seed = 0;
  std::int64_t logprobs = 0;
  std::string schema;  // a file
  std::string regex;
  std::vector<std::string> choice;
  std::string chat = "auto";
  std::string thinking = "text";
  std::int64_t thinking_tokens = 0;         // 0: as many as the answer may have
  std::optional<std::string> query_prefix;  // none: the chat style's
  std::string special_tokens = "auto";
  std::string question_marker;  // of requests; none: by the rule in docs/batch-files.md
  std::string output_format = "starattn";
  bool overwrite = false;
  bool strict = false;
  bool allow_long = false;
  // the machine
  std::string device = "auto";
  std::string dtype = "auto";
  std::string weights = "auto";
  std::string kv_dtype = "auto";
  std::string kv_memory = "auto";
  int threads = 0;
  int ranks_per_document = 0;
  std::string query_ranks = "1";
  std::string merge = "gather";
  std::string shard_weights = "auto";
  std::string transport = "auto";
  std::int64_t lookup = 0;
  std::string shard;
  double timeout = 0;
  // what it says
  std::string trace;
  bool profile = false;
  std::string profile_file;
  std::string machine;  // its file
  std::string progress_file;
  std::string metrics_file;
  bool dry_run = false;

  AnchorMode anchor_mode() const {
    return anchor == "recompute" ? AnchorMode::recompute : AnchorMode::broadcast;
  }
  // Throws Error(usage) naming the option.
  PlanRequest plan_request() const;
  // Throws Error(usage) where a model with layers that have windows cannot be run with these.
  void check_windows(std::int64_t widest_window) const;
  void shard_numbers(std::int64_t& index, std::int64_t& count) const;  // "2/8"; 0/1 when absent
  std::optional<SpecialTokens> special() const;
  bool profiles() const { return profile || !profile_file.empty(); }
  bool splits_thinking() const { return thinking == "keep" || thinking == "drop"; }
  void check_thinking() const;  // throws Error(usage)
};

// A command takes those that it heeds.
void add_model_options(CLI::App& app, Options& options);
void add_plan_options(CLI::App& app, Options& options);    // blocks, and who has which
void add_anchor_options(CLI::App& app, Options& options);  // how ranks come by the anchor
void add_length_options(CLI::App& app, Options& options);  // more than the model's positions
void add_text_options(CLI::App& app, Options& options);    // which tokens a text becomes
void add_chat_options(CLI::App& app, Options& options);    // requests of batch files, and thinking
void add_answer_options(CLI::App& app, Options& options);
void add_form_options(CLI::App& app, Options& options);       // what an answer looks like
void add_device_options(CLI::App& app, Options& options);     // of one rank
void add_group_options(CLI::App& app, Options& options);      // ranks on a document
void add_precision_options(CLI::App& app, Options& options);  // of weights, keys and values
void add_kv_memory_options(CLI::App& app, Options& options);
void add_query_rank_options(CLI::App& app, Options& options);  // phase 2 among ranks
void add_progress_options(CLI::App& app, Options& options);
void declare_progress_files(const Options& options, FilePurposes& files);
// Where time goes. profile_file: beside the table a file, where the command has no other for it.
void add_trace_options(CLI::App& app, Options& options, bool has_profile_file = true);
void declare_trace_files(const Options& options, FilePurposes& files);

}  // namespace starattn
