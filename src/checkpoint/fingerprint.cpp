// SPDX-License-Identifier: Apache-2.0
#include "checkpoint/fingerprint.h"

#include <sys/mman.h>

#include <algorithm>
#include <atomic>
#include <thread>

#include "base/error.h"
#include "base/file.h"

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

// The digests of the file's pieces, in order. Threads take whole pieces, so their number never
// shows in the result.
std::vector<Digest> digest_pieces(std::span<const std::byte> bytes, int n_threads) {
  std::vector<Digest> pieces(n_pieces_of(bytes.size()));
  std::atomic<std::size_t> next{0};
  const auto work = [&] {
    for (std::size_t i = next++; i < pieces.size(); i = next++) {
      const std::size_t begin = i * kPieceBytes;
      const auto piece = bytes.subspan(begin, std::min(kPieceBytes, bytes.size() - begin));
      // Only advice: asks for the piece in one go rather than page by page.
      ::madvise(const_cast<std::byte*>(piece.data()), piece.size(), MADV_WILLNEED);
      pieces[i] = digest_of(piece);
    }
  };
  std::vector<std::jthread> helpers;
  for (int i = 1; i < n_threads; ++i) helpers.emplace_back(work);
  work();
  helpers.clear();
  return pieces;
}

Digest digest_weights_file(const std::string& path, int n_threads) {
  const MappedFile file(path);
  FieldDigest digest("starattn weights 1");
  digest.add(std::to_string(file.bytes().size()));
  for (const Digest& piece : digest_pieces(file.bytes(), n_threads)) digest.add(piece.hex());
  return digest.value();
}

}  // namespace

Digest model_fingerprint(std::string_view canonical_config,
                         const std::vector<std::string>& safetensors_files, int n_threads) {
  std::vector<Digest> files;
  for (const std::string& path : safetensors_files) {
    files.push_back(digest_weights_file(path, n_threads));
  }
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
