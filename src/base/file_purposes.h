// SPDX-License-Identifier: Apache-2.0
// The files of one command, each with what it is for: `--trace answers.jsonl` beside `--output
// ./answers.jsonl` would destroy the answers. A command declares its files before it touches any.
#pragma once

#include <sys/types.h>

#include <string>
#include <vector>

namespace starattn {

// "-" stands for standard input where a file is read, for standard output where one is written.
inline constexpr const char* kStandardStream = "-";

class FilePurposes {
 public:
  // purpose: for messages, "--trace" or "the journal of --output". A path that is empty is an
  // option that was not given. Throws Error(usage) where the file has another purpose already,
  // under whatever name: ./, symbolic and hard links, bind mounts.
  void reads(const std::string& purpose, const std::string& path);
  // Throws Error(cannot_create) too, as require_place_for_output, and Error(usage) for "-".
  void writes(const std::string& purpose, const std::string& path);
  void writes_or_streams(const std::string& purpose, const std::string& path);  // "-" is taken, too
  // Every file directly in a folder that is read, a model's, but for JSON Lines. Others may read
  // them as well.
  void reads_folder(const std::string& purpose, const std::string& folder);

  // Of what has been declared before, these look at the files that are written.
  //
  // Whether one of them is there already: only such a file can be one that is read, too.
  bool writes_over_something() const;
  // One of many files that are read. It may be named many times.
  void reads_one_of_many(const std::string& purpose, const std::string& path) const;
  // What lies in the folders below this one serves its purpose alone (a checkpoint's documents).
  void owns_subfolders(const std::string& purpose, const std::string& folder) const;

 private:
  struct Use {
    std::string purpose;
    std::string path;
    // Of the file; of the folder that it would be created in, and then its name.
    dev_t device = 0;
    ino_t inode = 0;
    std::string name;
    bool writes = false;
    bool is_of_folder = false;
  };
  void declare_read(const std::string& purpose, const std::string& path, bool is_of_folder);
  void declare(Use use);
  [[noreturn]] static void refuse(const Use& one, const std::string& purpose,
                                  const std::string& path);

  std::vector<Use> uses_;
};

}  // namespace starattn
