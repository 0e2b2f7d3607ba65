// SPDX-License-Identifier: Apache-2.0
// MPI from init to finalize. Declared once, in main's scope; an exception that is on its way out
// skips MPI_Finalize, which would wait for ranks that never come: main aborts instead.
#pragma once

#include <string>

namespace starattn {

class MpiRuntime {
 public:
  MpiRuntime(int* argc, char*** argv);  // MPI_THREAD_FUNNELED
  ~MpiRuntime();
  MpiRuntime(const MpiRuntime&) = delete;
  MpiRuntime& operator=(const MpiRuntime&) = delete;

  static bool is_running();

  // Ends every rank of the job now. exit_code 1..125: others would read as success somewhere.
  [[noreturn]] static void abort(int exit_code);

 private:
  int exceptions_at_start_;
};

std::string mpi_library_version();  // first line of MPI_Get_library_version
std::string host_name();
std::string command_line();  // the words that started this process, for people

// Set when the launcher started several processes but MPI sees one: `srun` without PMI. Each would
// take itself for rank 0 and write the same output. Empty when all is well. mpi_size: 0 before MPI
// starts, which it may refuse to do then, in many words.
std::string launcher_mismatch(int mpi_size);

// SIGTERM, SIGINT and SIGUSR1 ask this process to stop early. hold: they wait, also through an
// exec, until caught or left to the system, whose way is to end the process.
void hold_stop_signals();
void catch_stop_signals();
void leave_stop_signals();
bool stop_requested();  // one was caught

}  // namespace starattn
