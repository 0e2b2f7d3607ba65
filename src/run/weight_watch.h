// SPDX-License-Identifier: Apache-2.0
// The weights of a run are those that it read in the beginning. Their files are read through once,
// which gives the digests that a checkpoint knows its model by; from then on whoever commits a
// block or an answer asks first whether a file has changed.
#pragma once

#include <vector>

#include "backend/backend.h"
#include "checkpoint/digest.h"
#include "model/weights.h"
#include "mpi/communicator.h"

namespace starattn {

class WeightWatch {
 public:
  WeightWatch() = default;  // nothing has been read

  // Collective over the ranks. A device with memory of its own fetches the weights, and the digests
  // are of the very bytes that went there; else, and where devices keep some rows each (is_shared),
  // each of a node's ranks reads its share for the digests. Throws
  // AgreedError: io where a file changed meanwhile, bad_data where ranks see different files.
  WeightWatch(const ModelWeights& weights, Backend& backend, const Communicator& world,
              int n_threads, bool is_shared = false);

  // Of the model's files, by name.
  const std::vector<FileDigests>& digests() const { return digests_; }

  // Throws Error(io) naming the file that was written or cut off, or could not be read. What a
  // device has of its own does not change any more.
  void check();

 private:
  void check_files();
  void require_same_files(const Communicator& world, const Communicator& node) const;
  void require_same(const Communicator& world, const Digest& mine, const char* what) const;

  std::vector<MappedFile*> files_;
  std::vector<FileDigests> digests_;
  bool is_copied_ = false;
  int n_threads_ = 1;
};

}  // namespace starattn
