// SPDX-License-Identifier: Apache-2.0
#include "checkpoint/prune.h"

#include <dirent.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <system_error>

#include "base/error.h"
#include "base/text.h"

namespace starattn {
namespace {

namespace fs = std::filesystem;

// Why each document must go; empty where it stays. `documents` come newest first.
std::string reason_to_remove(const DocumentSummary& document, const PruneRules& rules,
                             std::int64_t now_unix, std::uint64_t bytes_up_to_here) {
  if (rules.incomplete && !document.complete()) {
    return document.problem.empty() ? fmt::format("incomplete: {} of {} blocks",
                                                  document.n_blocks_present, document.info.n_blocks)
                                    : "unreadable: " + document.problem;
  }
  const double age = static_cast<double>(now_unix - document.last_written_unix);
  if (rules.older_than_seconds && age > *rules.older_than_seconds) {
    return "last written " + human_seconds(age) + " ago";
  }
  if (rules.keep_newest_bytes && bytes_up_to_here > *rules.keep_newest_bytes) {
    return "beyond the newest " + human_bytes(*rules.keep_newest_bytes);
  }
  return "";
}

void remove_file(const std::string& path) {
  if (::unlink(path.c_str()) != 0 && errno != ENOENT) {
    fail(Exit::io, "cannot remove {}: {}", path, std::strerror(errno));
  }
}

// Regular files of our names, the manifest first: a document half removed must not look whole. Lock
// files are left for the end.
std::vector<std::string> files_to_remove(const std::string& directory) {
  std::vector<std::string> names{kManifestName};
  for (const auto& entry : fs::directory_iterator(directory)) {
    const std::string name = entry.path().filename().string();
    const bool lock = name == kLockName || name == kInUseName;
    if (is_own_name(name) && !lock && name != kManifestName && entry.is_regular_file() &&
        !entry.is_symlink()) {
      names.push_back(name);
    }
  }
  return names;
}

std::string first_foreign_name(const std::string& directory) {
  for (const auto& entry : fs::directory_iterator(directory)) {
    const std::string name = entry.path().filename().string();
    if (!is_own_name(name) || entry.is_symlink() || !entry.is_regular_file()) return name;
  }
  return "";
}

void remove_document(const std::string& directory) {
  for (const std::string& name : files_to_remove(directory)) remove_file(directory + "/" + name);
  remove_file(directory + "/" + kInUseName);
  remove_file(directory + "/" + kLockName);
  // A process that is just opening it may have put a new lock file here; then the directory stays.
  if (::rmdir(directory.c_str()) != 0 && errno != ENOTEMPTY && errno != EEXIST) {
    fail(Exit::io, "cannot remove directory {}: {}", directory, std::strerror(errno));
  }
}

class Pruner {
 public:
  Pruner(const CheckpointStore& store, const PruneRules& rules) : store_(store), rules_(rules) {}

  // An empty reason: the document stays, only leftovers go. Returns whether the document went.
  bool visit(const DocumentSummary& document, const std::string& reason) {
    if (reason.empty() && rules_.dry_run) return false;
    std::string why_not;
    try {
      why_not = rules_.dry_run ? look_at(document) : remove(document, reason);
    } catch (const Error& error) {
      result_.failed.push_back({document, error.what()});
      return false;
    } catch (const fs::filesystem_error& error) {
      result_.failed.push_back({document, error.what()});
      return false;
    }
    if (reason.empty()) return false;
    if (!why_not.empty()) {
      result_.kept.push_back({document, why_not});
      return false;
    }
    result_.freed_bytes += document.n_bytes;
    result_.removed.push_back({document, reason});
    return true;
  }

  PruneResult result() && { return std::move(result_); }

 private:
  static constexpr const char* kInUse = "in use by another process";

  // Both return why the document cannot go, or nothing. This one creates and changes no file.
  static std::string look_at(const DocumentSummary& document) {
    if (!KernelLock::is_free(document.directory + "/" + kInUseName)) return kInUse;
    return objection(document);
  }

  std::string remove(const DocumentSummary& document, const std::string& reason) {
    const KernelLock lock(document.directory + "/" + kLockName, KernelLock::Mode::exclusive,
                          store_.lock_seconds());
    const auto alone =
        KernelLock::try_take(document.directory + "/" + kInUseName, KernelLock::Mode::exclusive);
    if (!alone) return kInUse;
    if (reason.empty()) {
      result_.n_temporaries += remove_temporaries(document.directory);
      return "";
    }
    std::string why_not = objection(document);
    if (why_not.empty()) remove_document(document.directory);
    return why_not;
  }

  static std::string objection(const DocumentSummary& document) {
    const DocumentSummary now = summarize_document(document.directory, document.key);
    if (now.last_written_unix != document.last_written_unix || now.n_bytes != document.n_bytes) {
      return "changed meanwhile";
    }
    const std::string foreign = first_foreign_name(document.directory);
    return foreign.empty() ? "" : "holds '" + foreign + "', which is not ours";
  }

  const CheckpointStore& store_;
  const PruneRules& rules_;
  PruneResult result_;
};

}  // namespace

PruneResult prune(const CheckpointStore& store, const PruneRules& rules, std::int64_t now_unix) {
  std::vector<DocumentSummary> documents = store.list();
  std::ranges::stable_sort(documents, std::ranges::greater{}, &DocumentSummary::last_written_unix);
  Pruner pruner(store, rules);
  std::uint64_t kept_bytes = 0;
  for (const DocumentSummary& document : documents) {
    const std::string reason =
        reason_to_remove(document, rules, now_unix, kept_bytes + document.n_bytes);
    if (!pruner.visit(document, reason)) kept_bytes += document.n_bytes;
  }
  return std::move(pruner).result();
}

}  // namespace starattn
