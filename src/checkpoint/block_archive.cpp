// SPDX-License-Identifier: Apache-2.0
#include "checkpoint/block_archive.h"

#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include <cerrno>
#include <charconv>
#include <chrono>
#include <cstring>
#include <thread>

#include "base/error.h"
#include "base/json.h"
#include "checkpoint/digest.h"
#include "checkpoint/document_file.h"
#include "checkpoint/file_io.h"

namespace starattn {
namespace {

constexpr int kLockSeconds = 60;

// An exclusive kernel lock on a file, released with it.
FileDescriptor lock(const std::string& path) {
  FileDescriptor file(::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0644));
  if (!file.valid()) fail(Exit::cannot_create, "cannot create {}: {}", path, std::strerror(errno));
  const auto give_up = std::chrono::steady_clock::now() + std::chrono::seconds(kLockSeconds);
  while (::flock(file.get(), LOCK_EX | LOCK_NB) != 0) {
    if (std::chrono::steady_clock::now() > give_up) {
      fail(Exit::io, "{} has been locked by another process for {} s", path, kLockSeconds);
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
  }
  return file;
}

Json to_json(const FileDigests& digests) {
  Json pieces = Json::array();
  for (const Digest& piece : digests.pieces) pieces.push_back(piece.hex());
  return {{"bytes", digests.n_bytes}, {"pieces", pieces}};
}

FileDigests from_json(const JsonObject& json) {
  FileDigests digests;
  digests.n_bytes = static_cast<std::uint64_t>(json.get_int("bytes", 0, INT64_MAX));
  const Json& pieces = json.get("pieces");
  if (!pieces.is_array() || pieces.size() != n_pieces_of(digests.n_bytes)) {
    fail(Exit::bad_data, "{}: pieces: expected {} digests", json.where(),
         n_pieces_of(digests.n_bytes));
  }
  for (const Json& piece : pieces) {
    const auto digest =
        piece.is_string() ? Digest::from_hex(piece.get<std::string>()) : std::nullopt;
    if (!digest)
      fail(Exit::bad_data, "{}: pieces: '{}' is no digest", json.where(), to_line(piece));
    digests.pieces.push_back(*digest);
  }
  return digests;
}

}  // namespace

BlockArchive::BlockArchive(const std::string& directory, DocumentInfo info)
    : path_(directory + "/" + info.key().hex()), info_(std::move(info)) {
  validate(info_, path_);
}

std::string BlockArchive::block_name(std::int64_t block) const {
  return fmt::format("block-{:05}.h5", block);
}

void BlockArchive::create(std::span<const std::int32_t> token_ids) {
  make_directories(path_);
  if (read_manifest().contains("document.h5")) return;
  TemporaryFile file(path_ + "/document.h5");
  write_document_file(file.path(), info_, token_ids);
  file.sync();
  const FileDigests digests = digest_file(file.fd(), file.path());
  VerifiedFile written(file.path(), digests);
  if (!std::equal(token_ids.begin(), token_ids.end(),
                  read_document_file(written, info_).token_ids.begin())) {
    fail(Exit::io, "{}: the token ids read back differ from those written", file.path());
  }
  file.publish();
  commit("document.h5", digests);
}

BlockArchive::Files BlockArchive::read_manifest() const {
  const std::string manifest = path_ + "/manifest.json";
  if (::access(manifest.c_str(), F_OK) != 0) return {};
  const Json json = read_json_file(manifest);
  const JsonObject object(json, manifest);
  if (object.get_int("format", 1, 1) != 1 || object.get_string("key") != info_.key().hex()) {
    fail(Exit::bad_data, "{}: key: expected {}, got {}", manifest, info_.key().hex(),
         object.get_string("key"));
  }
  Files files;
  const JsonObject entries = object.get_object("files");
  for (const auto& [name, entry] : entries.json().items()) {
    files[name] = from_json(JsonObject(entry, manifest + ": " + name));
  }
  return files;
}

void BlockArchive::commit(const std::string& name, const FileDigests& digests) const {
  const FileDescriptor held = lock(path_ + "/lock");
  Files files = read_manifest();
  files[name] = digests;
  Json entries = Json::object();
  for (const auto& [file, its_digests] : files) entries[file] = to_json(its_digests);
  const Json manifest = {{"format", 1},
                         {"key", info_.key().hex()},
                         {"n_tokens", info_.n_tokens},
                         {"plan", info_.plan},
                         {"n_blocks", info_.n_blocks},
                         {"kv_dtype", name_of(info_.kv_dtype)},
                         {"model", info_.model.hex()},
                         {"created_by", info_.provenance.program},
                         {"files", entries}};
  write_file_durably(path_ + "/manifest.json", manifest.dump(1) + "\n");
}

std::set<std::int64_t> BlockArchive::saved_blocks() const {
  std::set<std::int64_t> blocks;
  const Files files = read_manifest();
  for (std::int64_t block = 0; block < info_.n_blocks; ++block) {
    if (files.contains(block_name(block))) blocks.insert(block);
  }
  return blocks;
}

void BlockArchive::save(std::int64_t block, const KvSource& source) const {
  const std::string name = block_name(block);
  TemporaryFile file(path_ + "/" + name);
  const std::vector<Digest> given = write_block_file(file.path(), info_, block, source);
  file.sync();
  const FileDigests digests = digest_file(file.fd(), file.path());
  VerifiedFile written(file.path(), digests);
  if (digest_block_file(written, info_, block) != given) {
    fail(Exit::io, "{}: the values read back differ from those written", file.path());
  }
  file.publish();
  commit(name, digests);
}

void BlockArchive::load(std::int64_t block, const KvSink& sink) const {
  const Files files = read_manifest();
  const auto entry = files.find(block_name(block));
  if (entry == files.end())
    fail(Exit::bad_data, "{}: block {} is not in the manifest", path_, block);
  VerifiedFile file(path_ + "/" + entry->first, entry->second);
  read_block_file(file, info_, block, sink);
}

}  // namespace starattn
