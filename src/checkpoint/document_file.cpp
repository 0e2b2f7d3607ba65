// SPDX-License-Identifier: Apache-2.0
#include "checkpoint/document_file.h"

#include "base/error.h"
#include "checkpoint/fingerprint.h"
#include "checkpoint/hdf5_attributes.h"
#include "checkpoint/hdf5_structure.h"
#include "checkpoint/hdf5_verified.h"

namespace starattn {
namespace {

h5::Attributes attributes_of(const DocumentInfo& info) {
  return {{"format", "starattn document"},
          {"format_version", 1},
          {"key", info.key().hex()},
          {"n_tokens", info.n_tokens},
          {"token_digest", info.token_digest.hex()},
          {"plan", info.plan},
          {"block_size", info.block_size},
          {"anchor_size", info.anchor_size},
          {"reach", info.reach},
          {"n_blocks", info.n_blocks},
          {"kv_dtype", std::string(name_of(info.kv_dtype))},
          {"n_layers", info.n_layers},
          {"n_kv_heads", info.n_kv_heads},
          {"head_dim", info.head_dim},
          {"model_fingerprint", info.model.hex()},
          {"program", info.provenance.program},
          {"command_line", info.provenance.command_line},
          {"created", info.provenance.created},
          {"host", info.provenance.host}};
}

// Takes a string attribute out of the list: what is free to be anything.
std::string take(h5::Attributes& attributes, const char* name, const std::string& where) {
  const auto node = attributes.extract(name);
  const auto* text = node.empty() ? nullptr : std::get_if<std::string>(&node.mapped());
  if (!text) fail(Exit::bad_data, "{}: attribute '{}': expected a string", where, name);
  return *text;
}

Provenance take_provenance(h5::Attributes& attributes, const std::string& where) {
  Provenance provenance;
  provenance.program = take(attributes, "program", where);
  provenance.command_line = take(attributes, "command_line", where);
  provenance.created = take(attributes, "created", where);
  provenance.host = take(attributes, "host", where);
  return provenance;
}

}  // namespace

void write_document_file(const std::string& path, const DocumentInfo& info,
                         std::span<const std::int32_t> token_ids) {
  h5::File file = h5::create_file(path, 65536);
  h5::write_attributes(file, attributes_of(info));
  h5::create_dataset(file, "/token_ids", H5T_STD_I32LE, {token_ids.size()});
  h5::Dataset dataset(H5Dopen2(file, "/token_ids", H5P_DEFAULT), "open /token_ids of " + path);
  h5::check(H5Dwrite(dataset, H5T_STD_I32LE, H5S_ALL, H5S_ALL, H5P_DEFAULT, token_ids.data()),
            "write /token_ids of " + path);
  dataset.close("close /token_ids of " + path);
  h5::check(H5Fflush(file, H5F_SCOPE_GLOBAL), "flush " + path);
  file.close("close " + path);
}

SavedDocument read_document_file(VerifiedFile& file, const DocumentInfo& info) {
  SavedDocument document;
  h5::with_verified_file(file, [&](hid_t opened) {
    h5::Attributes found = h5::read_attributes(opened, file.path());
    h5::Attributes expected = attributes_of(info);
    document.provenance = take_provenance(found, file.path());
    take_provenance(expected, file.path());
    h5::expect_equal(found, expected, file.path());
    h5::expect_links(opened, {"token_ids"}, file.path());
    const h5::Dataset dataset =
        h5::open_dataset(opened, "token_ids", H5T_STD_I32LE, {static_cast<hsize_t>(info.n_tokens)},
                         file.path() + ": /token_ids");
    document.token_ids.resize(static_cast<std::size_t>(info.n_tokens));
    h5::check(
        H5Dread(dataset, H5T_STD_I32LE, H5S_ALL, H5S_ALL, H5P_DEFAULT, document.token_ids.data()),
        "read /token_ids");
  });
  const Digest found = digest_of_tokens(document.token_ids);
  if (found != info.token_digest) {
    fail(Exit::bad_data, "{}: /token_ids: expected digest {}, got {}", file.path(),
         info.token_digest.hex(), found.hex());
  }
  return document;
}

}  // namespace starattn
