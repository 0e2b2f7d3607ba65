// SPDX-License-Identifier: Apache-2.0
#include "checkpoint/document_checkpoint.h"

#include <sys/stat.h>
#include <unistd.h>

#include <utility>

#include "base/error.h"
#include "checkpoint/block_file.h"
#include "checkpoint/document_file.h"
#include "checkpoint/file_io.h"
#include "checkpoint/verified_file.h"

namespace starattn {
namespace {

bool has_size(const std::string& path, std::uint64_t n_bytes) {
  struct stat info {};
  return ::lstat(path.c_str(), &info) == 0 && S_ISREG(info.st_mode) &&
         static_cast<std::uint64_t>(info.st_size) == n_bytes;
}

// What was written, seen through the same checks that a reader makes later.
FileDigests verify_written(const TemporaryFile& file, const DocumentInfo& info, std::int64_t block,
                           const std::vector<Digest>& given) {
  FileDigests digests = digest_file(file.fd(), file.path());
  read_back(file.path(), [&] {
    VerifiedFile written(file.path(), digests);
    return digest_block_file(written, info, block) == given;
  });
  return digests;
}

}  // namespace

DocumentCheckpoint::DocumentCheckpoint(DocumentInfo info, std::string directory,
                                       double lock_seconds)
    : info_(std::move(info)),
      key_(info_.key()),
      directory_(std::move(directory)),
      lock_seconds_(lock_seconds) {}

KernelLock DocumentCheckpoint::lock() const {
  return {path_of(kLockName), KernelLock::Mode::exclusive, lock_seconds_};
}

Manifest DocumentCheckpoint::manifest() const {
  std::optional<Manifest> manifest = read_manifest(directory_, key_);
  if (!manifest) {
    fail(Exit::no_input, "{} is gone: another process deleted this checkpoint",
         path_of(kManifestName));
  }
  return std::move(*manifest);
}

const FileDigests& DocumentCheckpoint::entry(const Manifest& manifest, std::int64_t block) const {
  const auto it = manifest.blocks.find(block);
  if (it == manifest.blocks.end()) {
    fail(Exit::no_input, "{}: block {} of {} has not been saved (the manifest does not list it)",
         path_of(block_name(block)), block, info_.n_blocks);
  }
  return it->second;
}

void DocumentCheckpoint::note_name(const std::string& id) const {
  if (in_use_) in_use_->leave_note(id);
}

std::vector<std::int64_t> DocumentCheckpoint::blocks_present() const {
  std::vector<std::int64_t> present;
  for (const auto& [block, file] : manifest().blocks) {
    if (has_size(path_of(block_name(block)), file.n_bytes)) present.push_back(block);
  }
  return present;
}

bool DocumentCheckpoint::write_block(std::int64_t block, std::int64_t first_token,
                                     std::int64_t n_tokens, const KvSource& source) {
  STARATTN_CHECK(block >= 0 && block < info_.n_blocks);
  STARATTN_CHECK(first_token == info_.first_token(block) && n_tokens == info_.n_tokens_of(block));
  TemporaryFile file(path_of(block_name(block)));
  const std::vector<Digest> given = write_block_file(file.path(), info_, block, source);
  file.sync();
  return commit_block(block, file, verify_written(file, info_, block, given));
}

bool DocumentCheckpoint::add_block(std::int64_t block, TemporaryFile& file,
                                   const FileDigests& digests) {
  STARATTN_CHECK(block >= 0 && block < info_.n_blocks);
  VerifiedFile written(file.path(), digests);
  digest_block_file(written, info_, block);
  return commit_block(block, file, digests);
}

bool DocumentCheckpoint::commit_block(std::int64_t block, TemporaryFile& file,
                                      FileDigests digests) {
  const KernelLock held = lock();
  Manifest now = manifest();
  const std::string path = path_of(block_name(block));
  const auto listed = now.blocks.find(block);
  if (listed != now.blocks.end()) {
    if (has_size(path, listed->second.n_bytes)) return false;
    // The listed file is gone or cut off. First unlist it: between the rename and the new manifest
    // the block must count as absent, not as damaged.
    now.blocks.erase(listed);
    write_manifest(directory_, now);
  }
  file.publish();
  now.blocks[block] = std::move(digests);
  write_manifest(directory_, now);
  return true;
}

void DocumentCheckpoint::read_block(std::int64_t block, const KvSink& sink) const {
  STARATTN_CHECK(block >= 0 && block < info_.n_blocks);
  FileDigests listed = entry(manifest(), block);
  for (;;) {
    try {
      VerifiedFile file(path_of(block_name(block)), listed);
      return read_block_file(file, info_, block, sink);
    } catch (const Error& error) {
      if (error.exit() != Exit::bad_data && error.exit() != Exit::no_input) throw;
      // Another process may have replaced the block between the manifest and the file.
      FileDigests again = entry(manifest(), block);
      if (again == listed) {
        throw Error(error.exit(), fmt::format("{}. Delete {} to have block {} encoded again",
                                              error.what(), path_of(block_name(block)), block));
      }
      listed = std::move(again);
    }
  }
}

std::optional<std::string> DocumentCheckpoint::damage(std::int64_t block,
                                                      const FileDigests& listed) const {
  try {
    VerifiedFile file(path_of(block_name(block)), listed);
    digest_block_file(file, info_, block);
    return std::nullopt;
  } catch (const Error& error) {
    return error.what();
  }
}

std::optional<std::string> DocumentCheckpoint::damage_of(std::int64_t block) const {
  STARATTN_CHECK(block >= 0 && block < info_.n_blocks);
  try {
    return damage(block, entry(manifest(), block));
  } catch (const Error& error) {
    return error.what();
  }
}

std::optional<std::string> DocumentCheckpoint::discard_if_damaged(std::int64_t block) {
  STARATTN_CHECK(block >= 0 && block < info_.n_blocks);
  const Manifest before = manifest();
  const auto judged = before.blocks.find(block);
  if (judged == before.blocks.end()) return "it has not been saved";
  std::optional<std::string> reason = damage(block, judged->second);
  if (!reason) return std::nullopt;
  const KernelLock held = lock();
  Manifest now = manifest();
  const auto listed = now.blocks.find(block);
  // Somebody may have written it anew in the meantime; that one is not ours to judge.
  if (listed != now.blocks.end() && listed->second == judged->second) {
    now.blocks.erase(listed);
    write_manifest(directory_, now);
  }
  return reason;
}

void DocumentCheckpoint::withdraw(std::int64_t block) {
  const KernelLock held = lock();
  Manifest now = manifest();
  if (now.blocks.erase(block) == 0) return;
  write_manifest(directory_, now);
  ::unlink(path_of(block_name(block)).c_str());
}

std::vector<std::int32_t> DocumentCheckpoint::read_token_ids() const {
  VerifiedFile file(path_of(kDocumentName), manifest().document);
  return read_document_file(file, info_).token_ids;
}

}  // namespace starattn
