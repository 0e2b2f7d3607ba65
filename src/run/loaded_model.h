// SPDX-License-Identifier: Apache-2.0
// Everything a computing command stands on: the ranks in their groups, the model, the tokenizer,
// the backend, the decoder; and the banner that says so before anything is loaded.
#pragma once

#include <memory>
#include <string>

#include "backend/backend.h"
#include "base/log.h"
#include "base/memory_limit.h"
#include "model/decoder.h"
#include "model/weights.h"
#include "mpi/communicator.h"
#include "run/answering.h"
#include "run/options.h"
#include "run/text_model.h"
#include "run/weight_values.h"
#include "run/weight_watch.h"

namespace starattn {

// The ranks of the job, and the group that works on one document.
struct Ranks {
  Communicator world;
  Communicator group;
  int group_index = 0;
  int n_groups = 1;
  int node_rank = 0;          // among the ranks of this node
  int n_threads = 1;          // of this rank
  bool shares_cores = false;  // somewhere in the job, ranks are more than cores

  bool is_first() const { return world.rank() == 0; }
};

// Collective. Throws AgreedError for a launcher that started single ranks, or too many ranks a
// group.
Ranks arrange_ranks(const RankOptions& options);

// --device auto takes a GPU where there is one: the only visible one, or the node's ranks in turn.
// Throws Error(unfit | usage).
std::unique_ptr<Backend> make_backend(const DeviceOptions& options, const Ranks& ranks);

// The ranks of `comm` that share this one's node, or its GPU where the backend computes on one.
// Collective over comm.
Communicator sharers_of_device(const Communicator& comm, const Ranks& ranks,
                               const Backend& backend);

struct LoadedModel : TextModel {
  ModelWeights weights;
  std::unique_ptr<Backend> backend;
  std::uint64_t weight_bytes = 0;         // in the memory of a rank's device; on the CPU, of a node
  std::uint64_t pinned_weight_bytes = 0;  // of a rank in its host's memory (--weight-memory)
  // Of the weights, where ranks share a node or a GPU: files are mapped once, what is made of them
  // is a rank's own.
  std::uint64_t n_copies(std::size_t n_sharers) const {
    return backend->is_host_memory() && !weights.are_made() ? 1 : n_sharers;
  }
  WeightSharing sharing;
  std::unique_ptr<Decoder> decoder;
  std::unique_ptr<Answering> answering;  // of this rank's group
  WeightWatch watch;                     // of the weights' files
  Digest weights_sample;                 // sampled_fingerprint
  std::vector<Token> eos_tokens;
  std::vector<Rank> sharers;  // ranks of this group that share this one's node (or GPU), itself too
  // Bytes that this rank may take beside the weights: all ranks of the job that share a node (or a
  // GPU) have equal parts of what that has left.
  std::uint64_t memory_share = 0;
  bool shares_device = false;  // somewhere in the job, ranks compute on one GPU or the same cores
};

// Collective: opens the model on every rank. The result refers to itself, hence the unique_ptr, and
// to the ranks.
std::unique_ptr<LoadedModel> open_model(const Options& options, const Ranks& ranks);

// The start banner, from rank 0: version, MPI, ranks with hosts and threads, model, settings.
void print_banner(const Ranks& ranks, const LoadedModel& model);

// The final table, from rank 0: seconds by phase (min, mean, max over ranks, slowest rank), bytes
// moved, context tokens a second, peak memory. n_context_tokens: this rank's. Collective.
void print_phase_table(const Ranks& ranks, double total_seconds, std::int64_t n_context_tokens);

}  // namespace starattn
