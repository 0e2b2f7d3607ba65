// SPDX-License-Identifier: Apache-2.0
// Locks between processes (and threads) that the kernel keeps and drops with its holder, however
// that dies.
#pragma once

#include <optional>
#include <string>

#include "base/file.h"

namespace starattn {

class KernelLock {
 public:
  enum class Mode { shared, exclusive };

  // Waits up to `seconds`. An exclusive holder leaves its name in the file. Throws
  // Error(io) naming the holder when the time is over, cannot_create when the file cannot be.
  KernelLock(const std::string& path, Mode mode, double seconds);

  // The lock if it is free now. Throws as above when the file cannot be opened.
  static std::optional<KernelLock> try_take(const std::string& path, Mode mode);

  // A shared lock for a reader, which may have no right to write or to create the file: nothing
  // where there is no such file, or where it cannot be opened.
  static std::optional<KernelLock> share_if_possible(const std::string& path, double seconds);

  // Whether nobody holds it now, in either mode; true where there is no such file. Creates nothing.
  static bool is_free(const std::string& path);

  // Leaves a line for people in the file, behind its holder's; nothing where it may not be written.
  void leave_note(std::string_view line) const;
  // The line that was left in the file last; empty where there is none.
  static std::string note_in(const std::string& path);

  void downgrade();  // exclusive to shared; another may take it in between

 private:
  KernelLock(std::string path, FileDescriptor file)
      : path_(std::move(path)), file_(std::move(file)) {}
  std::string path_;
  FileDescriptor file_;  // closing it drops the lock
};

}  // namespace starattn
