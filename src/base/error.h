// SPDX-License-Identifier: Apache-2.0
// The three kinds of failure. Input and environment throw Error with the exit code of the contract;
// a broken invariant is a bug and stops at STARATTN_CHECK.
#pragma once

#include <fmt/format.h>

#include <stdexcept>
#include <string>

namespace starattn {

// Exit codes of every command (sysexits.h where it has one).
enum class Exit : int {
  ok = 0,
  worse = 3,           // eval --baseline: a score or a speed fell
  usage = 2,           // wrong options
  bad_data = 65,       // a file or record does not hold what it must
  no_input = 66,       // an input file is missing or unreadable
  unfit = 69,          // device, memory or MPI unfit for the job
  bug = 70,            // our own mistake
  cannot_create = 73,  // an output cannot be created
  io = 74,             // reading or writing failed midway
  stopped = 75,        // stopped early, state saved: run the same command again
};

// One message for the user: what, where (file, key, line or offset), expected, got, what to do.
// Behind 2,000 bytes it is cut: names in files may take megabytes.
class Error : public std::runtime_error {
 public:
  Error(Exit exit, const std::string& message);
  Exit exit() const noexcept { return exit_; }

  // The same error seen from further out: "<where>: <message>".
  Error within(const std::string& where) const { return {exit_, where + ": " + what()}; }

 private:
  Exit exit_;
};

// throw Error(exit, formatted message)
template <typename... Args>
[[noreturn]] void fail(Exit exit, fmt::format_string<Args...> format, Args&&... args) {
  throw Error(exit, fmt::format(format, std::forward<Args>(args)...));
}

[[noreturn]] void broken_invariant(const char* condition, const char* file, int line);

}  // namespace starattn

// Cheap checks of our own logic; they stay in release builds.
#define STARATTN_CHECK(condition) \
  ((condition) ? (void)0 : ::starattn::broken_invariant(#condition, __FILE__, __LINE__))
