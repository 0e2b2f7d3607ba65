// SPDX-License-Identifier: Apache-2.0
#include "checkpoint/archive.h"

#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <utility>
#include <vector>

#include "base/error.h"
#include "base/text.h"
#include "checkpoint/document_file.h"
#include "checkpoint/verified_file.h"

namespace starattn {
namespace {

constexpr std::size_t kRecord = 512;  // tar's unit
constexpr std::uint64_t kMostManifestBytes = std::uint64_t{256} << 20;
constexpr std::size_t kNameBytes = 100;
constexpr std::size_t kSizeAt = 124, kSizeBytes = 12;
constexpr std::size_t kSumAt = 148, kSumBytes = 8;
constexpr std::size_t kTypeAt = 156, kMagicAt = 257;

using Header = std::array<char, kRecord>;

// Of all bytes, those of the sum itself counted as blanks.
unsigned sum_of(const Header& header) {
  unsigned sum = 0;
  for (std::size_t i = 0; i < kRecord; ++i) {
    const bool is_sum = i >= kSumAt && i < kSumAt + kSumBytes;
    sum += static_cast<unsigned char>(is_sum ? ' ' : header[i]);
  }
  return sum;
}

Header header_of(const std::string& name, std::uint64_t n_bytes) {
  STARATTN_CHECK(name.size() < kNameBytes);
  Header header{};
  const auto put = [&](std::size_t at, const std::string& text) {
    std::ranges::copy(text, header.begin() + static_cast<std::ptrdiff_t>(at));
  };
  put(0, name);
  put(100, "0000644");
  put(108, "0000000");  // nobody's user and group, and no date: equal documents give equal files
  put(116, "0000000");
  put(136, "00000000000");
  if (n_bytes >> 33 == 0) {
    put(kSizeAt, fmt::format("{:011o}", n_bytes));
  } else {
    header[kSizeAt] = static_cast<char>(0x80);
    for (std::size_t i = 0; i < 8; ++i)
      header[kSizeAt + kSizeBytes - 1 - i] = static_cast<char>(n_bytes >> (8 * i) & 0xff);
  }
  header[kTypeAt] = '0';
  put(kMagicAt, std::string("ustar\0"
                            "00",
                            8));
  put(kSumAt, fmt::format("{:06o}", sum_of(header)));
  header[kSumAt + 7] = ' ';
  return header;
}

std::size_t padding_of(std::uint64_t n_bytes) {
  return static_cast<std::size_t>((kRecord - n_bytes % kRecord) % kRecord);
}

class ArchiveWriter {
 public:
  explicit ArchiveWriter(const std::string& path) : file_(path) {}

  void add(const std::string& name, std::string_view bytes) {
    begin(name, bytes.size());
    file_.append(bytes);
    file_.append(std::string(padding_of(bytes.size()), '\0'));
  }
  void add(const std::string& name, VerifiedFile& from) {
    begin(name, from.n_bytes());
    std::vector<std::byte> piece;
    for (std::uint64_t at = 0; at < from.n_bytes(); at += piece.size()) {
      piece.resize(std::min<std::uint64_t>(kPieceBytes, from.n_bytes() - at));
      from.read(at, piece);
      file_.append({reinterpret_cast<const char*>(piece.data()), piece.size()});
    }
    file_.append(std::string(padding_of(from.n_bytes()), '\0'));
  }
  void finish() {
    file_.append(std::string(2 * kRecord, '\0'));
    file_.commit();
  }

 private:
  void begin(const std::string& name, std::uint64_t n_bytes) {
    const Header header = header_of(name, n_bytes);
    file_.append({header.data(), header.size()});
  }

  DurableFile file_;
};

class ArchiveReader {
 public:
  explicit ArchiveReader(const std::string& path) : path_(path), file_(open_to_read(path)) {}

  struct Entry {
    std::string name;
    std::uint64_t n_bytes = 0;
  };
  // The next file; an empty name at the end.
  Entry next() {
    skip(padding_);
    Header header;
    read(std::as_writable_bytes(std::span(header)));
    if (std::ranges::all_of(header, [](char c) { return c == 0; })) return {};
    const std::string sum(header.data() + kSumAt, 6);
    if (sum != fmt::format("{:06o}", sum_of(header)) || header[kTypeAt] != '0')
      refuse("no archive that 'checkpoints export' wrote");
    Entry entry{std::string(header.data(), ::strnlen(header.data(), kNameBytes)), size_in(header)};
    padding_ = padding_of(entry.n_bytes);
    return entry;
  }
  void read(std::span<std::byte> bytes) {
    for (std::size_t n_read = 0; n_read < bytes.size();) {
      const ssize_t n = ::read(file_.get(), bytes.data() + n_read, bytes.size() - n_read);
      if (n < 0 && errno == EINTR) continue;
      if (n < 0) fail(Exit::io, "reading {} failed: {}", path_, std::strerror(errno));
      if (n == 0) refuse("it ends too early");
      n_read += static_cast<std::size_t>(n);
    }
  }
  // The entry's bytes into a new file.
  void copy(std::uint64_t n_bytes, TemporaryFile& to) {
    std::vector<std::byte> piece;
    for (; n_bytes > 0; n_bytes -= piece.size()) {
      piece.resize(std::min<std::uint64_t>(kPieceBytes, n_bytes));
      read(piece);
      write_all(to.fd(), {reinterpret_cast<const char*>(piece.data()), piece.size()}, to.path());
    }
    to.sync();
  }
  void skip(std::uint64_t n_bytes) {
    std::vector<std::byte> piece;
    for (; n_bytes > 0; n_bytes -= piece.size()) {
      piece.resize(std::min<std::uint64_t>(kPieceBytes, n_bytes));
      read(piece);
    }
  }
  [[noreturn]] void refuse(const std::string& why) const {
    fail(Exit::bad_data, "{}: {}", path_, why);
  }

 private:
  std::uint64_t size_in(const Header& header) const {
    std::uint64_t size = 0;
    if (static_cast<unsigned char>(header[kSizeAt]) == 0x80) {
      for (std::size_t i = 4; i < kSizeBytes; ++i)
        size = size << 8 | static_cast<unsigned char>(header[kSizeAt + i]);
      return size;
    }
    for (std::size_t i = 0; i + 1 < kSizeBytes; ++i) {
      const char digit = header[kSizeAt + i];
      if (digit < '0' || digit > '7') refuse("no archive that 'checkpoints export' wrote");
      size = size * 8 + static_cast<std::uint64_t>(digit - '0');
    }
    return size;
  }

  std::string path_;
  FileDescriptor file_;
  std::uint64_t padding_ = 0;  // behind the last entry
};

Manifest read_manifest_in(ArchiveReader& archive, const std::string& path) {
  const ArchiveReader::Entry entry = archive.next();
  const std::string& name = entry.name;
  if (!name.ends_with(std::string("/") + kManifestName) || entry.n_bytes > kMostManifestBytes)
    archive.refuse("no archive that 'checkpoints export' wrote: a manifest comes first");
  std::string text(entry.n_bytes, '\0');
  archive.read(std::as_writable_bytes(std::span(text)));
  Manifest manifest = Manifest::from_text(text, path + ": " + one_line(name));
  if (name != manifest.info.key().hex() + "/" + kManifestName)
    archive.refuse("the manifest is of another document than its name says");
  return manifest;
}

// The next entry, which has to be this file of the document.
void expect(ArchiveReader& archive, const Manifest& manifest, const std::string& name,
            std::uint64_t n_bytes) {
  const ArchiveReader::Entry entry = archive.next();
  const std::string wanted = manifest.info.key().hex() + "/" + name;
  if (entry.name != wanted || entry.n_bytes != n_bytes) {
    archive.refuse(fmt::format("expected {} of {} bytes, got '{}' of {}", wanted, n_bytes,
                               one_line(entry.name), entry.n_bytes));
  }
}

}  // namespace

void export_document(const CheckpointStore& store, const Digest& key, const std::string& path) {
  if (exists(path))
    fail(Exit::cannot_create, "{} is there already; remove it, or choose another name", path);
  const DocumentCheckpoint document = store.open(key);  // nobody prunes it meanwhile
  const std::optional<Manifest> manifest = read_manifest(document.directory(), key);
  if (!manifest) fail(Exit::no_input, "no checkpoint {} in {}", key.hex(), store.directory());
  ArchiveWriter archive(path);
  const std::string folder = key.hex() + "/";
  archive.add(folder + kManifestName, manifest->to_text());
  const auto add = [&](const std::string& name, const FileDigests& digests) {
    VerifiedFile file(document.directory() + "/" + name, digests);
    archive.add(folder + name, file);
  };
  add(kDocumentName, manifest->document);
  for (const auto& [block, digests] : manifest->blocks) add(block_name(block), digests);
  archive.finish();
}

Imported import_document(const CheckpointStore& store, const std::string& path) {
  ArchiveReader archive(path);
  const Manifest manifest = read_manifest_in(archive, path);
  const std::string directory = store.directory() + "/" + manifest.info.key().hex();
  DocumentInfo info = manifest.info;
  std::vector<std::int32_t> token_ids;
  expect(archive, manifest, kDocumentName, manifest.document.n_bytes);
  {
    store.replace_what_is_no_folder(directory);
    make_directories(directory);
    TemporaryFile file(directory + "/" + kDocumentName);
    archive.copy(manifest.document.n_bytes, file);
    VerifiedFile checked(file.path(), manifest.document);
    SavedDocument saved = read_document_file(checked, info);
    info.provenance = std::move(saved.provenance);
    token_ids = std::move(saved.token_ids);
  }
  DocumentCheckpoint document = store.open_or_create(info, token_ids, OnDamage::rebuild);
  if (document.key() != manifest.info.key())
    archive.refuse("the token ids are of another document than the manifest");
  Imported imported{document.key()};
  for (const auto& [block, digests] : manifest.blocks) {
    expect(archive, manifest, block_name(block), digests.n_bytes);
    ++imported.n_blocks;
    TemporaryFile file(directory + "/" + block_name(block));
    archive.copy(digests.n_bytes, file);
    imported.n_new += document.add_block(block, file, digests);
  }
  if (!archive.next().name.empty()) archive.refuse("there is more in it than the manifest lists");
  return imported;
}

}  // namespace starattn
