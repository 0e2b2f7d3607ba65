// SPDX-License-Identifier: Apache-2.0
#include "checkpoint/fingerprint.h"

#include <algorithm>

#include "base/error.h"

namespace starattn {
namespace {

// Fields are joined with their lengths, so that no two lists of fields give the same bytes.
class FieldDigest {
 public:
  explicit FieldDigest(std::string_view domain) { add(domain); }
  void add(std::string_view field) {
    stream_.add(fmt::format("{}:", field.size()));
    stream_.add(field);
  }
  Digest value() const { return stream_.value(); }

 private:
  StreamDigest stream_;
};

Digest digest_weights_file(const FileDigests& file) {
  FieldDigest digest("starattn weights 1");
  digest.add(std::to_string(file.n_bytes));
  for (const Digest& piece : file.pieces) digest.add(piece.hex());
  return digest.value();
}

}  // namespace

Digest model_fingerprint(std::string_view canonical_config,
                         const std::vector<FileDigests>& safetensors_files) {
  std::vector<Digest> files;
  for (const FileDigests& file : safetensors_files) files.push_back(digest_weights_file(file));
  std::sort(files.begin(), files.end());  // names and their order mean nothing
  FieldDigest digest("starattn model 1");
  digest.add(canonical_config);
  for (const Digest& file : files) digest.add(file.hex());
  return digest.value();
}

Digest sampled_fingerprint(std::string_view canonical_config,
                           const std::vector<std::span<const std::byte>>& tensors) {
  constexpr std::size_t kSampleBytes = 4096;
  FieldDigest digest("starattn model sample 1");
  digest.add(canonical_config);
  for (const std::span<const std::byte> tensor : tensors) {
    digest.add(std::to_string(tensor.size()));
    digest.add(digest_of(tensor.first(std::min(kSampleBytes, tensor.size()))).hex());
  }
  return digest.value();
}

Digest digest_of_tokens(std::span<const std::int32_t> token_ids) {
  return digest_of(std::as_bytes(token_ids));
}

Digest document_key(std::int64_t n_tokens, const Digest& token_digest,
                    std::string_view canonical_plan, Dtype kv_dtype, const Digest& model) {
  FieldDigest digest("starattn document 1");
  digest.add(std::to_string(n_tokens));
  digest.add(token_digest.hex());
  digest.add(canonical_plan);
  digest.add(name_of(kv_dtype));
  digest.add(model.hex());
  return digest.value();
}

}  // namespace starattn
