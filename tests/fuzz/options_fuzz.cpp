// SPDX-License-Identifier: Apache-2.0
// A --config file for a command with the options of `run`, and what its values are parsed into.
#include "fuzz.h"
#include "run/config_file.h"
#include "run/option_values.h"
#include "run/options.h"

using namespace starattn;

STARATTN_FUZZ_TARGET {
  static const fuzz::Folder folder;
  folder.write("job.toml", input);
  CLI::App parser("fuzz");
  parser.fallthrough();
  parser.require_subcommand(1);
  add_config_option(parser);
  Options options;
  CLI::App* command = parser.add_subcommand("run", "");
  add_model_options(*command, options);
  command->add_option("--input", options.input, "");
  command->add_option("--output", options.output, "");
  add_plan_options(*command, options);
  add_anchor_options(*command, options);
  add_length_options(*command, options);
  add_text_options(*command, options);
  add_answer_options(*command, options);
  add_device_options(*command, options);
  add_group_options(*command, options);
  add_kv_memory_options(*command, options);
  add_query_rank_options(*command, options);
  add_trace_options(*command, options);
  check_option_values(parser);
  fuzz::only_refuses([&] {
    try {
      std::vector<std::string> last_one_first{folder.file("job.toml"), "--config", "run"};
      parser.parse(last_one_first);
    } catch (const CLI::Error& error) {
      fuzz::require(error.what()[0] != '\0', "a message says something");
      return;
    }
    const PlanRequest request = options.plan_request();
    fuzz::require(!request.block_size || *request.block_size > 0, "a block has a token");
  });
}
