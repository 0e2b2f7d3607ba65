// SPDX-License-Identifier: Apache-2.0
// The subcommands: each adds itself to the parser and says how it is run.
#pragma once

#include <CLI/CLI.hpp>
#include <functional>
#include <memory>

#include "base/error.h"
#include "base/file_purposes.h"

namespace starattn {

struct Command {
  CLI::App* app = nullptr;
  std::function<Exit()> run;
  // All ranks of the job run it; else it works on a login node. Asked when options are parsed.
  std::function<bool()> needs_mpi;
  // Says which files the options name, and what for; asked on one rank, before anything is touched.
  std::function<void(FilePurposes& files)> declare_files = [](FilePurposes&) {};
};

Command add_run(CLI::App& parser);
Command add_encode(CLI::App& parser);
Command add_answer(CLI::App& parser);
Command add_plan(CLI::App& parser);
Command add_checkpoints(CLI::App& parser);
Command add_inspect(CLI::App& parser);
Command add_doctor(CLI::App& parser);
Command add_bench(CLI::App& parser);
Command add_generate(CLI::App& parser);
Command add_eval(CLI::App& parser);
Command add_report(CLI::App& parser);
Command add_merge(CLI::App& parser);
Command add_tokenize(CLI::App& parser);
Command add_manual(CLI::App& parser);

}  // namespace starattn
