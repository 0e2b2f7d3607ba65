// SPDX-License-Identifier: Apache-2.0
#include "base/file_purposes.h"

#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <utility>

#include "base/error.h"
#include "base/file.h"

namespace starattn {

void FilePurposes::reads(const std::string& purpose, const std::string& path) {
  declare_read(purpose, path, false);
}

void FilePurposes::declare_read(const std::string& purpose, const std::string& path,
                                bool is_of_folder) {
  if (path.empty()) return;
  Use use;
  use.purpose = purpose;
  use.path = path;
  use.is_of_folder = is_of_folder;
  struct stat info {};
  const bool is_there = path == kStandardStream ? ::fstat(STDIN_FILENO, &info) == 0
                                                : ::stat(path.c_str(), &info) == 0;
  if (!is_there) return;  // who reads it will say so
  use.device = info.st_dev;
  use.inode = info.st_ino;
  declare(std::move(use));
}

void FilePurposes::writes(const std::string& purpose, const std::string& path) {
  if (path.empty()) return;
  Use use;
  use.purpose = purpose;
  use.path = path;
  use.writes = true;
  struct stat info {};
  if (path == kStandardStream) {
    // A terminal or a pipe takes what several write.
    if (::fstat(STDOUT_FILENO, &info) != 0 || !S_ISREG(info.st_mode)) return;
  } else {
    require_place_for_output(path);
    const std::string real = real_path(path);
    if (::stat(real.c_str(), &info) != 0) {
      const std::string folder = parent_directory(real);
      if (::stat(folder.c_str(), &info) != 0) return;  // who creates it will say so
      use.name = real.substr(real.find_last_of('/') + 1);
    }
  }
  use.device = info.st_dev;
  use.inode = info.st_ino;
  declare(std::move(use));
}

void FilePurposes::reads_folder(const std::string& purpose, const std::string& folder) {
  std::error_code error;
  for (std::filesystem::directory_iterator at(folder, error), end; !error && at != end;
       at.increment(error))
    declare_read(purpose, at->path().string(), true);
}

void FilePurposes::declare(Use use) {
  const auto other = std::find_if(uses_.begin(), uses_.end(), [&](const Use& one) {
    const bool are_free_to_read =
        !one.writes && !use.writes && (one.is_of_folder || use.is_of_folder);
    return one.device == use.device && one.inode == use.inode && one.name == use.name &&
           !are_free_to_read;
  });
  if (other == uses_.end()) {
    uses_.push_back(std::move(use));
  } else if (other->purpose != use.purpose) {
    fail(Exit::usage,
         "{} ({}) and {} ({}) are one file, and a file can serve one purpose only. Choose another "
         "name for one of them; nothing was touched",
         other->purpose, other->path, use.purpose, use.path);
  }
}

}  // namespace starattn
