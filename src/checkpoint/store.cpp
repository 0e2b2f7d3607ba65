// SPDX-License-Identifier: Apache-2.0
#include "checkpoint/store.h"

#include <algorithm>
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
  const KernelLock held = lock_directory(directory, [&] { return document.lock(); });
  // Alone with the document, if nobody else has it open: then no writer of these files lives.
  document.in_use_ =
      KernelLock::try_take(directory + "/" + kInUseName, KernelLock::Mode::exclusive);
  if (document.in_use_) {
    remove_temporaries(directory);
    document.in_use_->downgrade();
  } else {
    document.in_use_.emplace(directory + "/" + kInUseName, KernelLock::Mode::shared, lock_seconds_);
  }
  create_missing(directory, info, token_ids, on_damage);
  return document;
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
