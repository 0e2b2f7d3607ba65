// SPDX-License-Identifier: Apache-2.0
#include "run/weight_watch.h"

#include <algorithm>
#include <cstddef>
#include <functional>

#include "base/error.h"
#include "mpi/runtime.h"
#include "trace/range.h"

namespace starattn {
namespace {

// Onto the device, file by file and tensor by tensor as they lie there. What lies between them, the
// header and tensors that the model has no use for, is read in passing.
std::vector<FileDigests> load_and_digest(const ModelWeights& weights, Backend& backend,
                                         const std::vector<MappedFile*>& files) {
  std::vector<WeightView> in_order = weights.all();
  std::ranges::sort(in_order, {}, &WeightView::data);
  std::vector<FileDigests> digests;
  for (const MappedFile* file : files) {
    const std::span<const std::byte> bytes = file->bytes();
    PieceDigests digest;
    std::size_t at = 0;
    for (const WeightView& weight : in_order) {
      // What is made of a file's bytes, such as packed experts, does not lie in it.
      const std::less<const std::byte*> is_before;
      if (weights.name_of(weight).file != file || is_before(weight.data, bytes.data()) ||
          !is_before(weight.data, bytes.data() + bytes.size()))
        continue;
      const auto begin = static_cast<std::size_t>(weight.data - bytes.data());
      digest.add(bytes.subspan(at, begin - at));
      backend.load(weight, [&](std::span<const std::byte> read) { digest.add(read); });
      at = begin + weight.n_bytes();
    }
    digest.add(bytes.subspan(at));
    digests.push_back(digest.value());
  }
  return digests;
}

FileDigests digest_of_file(const MappedFile& file, int n_threads) {
  return {file.bytes().size(), digest_pieces(file.bytes(), 0, 1, n_threads)};
}

// Each rank of the node reads every n-th piece. Collective over the node.
FileDigests digest_together(const MappedFile& file, const Communicator& node, int n_threads) {
  const auto n_ranks = static_cast<std::size_t>(node.size());
  const std::vector<Digest> mine =
      digest_pieces(file.bytes(), static_cast<std::size_t>(node.rank()), n_ranks, n_threads);
  const std::size_t n_pieces = n_pieces_of(file.bytes().size());
  std::vector<std::size_t> counts;
  for (std::size_t rank = 0; rank < n_ranks; ++rank)
    counts.push_back((n_pieces + n_ranks - 1 - rank) / n_ranks * sizeof(Digest));
  std::vector<Digest> by_rank(n_pieces);
  node.allgatherv(std::as_bytes(std::span(mine)), counts,
                  std::as_writable_bytes(std::span(by_rank)));
  FileDigests digests{file.bytes().size(), {}};
  digests.pieces.resize(n_pieces);
  auto next = by_rank.begin();
  for (std::size_t rank = 0; rank < n_ranks; ++rank)
    for (std::size_t piece = rank; piece < n_pieces; piece += n_ranks)
      digests.pieces[piece] = *next++;
  return digests;
}

Digest digest_of_sizes(const std::vector<MappedFile*>& files) {
  StreamDigest sizes;
  for (const MappedFile* file : files) sizes.add(fmt::format("{} ", file->bytes().size()));
  return sizes.value();
}

Digest digest_of_all(const std::vector<FileDigests>& files) {
  StreamDigest all;
  for (const FileDigests& file : files) all.add(std::as_bytes(std::span(file.pieces)));
  return all.value();
}

}  // namespace

WeightWatch::WeightWatch(const ModelWeights& weights, Backend& backend, const Communicator& world,
                         int n_threads, bool is_shared)
    : files_(weights.files()), is_copied_(!backend.is_host_memory()), n_threads_(n_threads) {
  const trace::Range range("read weights", trace::Lane::files);
  const Communicator node = world.split_by_node();
  require_same(world, digest_of_sizes(files_), "sizes");
  require_same_files(world, node);
  const bool reads_all = is_copied_ && !is_shared;
  collectively(world, [&] {
    if (reads_all) digests_ = load_and_digest(weights, backend, files_);
    if (is_shared)
      for (const WeightView& weight : weights.all()) backend.load(weight);
  });
  if (!reads_all)
    for (const MappedFile* file : files_)
      digests_.push_back(digest_together(*file, node, n_threads));
  collectively(world, [&] { check_files(); });
  require_same(world, digest_of_all(digests_), "bytes");
}

// A folder may be replaced while the ranks open it.
void WeightWatch::require_same_files(const Communicator& world, const Communicator& node) const {
  const MappedFile* replaced = nullptr;
  for (const MappedFile* file : files_)
    if (file->identity() != node.allgather(file->identity())[0]) replaced = file;
  collectively(world, [&] {
    if (replaced)
      fail(Exit::io, "{} was replaced while the ranks opened it; run the same command again",
           replaced->path());
  });
}

// On nodes with disks of their own, files of one name may be different ones.
void WeightWatch::require_same(const Communicator& world, const Digest& mine,
                               const char* what) const {
  const std::vector<Digest> all = world.allgather(mine);
  collectively(world, [&] {
    if (mine != all[0])
      fail(Exit::bad_data, "{}: on {} the weights have other {} than those that rank 0 sees",
           parent_directory(files_.front()->path()), host_name(), what);
  });
}

void WeightWatch::check() {
  if (!is_copied_) check_files();
}

void WeightWatch::check_files() {
  for (std::size_t i = 0; i < files_.size(); ++i) {
    MappedFile& file = *files_[i];
    try {
      file.check_unchanged();
      if (!file.has_new_attributes()) continue;
      // Renamed or deleted, which leaves the mapping as it was, or written and given its old time.
      const FileDigests now = digest_of_file(file, n_threads_);
      if (i < digests_.size() && now != digests_[i])
        fail(Exit::io, "{} has changed while it was in use: its bytes differ", file.path());
      file.check_unchanged();
      file.accept_attributes();
    } catch (const Error& error) {
      throw Error(error.exit(),
                  fmt::format("{}. Nothing of it is kept; run the same command again, with the "
                              "model's files left as they are meanwhile (a new version goes into a "
                              "folder of its own, or replaces the old one by rename)",
                              error.what()));
    }
  }
}

}  // namespace starattn
