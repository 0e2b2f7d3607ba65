// SPDX-License-Identifier: Apache-2.0
// run, encode and answer: their options, and the main job behind them.
#include "command/commands.h"
#include "io/answer_writer.h"
#include "io/context_files.h"
#include "run/batch.h"
#include "run/option_checks.h"

namespace starattn {
namespace {

void declare_files(const Options& options, FilePurposes& files) {
  files.reads_folder("--model", options.model);
  files.reads("--input", options.input);
  files.reads("--schema", options.schema);
  AnswerWriter::declare(files, "--output", options.output);
  declare_trace_files(options, files);
  declare_progress_files(options, files);
  files.owns_subfolders("--checkpoint-dir", options.checkpoint_dir);
  declare_context_files(options.input, files);
}

Command make_command(CLI::App& parser, const char* name, const char* what, Work work) {
  auto options = std::make_shared<Options>();
  CLI::App* app = parser.add_subcommand(name, what);
  add_model_options(*app, *options);
  app->add_option(
         "--input", options->input,
         "Documents and queries, JSON Lines, an OpenAI batch file, or a table of questions "
         "(.csv); - is standard input")
      ->required();
  if (work != Work::encode) {
    app->add_option("--output", options->output,
                    "Answers, JSON Lines; a rerun continues it. - is standard output")
        ->required();
  }
  auto* checkpoints = app->add_option("--checkpoint-dir", options->checkpoint_dir,
                                      "Keep each block's KV cache here, and use what is there");
  if (work != Work::both) checkpoints->required();
  app->add_option("--shard", options->shard,
                  "Only documents i, i + n, ... of the input: i/n, for job arrays");
  app->add_option("--timeout", options->timeout,
                  "Minutes without any movement until the run is ended; 0 = never. More than the "
                  "longest document takes")
      ->check(between(0, 1e6))
      ->capture_default_str();
  app->add_flag("--dry-run", options->dry_run,
                "Read, tokenize and plan the whole input, say what does not fit, then stop");
  add_plan_options(*app, *options);
  if (work != Work::answer) add_anchor_options(*app, *options);
  add_length_options(*app, *options);
  add_text_options(*app, *options);
  add_chat_options(*app, *options);
  if (work != Work::encode) add_answer_options(*app, *options);
  if (work != Work::encode) add_form_options(*app, *options);
  add_device_options(*app, *options);
  add_precision_options(*app, *options);
  add_group_options(*app, *options);
  add_kv_memory_options(*app, *options);
  add_weight_memory_options(*app, *options);
  if (work != Work::encode) add_query_rank_options(*app, *options);
  add_progress_options(*app, *options);
  add_trace_options(*app, *options);
  return {app, [options, work] { return run_batch(*options, work); }, [] { return true; },
          [options](FilePurposes& files) { declare_files(*options, files); }};
}

}  // namespace

Command add_run(CLI::App& parser) {
  return make_command(parser, "run", "Encode documents and answer their queries", Work::both);
}
Command add_encode(CLI::App& parser) {
  return make_command(parser, "encode", "Encode documents into checkpoints (phase 1)",
                      Work::encode);
}
Command add_answer(CLI::App& parser) {
  return make_command(parser, "answer", "Answer queries from checkpoints (phase 2)", Work::answer);
}

}  // namespace starattn
