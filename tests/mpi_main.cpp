// SPDX-License-Identifier: Apache-2.0
// Runs GoogleTest on every rank. Rank 0 prints; another rank prints only what fails. A failure on
// any rank fails the run.
#include <gtest/gtest.h>
#include <mpi.h>

int main(int argc, char** argv) {
  MPI_Init(&argc, &argv);
  ::testing::InitGoogleTest(&argc, argv);
  int rank = 0;
  MPI_Comm_rank(MPI_COMM_WORLD, &rank);
  if (rank != 0) {
    auto& listeners = ::testing::UnitTest::GetInstance()->listeners();
    delete listeners.Release(listeners.default_result_printer());
  }
  int failed = RUN_ALL_TESTS();
  if (rank != 0 && failed) {
    const auto& unit = *::testing::UnitTest::GetInstance();
    std::fprintf(stderr, "rank %d: %d test(s) failed\n", rank, unit.failed_test_count());
  }
  int any = 0;
  MPI_Allreduce(&failed, &any, 1, MPI_INT, MPI_MAX, MPI_COMM_WORLD);
  MPI_Finalize();
  return any;
}
