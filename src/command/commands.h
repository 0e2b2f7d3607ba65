// SPDX-License-Identifier: Apache-2.0
// The subcommands: each adds itself to the parser and returns what runs it.
#pragma once

#include <CLI/CLI.hpp>
#include <functional>

#include "base/error.h"

namespace starattn {

// How a command is run: without MPI (login node), or on all ranks of the job.
struct Command {
  CLI::App* app = nullptr;
  std::function<Exit()> run;
  bool needs_mpi = false;
};

Command add_run(CLI::App& parser);
Command add_encode(CLI::App& parser);
Command add_answer(CLI::App& parser);
Command add_plan(CLI::App& parser);
Command add_inspect(CLI::App& parser);
Command add_doctor(CLI::App& parser);
Command add_checkpoints(CLI::App& parser);
Command add_generate(CLI::App& parser);

}  // namespace starattn
