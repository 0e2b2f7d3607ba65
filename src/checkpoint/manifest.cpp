// SPDX-License-Identifier: Apache-2.0
#include "checkpoint/manifest.h"

#include <algorithm>
#include <charconv>

#include "base/error.h"
#include "base/json.h"
#include "base/text.h"
#include "checkpoint/file_io.h"

namespace starattn {
namespace {

constexpr const char* kFormat = "starattn checkpoint";
constexpr std::int64_t kMaxFileBytes = std::int64_t{1} << 56;
constexpr std::size_t kMaxManifestBytes = std::size_t{1} << 28;
constexpr const char* kAdvice = "delete the directory to encode the document again";

std::string clean(const std::string& text) {
  return is_utf8(text) ? text : "(not UTF-8)";
}

Json json_of(const FileDigests& file) {
  Json pieces = Json::array();
  for (const Digest& piece : file.pieces) pieces.push_back(piece.hex());
  return {{"bytes", file.n_bytes}, {"digests", std::move(pieces)}};
}

Json json_of(const DocumentInfo& info) {
  return {{"n_tokens", info.n_tokens},
          {"token_digest", info.token_digest.hex()},
          {"plan", info.plan},
          {"block_size", info.block_size},
          {"anchor_size", info.anchor_size},
          {"reach", info.reach},
          {"n_blocks", info.n_blocks},
          {"kv_dtype", name_of(info.kv_dtype)},
          {"n_layers", info.n_layers},
          {"n_kv_heads", info.n_kv_heads},
          {"head_dim", info.head_dim},
          {"model_fingerprint", info.model.hex()},
          {"program", clean(info.provenance.program)},
          {"created", clean(info.provenance.created)}};
}

Json json_of(const Manifest& manifest) {
  Json files;
  files[kDocumentName] = json_of(manifest.document);
  for (const auto& [block, file] : manifest.blocks) files[block_name(block)] = json_of(file);
  return {{"format", kFormat},
          {"format_version", kFormatVersion},
          {"key", manifest.info.key().hex()},
          {"document", json_of(manifest.info)},
          {"piece_bytes", kPieceBytes},
          {"files", std::move(files)}};
}

// The digest covers the text without its last member.
std::string text_of(Json json) {
  json["digest"] = digest_of(json.dump(1)).hex();
  return json.dump(1) + "\n";
}

Digest parse_digest(const std::string& text, const std::string& where) {
  const std::optional<Digest> digest = Digest::from_hex(text);
  if (!digest) fail(Exit::bad_data, "{}: expected 32 hexadecimal digits", where);
  return *digest;
}

Digest get_digest(const JsonObject& object, const char* key) {
  return parse_digest(object.get_string(key), fmt::format("{}: key '{}'", object.where(), key));
}

DocumentInfo parse_info(const JsonObject& object) {
  const auto number = [&](const char* key) { return object.get_int(key, 0, INT64_MAX); };
  DocumentInfo info;
  info.n_tokens = number("n_tokens");
  info.token_digest = get_digest(object, "token_digest");
  info.plan = object.get_string("plan");
  info.block_size = number("block_size");
  info.anchor_size = number("anchor_size");
  info.reach = number("reach");
  info.n_blocks = number("n_blocks");
  try {
    info.kv_dtype = dtype_from_name(object.get_string("kv_dtype"));
  } catch (const Error& error) {
    fail(Exit::bad_data, "{}: key 'kv_dtype': {}", object.where(), error.what());
  }
  info.n_layers = number("n_layers");
  info.n_kv_heads = number("n_kv_heads");
  info.head_dim = number("head_dim");
  info.model = get_digest(object, "model_fingerprint");
  info.provenance.program = object.get_string("program");
  info.provenance.created = object.get_string("created");
  validate(info, object.where());
  return info;
}

FileDigests parse_file(const JsonObject& object) {
  FileDigests file;
  file.n_bytes = static_cast<std::uint64_t>(object.get_int("bytes", 1, kMaxFileBytes));
  const Json& pieces = object.get("digests");
  if (!pieces.is_array() || pieces.size() != n_pieces_of(file.n_bytes)) {
    fail(Exit::bad_data, "{}: key 'digests': expected a list of {} for {} bytes", object.where(),
         n_pieces_of(file.n_bytes), file.n_bytes);
  }
  for (const Json& piece : pieces) {
    const std::string where = object.where() + ": key 'digests'";
    if (!piece.is_string()) fail(Exit::bad_data, "{}: expected strings", where);
    file.pieces.push_back(parse_digest(piece.get<std::string>(), where));
  }
  return file;
}

void parse_files(const JsonObject& files, Manifest& manifest) {
  for (const auto& [name, value] : files.json().items()) {
    const JsonObject file(value, fmt::format("{}: '{}'", files.where(), name.substr(0, 80)));
    if (name == kDocumentName) {
      manifest.document = parse_file(file);
      continue;
    }
    const std::optional<std::int64_t> block = block_of_name(name);
    if (!block || *block >= manifest.info.n_blocks) {
      fail(Exit::bad_data, "{}: no file of this document has that name", file.where());
    }
    manifest.blocks[*block] = parse_file(file);
  }
  if (manifest.document.n_bytes == 0) {
    fail(Exit::bad_data, "{}: '{}' is missing", files.where(), kDocumentName);
  }
}

void check_own_digest(const JsonObject& top) {
  Json rest = top.json();
  rest.erase("digest");
  const Digest found = digest_of(rest.dump(1));
  const Digest stated = get_digest(top, "digest");
  if (found != stated) {
    fail(Exit::bad_data,
         "{}: key 'digest': the contents give {}, it says {}: changed or damaged; {}", top.where(),
         found.hex(), stated.hex(), kAdvice);
  }
}

bool all_digits(std::string_view text, bool hexadecimal) {
  return !text.empty() && std::all_of(text.begin(), text.end(), [&](char c) {
    return (c >= '0' && c <= '9') || (hexadecimal && c >= 'a' && c <= 'f');
  });
}

}  // namespace

std::string block_name(std::int64_t block) {
  return fmt::format("block-{:05d}.h5", block);
}

std::optional<std::int64_t> block_of_name(std::string_view name) {
  constexpr std::string_view kBefore = "block-";
  constexpr std::string_view kAfter = ".h5";
  if (!name.starts_with(kBefore) || !name.ends_with(kAfter) || name.size() > 20) return {};
  const std::string_view digits =
      name.substr(kBefore.size(), name.size() - kBefore.size() - kAfter.size());
  std::int64_t block = 0;
  if (!all_digits(digits, false)) return std::nullopt;
  std::from_chars(digits.data(), digits.data() + digits.size(), block);
  if (block_name(block) != name) return std::nullopt;
  return block;
}

bool is_temporary_name(std::string_view name) {
  const std::size_t at = name.find(".tmp.");
  if (at == std::string_view::npos || !all_digits(name.substr(at + 5), true)) return false;
  const std::string_view base = name.substr(0, at);
  return base == kManifestName || base == kDocumentName || block_of_name(base);
}

bool is_own_name(std::string_view name) {
  return name == kManifestName || name == kDocumentName || name == kLockName ||
         name == kInUseName || block_of_name(name) || is_temporary_name(name);
}

std::string Manifest::to_text() const {
  return text_of(json_of(*this));
}

Manifest Manifest::from_text(std::string_view text, const std::string& where) {
  const Json json = parse_json(text, where, {kMaxManifestBytes, 8});
  const JsonObject top(json, where);
  if (top.get_string("format") != kFormat) {
    fail(Exit::bad_data, "{}: key 'format': expected '{}'", where, kFormat);
  }
  const std::int64_t version = top.get_int("format_version", 0, INT32_MAX);
  if (version != kFormatVersion) {
    throw OtherFormatVersion(
        Exit::bad_data,
        fmt::format("{}: key 'format_version': this program reads {}, the file has {}; use the "
                    "program that wrote it, or another checkpoint directory",
                    where, kFormatVersion, version));
  }
  check_own_digest(top);
  Manifest manifest;
  manifest.info = parse_info(top.get_object("document"));
  parse_files(top.get_object("files"), manifest);
  if (manifest.to_text() != text) {
    fail(Exit::bad_data, "{}: not in the exact form that this program writes; {}", where, kAdvice);
  }
  return manifest;
}

std::optional<Manifest> read_manifest(const std::string& directory, const Digest& key) {
  const std::string path = directory + "/" + kManifestName;
  if (!exists(path)) return std::nullopt;
  const std::string text = read_regular(path, kMaxManifestBytes);
  Manifest manifest = Manifest::from_text(text, path);
  if (manifest.info.key() != key) {
    fail(Exit::bad_data, "{}: key: expected {} as the directory is named, got {}", path, key.hex(),
         manifest.info.key().hex());
  }
  return manifest;
}

void write_manifest(const std::string& directory, const Manifest& manifest) {
  TemporaryFile file(directory + "/" + kManifestName);
  write_all(file.fd(), manifest.to_text(), file.path());
  file.sync();
  file.publish();
}

}  // namespace starattn
