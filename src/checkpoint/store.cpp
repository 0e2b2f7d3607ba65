// SPDX-License-Identifier: Apache-2.0
#include "checkpoint/store.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <system_error>
#include <utility>

#include "base/error.h"
#include "base/log.h"
#include "checkpoint/document_file.h"
#include "checkpoint/file_io.h"
#include "checkpoint/fingerprint.h"
#include "checkpoint/verified_file.h"

namespace starattn {
namespace {

FileDigests write_document(const std::string& directory, const DocumentInfo& info,
                           std::span<const std::int32_t> token_ids) {
  TemporaryFile file(directory + "/" + kDocumentName);
  write_document_file(file.path(), info, token_ids);
  file.sync();
  FileDigests digests = digest_file(file.fd(), file.path());
  read_back(file.path(), [&] {
    VerifiedFile written(file.path(), digests);
    return std::ranges::equal(read_document_file(written, info).token_ids, token_ids);
  });
  file.publish();
  return digests;
}

void check_document(const std::string& directory, const Manifest& manifest,
                    const DocumentInfo& wanted, std::span<const std::int32_t> token_ids) {
  expect_same(manifest.info, wanted, directory + "/" + kManifestName);
  VerifiedFile file(directory + "/" + kDocumentName, manifest.document);
  if (!std::ranges::equal(read_document_file(file, wanted).token_ids, token_ids)) {
    fail(Exit::bad_data, "{}: /token_ids: not those of the document, in spite of equal digests",
         file.path());
  }
}

// With the lock held: whatever state a killed writer left, manifest and document.h5 are there
// afterwards.
void create_missing(const std::string& directory, const DocumentInfo& info,
                    std::span<const std::int32_t> token_ids, OnDamage on_damage) {
  std::optional<Manifest> manifest;
  try {
    manifest = read_manifest(directory, info.key());
    if (manifest) return check_document(directory, *manifest, info, token_ids);
  } catch (const OtherFormatVersion&) {
    throw;
  } catch (const Error& error) {
    // Only what has been read and is wrong, or is gone, counts as damage: a disk that fails now may
    // give everything back tomorrow.
    const bool is_damage = error.exit() == Exit::bad_data || error.exit() == Exit::no_input;
    if (!is_damage || on_damage == OnDamage::refuse) throw;
    log::warn("{}: rebuilding what is damaged", error.what());
  }
  Manifest made{info, write_document(directory, info, token_ids), {}};
  // A damaged document.h5 under a sound manifest costs no block.
  const bool same_document =
      manifest && manifest->info.plan == info.plan && manifest->info.n_blocks == info.n_blocks;
  if (same_document) made.blocks = std::move(manifest->blocks);
  write_manifest(directory, made);
}

bool is_folder(const std::string& path) {
  struct stat info {};
  return ::lstat(path.c_str(), &info) == 0 && S_ISDIR(info.st_mode);
}

// By this user: its rights, or a file system mounted to be read.
bool may_only_be_read(const std::string& directory) {
  return ::faccessat(AT_FDCWD, directory.c_str(), R_OK | X_OK, AT_EACCESS) == 0 &&
         ::faccessat(AT_FDCWD, directory.c_str(), W_OK, AT_EACCESS) != 0;
}

// A folder of one of our names, in whose place no file can be put; empty if there is none. Lock
// files are not asked: nobody is alone with a document that cannot be locked.
std::string folder_in_place_of_file(const std::string& directory) {
  std::error_code error;
  for (std::filesystem::directory_iterator it(directory, error), end; !error && it != end;
       it.increment(error)) {
    const std::string name = it->path().filename().string();
    if (is_own_name(name) && name != kLockName && name != kInUseName && is_folder(it->path()))
      return name;
  }
  return "";
}

// What stands in a document's place goes out of the way under a name that no key has.
void set_aside(const std::string& directory, const std::string& why) {
  int n = 1;
  const auto aside = [&] { return fmt::format("{}.set-aside-{}", directory, n); };
  while (exists(aside())) ++n;
  if (::rename(directory.c_str(), aside().c_str()) != 0) {
    fail(Exit::cannot_create, "{}: {}, and it cannot be renamed to {}: {}. Remove it", directory,
         why, aside(), std::strerror(errno));
  }
  fsync_directory(parent_directory(directory));
  log::warn("{}: {}; it is now {}, and the document is saved anew", directory, why, aside());
}

// Until its lock is ours, a process that prunes may delete the directory under our feet.
template <typename Lock>
KernelLock lock_directory(const std::string& directory, const Lock& lock) {
  constexpr int kAttempts = 20;
  for (int attempt = 1;; ++attempt) {
    try {
      make_directories(directory);
      return lock();
    } catch (const Error& error) {
      if (error.exit() != Exit::cannot_create || attempt == kAttempts) throw;
    }
  }
}

// For `checkpoints list`. Where this user may only read, nobody will know.
void note_use(const std::string& directory) {
  const std::string path = directory + "/" + kInUseName;
  ::utimensat(AT_FDCWD, path.c_str(), nullptr, AT_SYMLINK_NOFOLLOW);
}

void describe_tokens(DocumentInfo& info, std::span<const std::int32_t> token_ids) {
  info.n_tokens = static_cast<std::int64_t>(token_ids.size());
  info.token_digest = digest_of_tokens(token_ids);
  validate(info, "the document to save");
}

}  // namespace

CheckpointStore::CheckpointStore(std::string directory, double lock_seconds)
    : directory_(std::move(directory)), lock_seconds_(lock_seconds) {}

DocumentCheckpoint CheckpointStore::open_or_create(DocumentInfo info,
                                                   std::span<const std::int32_t> token_ids,
                                                   OnDamage on_damage) const {
  describe_tokens(info, token_ids);
  DocumentCheckpoint document(info, directory_of(info.key()), lock_seconds_);
  const std::string& directory = document.directory();
  if (may_only_be_read(directory)) {
    std::optional<DocumentCheckpoint> saved = find(info, token_ids);
    if (saved && std::ssize(saved->blocks_present()) == info.n_blocks) return std::move(*saved);
  }
  if (on_damage == OnDamage::rebuild) replace_what_is_no_folder(directory);
  KernelLock held = lock_directory(directory, [&] { return document.lock(); });
  bool is_alone = is_alone_with(document);
  const std::string folder = folder_in_place_of_file(directory);
  if (!folder.empty()) {
    const std::string why = fmt::format("'{}' in it is a folder, not a file", folder);
    if (on_damage == OnDamage::refuse) fail(Exit::bad_data, "{}: {}", directory, why);
    if (!is_alone) {
      fail(Exit::io, "{}: {}, and another process has the document open. Wait for it or end it",
           directory, why);
    }
    set_aside(directory, why);
    held = lock_directory(directory, [&] { return document.lock(); });
    is_alone = is_alone_with(document);
  }
  if (is_alone) {
    remove_temporaries(directory);
    document.in_use_->downgrade();
  }
  create_missing(directory, info, token_ids, on_damage);
  note_use(directory);
  return document;
}

// Whether this process is alone with the document, its lock held: then no writer of its files
// lives.
bool CheckpointStore::is_alone_with(DocumentCheckpoint& document) const {
  const std::string path = document.directory() + "/" + kInUseName;
  document.in_use_ = KernelLock::try_take(path, KernelLock::Mode::exclusive);
  if (document.in_use_) return true;
  document.in_use_.emplace(path, KernelLock::Mode::shared, lock_seconds_);
  return false;
}

// A symbolic link, say: what is written through it could be anyone's. The store's own lock keeps
// another process from renaming the folder that comes in its place.
void CheckpointStore::replace_what_is_no_folder(const std::string& directory) const {
  if (!exists(directory) || is_folder(directory)) return;
  const KernelLock held(directory_ + "/" + kLockName, KernelLock::Mode::exclusive, lock_seconds_);
  if (exists(directory) && !is_folder(directory))
    set_aside(directory, "it is no folder, or a link to one");
}

std::optional<DocumentCheckpoint> CheckpointStore::find(
    DocumentInfo info, std::span<const std::int32_t> token_ids) const {
  describe_tokens(info, token_ids);
  DocumentCheckpoint document(info, directory_of(info.key()), lock_seconds_);
  document.in_use_ =
      KernelLock::share_if_possible(document.directory() + "/" + kInUseName, lock_seconds_);
  const std::optional<Manifest> manifest = read_manifest(document.directory(), document.key());
  if (!manifest) return std::nullopt;
  check_document(document.directory(), *manifest, info, token_ids);
  note_use(document.directory());
  return document;
}

DocumentCheckpoint CheckpointStore::open(const Digest& key) const {
  const std::string directory = directory_of(key);
  std::optional<KernelLock> in_use =
      KernelLock::share_if_possible(directory + "/" + kInUseName, lock_seconds_);
  const std::optional<Manifest> manifest = read_manifest(directory, key);
  if (!manifest) fail(Exit::no_input, "no checkpoint {} in {}", key.hex(), directory_);
  DocumentInfo info = manifest->info;
  VerifiedFile file(directory + "/" + kDocumentName, manifest->document);
  info.provenance = read_document_file(file, info).provenance;
  DocumentCheckpoint document(std::move(info), directory, lock_seconds_);
  document.in_use_ = std::move(in_use);
  return document;
}

}  // namespace starattn
