// SPDX-License-Identifier: Apache-2.0
#include "mpi/node_memory.h"

#include <algorithm>
#include <cstdint>
#include <exception>

namespace starattn {
namespace {

constexpr std::size_t kPage = 4096;

}  // namespace

std::optional<NodeMemory> NodeMemory::create(const Communicator& node, std::size_t n_bytes) {
  // The first rank's part is all there is; a page more, since MPI promises no alignment.
  const auto size = static_cast<MPI_Aint>(node.is_root() ? n_bytes + kPage : 0);
  void* own = nullptr;
  MPI_Win window = MPI_WIN_NULL;
  const bool is_made =
      MPI_Win_allocate_shared(size, 1, MPI_INFO_NULL, node.comm_, &own, &window) == MPI_SUCCESS;
  const std::vector<char> made = node.allgather(static_cast<char>(is_made));
  if (std::count(made.begin(), made.end(), 1) != node.size()) return {};
  MPI_Aint n_shared = 0;
  int unit = 0;
  void* first = nullptr;
  if (MPI_Win_shared_query(window, 0, &n_shared, &unit, &first) != MPI_SUCCESS)
    fail(Exit::unfit, "MPI made memory that this node's ranks share, but does not say where it is");
  // The address differs from rank to rank, its place within a page does not.
  const auto gap = (kPage - reinterpret_cast<std::uintptr_t>(first) % kPage) % kPage;
  return NodeMemory(window, {static_cast<std::byte*>(first) + gap, n_bytes});
}

NodeMemory::~NodeMemory() {
  int ended = 0;
  MPI_Finalized(&ended);
  // While an exception is on its way out the other ranks may never reach this collective call.
  if (window_ != MPI_WIN_NULL && !ended && std::uncaught_exceptions() == 0) MPI_Win_free(&window_);
}

}  // namespace starattn
