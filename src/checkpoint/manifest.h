// SPDX-License-Identifier: Apache-2.0
// manifest.json, the commit point of a document: a block exists when the manifest lists it. Its
// text is a pure function of its contents, so any changed byte shows.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>

#include "base/error.h"
#include "checkpoint/digest.h"
#include "checkpoint/document_info.h"

namespace starattn {

constexpr int kFormatVersion = 1;
constexpr const char* kManifestName = "manifest.json";
constexpr const char* kDocumentName = "document.h5";
constexpr const char* kLockName = "lock";     // exclusive: while the manifest changes
constexpr const char* kInUseName = "in-use";  // shared: while a process has the document open

std::string block_name(std::int64_t block);                        // "block-00007.h5"
std::optional<std::int64_t> block_of_name(std::string_view name);  // the way back, exact
// "<name of ours>.tmp.<digits>": left behind by a writer that died.
bool is_temporary_name(std::string_view name);
// Everything that a document's directory may hold.
bool is_own_name(std::string_view name);

// The manifest is sound, but of a format that this program does not know: nothing to repair.
class OtherFormatVersion : public Error {
 public:
  using Error::Error;
};

struct Manifest {
  DocumentInfo info;  // provenance: program and created only
  FileDigests document;
  std::map<std::int64_t, FileDigests> blocks;  // committed ones

  std::string to_text() const;
  // Throws Error(bad_data) naming `where` and the field: malformed, its own digest wrong, sizes
  // impossible, or not byte for byte what to_text gives. OtherFormatVersion (bad_data, too).
  static Manifest from_text(std::string_view text, const std::string& where);
};

// Reads <directory>/manifest.json and checks that it is the manifest of that directory's key.
// nullopt where there is none. Throws bad_data or io.
std::optional<Manifest> read_manifest(const std::string& directory, const Digest& key);

// Replaces it durably; the document's lock must be held.
void write_manifest(const std::string& directory, const Manifest& manifest);

}  // namespace starattn
