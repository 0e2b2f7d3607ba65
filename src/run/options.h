// SPDX-License-Identifier: Apache-2.0
// Every option of every command, declared once: parsing, help and the checks that need no file.
#pragma once

#include <string>

#include "run/option_parts.h"

namespace CLI {
class App;
}

namespace starattn {

class FilePurposes;

struct Options : InputOptions,
                 OutputOptions,
                 TextOptions,
                 FormOptions,
                 QueryOptions,
                 DocumentOptions,
                 RankOptions,
                 DeviceOptions,
                 RecordOptions,
                 ProgressOptions {
  std::string model;
  std::int64_t thinking_tokens = 0;  // 0: as many as the answer may have
  double timeout = 0;                // minutes; 0: never
  bool dry_run = false;

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
void add_precision_options(CLI::App& app, Options& options);  // of weights, activations, KV
void add_kv_memory_options(CLI::App& app, Options& options);
void add_weight_memory_options(CLI::App& app, Options& options);
void add_query_rank_options(CLI::App& app, Options& options);  // phase 2 among ranks
void add_progress_options(CLI::App& app, Options& options);
void declare_progress_files(const Options& options, FilePurposes& files);
// Where time goes. profile_file: beside the table a file, where the command has no other for it.
void add_trace_options(CLI::App& app, Options& options, bool has_profile_file = true);
void declare_trace_files(const Options& options, FilePurposes& files);

}  // namespace starattn
