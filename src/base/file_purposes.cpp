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
  if (path == kStandardStream)
    fail(Exit::usage, "{}: expected a file; '-', standard output, is not written here", purpose);
  writes_or_streams(purpose, path);
}

void FilePurposes::writes_or_streams(const std::string& purpose, const std::string& path) {
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
       at.increment(error)) {
    const std::string path = at->path().string();
    // An output of an earlier run, and what lies beside it, not a part of a model.
    if (path.substr(path.find_last_of('/') + 1).find(".jsonl") != std::string::npos) continue;
    declare_read(purpose, path, true);
  }
}

bool FilePurposes::writes_over_something() const {
  return std::any_of(uses_.begin(), uses_.end(),
                     [](const Use& use) { return use.writes && use.name.empty(); });
}

void FilePurposes::reads_one_of_many(const std::string& purpose, const std::string& path) const {
  struct stat info {};
  if (::stat(path.c_str(), &info) != 0) return;  // who reads it will say so
  for (const Use& use : uses_) {
    if (use.writes && use.name.empty() && use.device == info.st_dev && use.inode == info.st_ino)
      refuse(use, purpose, path);
  }
}

void FilePurposes::owns_subfolders(const std::string& purpose, const std::string& folder) const {
  struct stat top {};
  if (folder.empty() || ::stat(folder.c_str(), &top) != 0) return;
  for (const Use& use : uses_) {
    if (!use.writes || use.path == kStandardStream) continue;
    std::string at = parent_directory(real_path(use.path));
    for (bool is_below = false; at != "/" && at != "."; at = parent_directory(at)) {
      struct stat info {};
      const bool is_top =
          ::stat(at.c_str(), &info) == 0 && info.st_dev == top.st_dev && info.st_ino == top.st_ino;
      if (is_top && is_below) {
        fail(Exit::usage,
             "{} ({}) lies in a folder of {} ({}), which holds nothing else. Choose another name "
             "for it; nothing was touched",
             use.purpose, use.path, purpose, folder);
      }
      is_below = true;
    }
  }
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
    refuse(*other, use.purpose, use.path);
  }
}

void FilePurposes::refuse(const Use& one, const std::string& purpose, const std::string& path) {
  fail(Exit::usage,
       "{} ({}) and {} ({}) are one file, and a file can serve one purpose only. Choose another "
       "name for one of them; nothing was touched",
       one.purpose, one.path, purpose, path);
}

}  // namespace starattn
