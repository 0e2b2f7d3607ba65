// SPDX-License-Identifier: Apache-2.0
// What is in a store, seen from outside: sizes, dates, how many blocks are there.
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <system_error>

#include "base/error.h"
#include "checkpoint/store.h"

namespace starattn {
namespace {

namespace fs = std::filesystem;

// Names only, in any order; a directory that cannot be read has none.
std::vector<std::string> names_in(const std::string& directory) {
  std::vector<std::string> names;
  std::error_code error;
  for (fs::directory_iterator it(directory, error), end; !error && it != end; it.increment(error)) {
    names.push_back(it->path().filename().string());
  }
  return names;
}

bool stat_regular(const std::string& path, struct stat& info) {
  return ::lstat(path.c_str(), &info) == 0 && S_ISREG(info.st_mode);
}

void add_files(DocumentSummary& summary) {
  for (const std::string& name : names_in(summary.directory)) {
    struct stat info {};
    if (name == kInUseName && stat_regular(summary.directory + "/" + name, info))
      summary.last_used_unix = info.st_mtim.tv_sec;
    // Opening a document touches its lock files; only what is saved counts.
    if (!is_own_name(name) || name == kLockName || name == kInUseName) continue;
    if (!stat_regular(summary.directory + "/" + name, info)) continue;
    summary.n_bytes += static_cast<std::uint64_t>(info.st_size);
    summary.last_written_unix =
        std::max<std::int64_t>(summary.last_written_unix, info.st_mtim.tv_sec);
  }
}

}  // namespace

DocumentSummary summarize_document(const std::string& directory, const Digest& key) {
  DocumentSummary summary;
  summary.key = key;
  summary.directory = directory;
  add_files(summary);
  summary.name = KernelLock::note_in(directory + "/" + kInUseName);
  try {
    const std::optional<Manifest> manifest = read_manifest(directory, key);
    if (!manifest) {
      summary.problem = directory + "/" + kManifestName + " is missing";
      return summary;
    }
    summary.info = manifest->info;
    for (const auto& [block, file] : manifest->blocks) {
      struct stat info {};
      const bool there = stat_regular(directory + "/" + block_name(block), info) &&
                         static_cast<std::uint64_t>(info.st_size) == file.n_bytes;
      summary.n_blocks_present += there;
    }
  } catch (const Error& error) {
    summary.problem = error.what();
  }
  return summary;
}

std::vector<DocumentSummary> CheckpointStore::list() const {
  std::vector<DocumentSummary> documents;
  for (const std::string& name : names_in(directory_)) {
    const std::optional<Digest> key = Digest::from_hex(name);
    const std::string directory = directory_ + "/" + name;
    struct stat info {};
    if (!key || ::lstat(directory.c_str(), &info) != 0 || !S_ISDIR(info.st_mode)) continue;
    documents.push_back(summarize_document(directory, *key));
  }
  std::ranges::sort(documents, {}, &DocumentSummary::key);
  return documents;
}

int remove_temporaries(const std::string& directory) {
  int n_removed = 0;
  for (const std::string& name : names_in(directory)) {
    struct stat info {};
    const std::string path = directory + "/" + name;
    if (!is_temporary_name(name) || !stat_regular(path, info)) continue;
    n_removed += ::unlink(path.c_str()) == 0;
  }
  return n_removed;
}

}  // namespace starattn
