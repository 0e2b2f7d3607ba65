// SPDX-License-Identifier: Apache-2.0
// starattn: parse the command line, start MPI where the command needs it, run, and say once what
// failed.
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <iostream>
#include <vector>

#include "backend/backend.h"
#include "base/error.h"
#include "base/log.h"
#include "command/commands.h"
#include "mpi/communicator.h"
#include "mpi/runtime.h"
#include "run/config_file.h"
#include "run/option_values.h"
#include "version.h"

namespace starattn {
namespace {

// The rank a launcher gave this process, before MPI runs: only rank 0 prints help and usage errors.
int rank_by_launcher() {
  for (const char* name : {"OMPI_COMM_WORLD_RANK", "PMIX_RANK", "SLURM_PROCID"}) {
    if (const char* text = std::getenv(name)) return std::atoi(text);
  }
  return 0;
}

int report(const Error& error) {
  log::error("{}", error.what());
  return static_cast<int>(error.exit());
}

// A result that did not reach standard output is a failure, whatever the command found.
int finished(int code) {
  errno = 0;
  if (std::fflush(stdout) == 0 && std::cout.flush()) return code;
  const std::string why = errno == 0 ? "" : std::string(": ") + std::strerror(errno);
  return report(Error(Exit::io, "standard output: the result could not be written" + why));
}

// What every command takes.
struct CommonOptions {
  std::string log_format = "text";
  std::string config;  // the file's name; add_config_option reads it

  log::Setup log_setup() const {
    log::Setup setup;
    if (log_format == "json") setup.format = log::Format::json;
    return setup;
  }
};

// One file, one purpose: said before the command touches any.
void check_files(const Command& command, const CommonOptions& options) {
  FilePurposes files;
  files.reads("--config", options.config);
  command.declare_files(files);
}

int run_without_mpi(const Command& command, const CommonOptions& options) {
  try {
    leave_stop_signals();
    log::setup(options.log_setup());
    check_files(command, options);
    return finished(static_cast<int>(command.run()));
  } catch (const Error& error) {
    return report(error);
  } catch (const std::exception& error) {
    return report(Error(Exit::bug, std::string("unexpected: ") + error.what()));
  }
}

// An agreed error leaves through MPI_Finalize; one rank's own error takes the whole job down.
int run_on_all_ranks(const Command& command, const CommonOptions& options, int argc, char** argv) {
  catch_stop_signals();
  int rank = rank_by_launcher();
  log::Setup log = options.log_setup();
  log.quiet = rank != 0;
  log.timed = true;
  log::setup(log);
  if (const std::string mismatch = launcher_mismatch(0); !mismatch.empty()) {
    return rank == 0 ? report(Error(Exit::unfit, mismatch)) : static_cast<int>(Exit::unfit);
  }
  const MpiRuntime mpi(&argc, &argv);
  try {
    const Communicator world = Communicator::world();
    rank = world.rank();
    log.quiet = rank != 0;
    if (rank != 0) log.prefix = fmt::format("rank {}", rank);
    log::setup(log);
    collectively(world, [&] {
      if (rank == 0) check_files(command, options);
    });
    return finished(static_cast<int>(command.run()));
  } catch (const AgreedError& error) {
    return rank == 0 ? report(error) : static_cast<int>(error.exit());
  } catch (const Error& error) {
    MpiRuntime::abort(report(error));
  } catch (const std::exception& error) {
    MpiRuntime::abort(report(Error(Exit::bug, std::string("unexpected: ") + error.what())));
  }
}

// On the parser itself, where every command falls through to; its footer is every command's.
void add_common_options(CLI::App& parser, CommonOptions& options) {
  parser.fallthrough();
  parser.add_option("--log-format", options.log_format, "text or json, on stderr")
      ->check(CLI::IsMember({"text", "json"}))
      ->capture_default_str();
  add_config_option(parser);
  parser.footer("Every command also takes --log-format text|json and --config FILE.");
}

int run(int argc, char** argv) {
  CLI::App parser(
      "starattn answers questions over very long documents by Star Attention, under mpirun or "
      "srun.");
  parser.set_version_flag("--version", "starattn " STARATTN_VERSION);
  parser.require_subcommand(1);
  CommonOptions options;
  add_common_options(parser, options);
  const std::vector<Command> commands = {
      add_run(parser),         add_encode(parser),  add_answer(parser), add_plan(parser),
      add_checkpoints(parser), add_inspect(parser), add_doctor(parser), add_bench(parser),
      add_generate(parser),    add_eval(parser),    add_report(parser), add_merge(parser),
      add_tokenize(parser),    add_manual(parser)};
  check_option_values(parser);
  try {
    parser.parse(argc, argv);
  } catch (const Error& error) {  // of --config
    if (rank_by_launcher() != 0) return static_cast<int>(error.exit());
    log::setup(options.log_setup());
    return report(error);
  } catch (const CLI::FileError& error) {  // of --config, too
    if (rank_by_launcher() != 0) return static_cast<int>(Exit::no_input);
    log::setup(options.log_setup());
    return report(Error(Exit::no_input, fmt::format("--config: {}", error.what())));
  } catch (const CLI::ParseError& error) {
    if (rank_by_launcher() != 0)
      return error.get_exit_code() == 0 ? 0 : static_cast<int>(Exit::usage);
    const int code = parser.exit(error, std::cout, std::cerr);
    log::setup(options.log_setup());
    return finished(code == 0 ? 0 : static_cast<int>(Exit::usage));
  }
  if (parser.get_config_ptr()->count() > 0)
    options.config = parser.get_config_ptr()->results().back();
  for (const Command& command : commands) {
    if (!command.app->parsed()) continue;
    return command.needs_mpi() ? run_on_all_ranks(command, options, argc, argv)
                               : run_without_mpi(command, options);
  }
  return static_cast<int>(Exit::usage);
}

}  // namespace
}  // namespace starattn

int main(int argc, char** argv) {
  starattn::hold_stop_signals();  // a batch system may send one at any time
  starattn::use_fitting_openblas_kernels(argv);
  return starattn::run(argc, argv);
}
