// SPDX-License-Identifier: Apache-2.0
#include "mpi/runtime.h"

#include <mpi.h>
#include <signal.h>
#include <sys/prctl.h>
#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <fstream>

#include "base/error.h"

namespace starattn {
namespace {

constexpr int kStopSignals[] = {SIGTERM, SIGINT, SIGUSR1};

volatile sig_atomic_t stop_flag = 0;

sigset_t stop_signals() {
  sigset_t set;
  ::sigemptyset(&set);
  for (const int signal : kStopSignals) ::sigaddset(&set, signal);
  return set;
}

void on_stop_signal(int) {
  stop_flag = 1;
}

int number_in_environment(const char* name) {
  const char* text = std::getenv(name);
  int number = 0;
  if (text) std::from_chars(text, text + std::strlen(text), number);
  return number;
}

// The one task of 'srun --mpi=none -n 1' is a job of one rank. Open MPI refuses to start as long as
// it sees the step that it hears nothing from.
void hide_step_of_single_task() {
  const bool is_told = std::getenv("PMIX_RANK") || std::getenv("OMPI_COMM_WORLD_SIZE");
  if (is_told || number_in_environment("SLURM_STEP_NUM_TASKS") != 1) return;
  for (const char* name : {"SLURM_STEP_ID", "SLURM_STEPID"}) ::unsetenv(name);
}

}  // namespace

MpiRuntime::MpiRuntime(int* argc, char*** argv) : exceptions_at_start_(std::uncaught_exceptions()) {
  hide_step_of_single_task();
  int provided = 0;
  if (MPI_Init_thread(argc, argv, MPI_THREAD_FUNNELED, &provided) != MPI_SUCCESS ||
      provided < MPI_THREAD_FUNNELED) {
    fail(Exit::unfit, "MPI_Init_thread failed or offers no MPI_THREAD_FUNNELED (got level {})",
         provided);
  }
  // A rank whose launcher is gone must not stay behind holding memory and locks.
  if (std::getenv("PMIX_RANK")) ::prctl(PR_SET_PDEATHSIG, SIGKILL);
}

MpiRuntime::~MpiRuntime() {
  if (std::uncaught_exceptions() == exceptions_at_start_ && is_running()) MPI_Finalize();
}

bool MpiRuntime::is_running() {
  int started = 0;
  int ended = 0;
  MPI_Initialized(&started);
  MPI_Finalized(&ended);
  return started && !ended;
}

void MpiRuntime::abort(int exit_code) {
  if (is_running()) MPI_Abort(MPI_COMM_WORLD, std::clamp(exit_code, 1, 125));
  std::_Exit(std::clamp(exit_code, 1, 125));
}

std::string mpi_library_version() {
  char text[MPI_MAX_LIBRARY_VERSION_STRING] = {};
  int length = 0;
  MPI_Get_library_version(text, &length);
  const std::string all(text, static_cast<std::size_t>(length));
  return all.substr(0, all.find_first_of(",\n"));
}

std::string host_name() {
  char name[256] = {};
  return ::gethostname(name, sizeof(name) - 1) == 0 ? name : "unknown host";
}

std::string command_line() {
  std::ifstream file("/proc/self/cmdline");
  std::string words;
  for (std::string word; std::getline(file, word, '\0');)
    words += (words.empty() ? "" : " ") + word;
  return words;
}

std::string launcher_mismatch(int mpi_size) {
  const int tasks = number_in_environment("SLURM_STEP_NUM_TASKS");
  const bool by_mpirun = std::getenv("OMPI_COMM_WORLD_SIZE") != nullptr;
  if (mpi_size > 1 || tasks <= 1 || by_mpirun) return "";
  if (mpi_size == 0 && (std::getenv("PMIX_RANK") || std::getenv("PMI_RANK"))) return "";
  return fmt::format(
      "srun started {} tasks without telling MPI of one another: all would write the same files. "
      "Start them with 'srun --mpi=pmix' ('srun --mpi=list' shows what this cluster has) or with "
      "mpirun",
      tasks);
}

void hold_stop_signals() {
  const sigset_t signals = stop_signals();
  ::sigprocmask(SIG_BLOCK, &signals, nullptr);
}

void catch_stop_signals() {
  struct sigaction action {};
  action.sa_handler = on_stop_signal;
  action.sa_flags = SA_RESTART;
  for (const int signal : kStopSignals) ::sigaction(signal, &action, nullptr);
  ::signal(SIGPIPE, SIG_IGN);
  leave_stop_signals();
}

void leave_stop_signals() {
  const sigset_t signals = stop_signals();
  ::sigprocmask(SIG_UNBLOCK, &signals, nullptr);
}

bool stop_requested() {
  return stop_flag != 0;
}

}  // namespace starattn
