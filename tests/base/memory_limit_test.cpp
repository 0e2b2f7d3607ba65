// SPDX-License-Identifier: Apache-2.0
#include "base/memory_limit.h"

#include <gtest/gtest.h>

#include <filesystem>

#include "../temporary_folder.h"

namespace starattn {
namespace {

class ControlGroups : public ::testing::Test {
 protected:
  void put(const std::string& file, const std::string& text) const {
    std::filesystem::create_directories(std::filesystem::path(folder_.file(file)).parent_path());
    folder_.write(file, text + "\n");
  }
  std::optional<std::uint64_t> limit(const std::string& membership) const {
    return control_group_limit(membership, folder_.path());
  }

  TemporaryFolder folder_;
};

TEST_F(ControlGroups, OfVersion2LimitByTheirOwnAndByThoseAboveThem) {
  put("memory.max", "max");
  put("system.slice/slurmstepd.scope/job_7/memory.max", "5000");
  put("system.slice/slurmstepd.scope/job_7/step_0/memory.max", "max");
  EXPECT_EQ(limit("0::/system.slice/slurmstepd.scope/job_7/step_0\n"), 5000);
  EXPECT_EQ(limit("0::/system.slice\n"), std::nullopt);
  put("system.slice/slurmstepd.scope/job_7/step_0/memory.max", "400");
  EXPECT_EQ(limit("0::/system.slice/slurmstepd.scope/job_7/step_0\n"), 400);
  put("memory.max", "300");
  EXPECT_EQ(limit("0::/\n"), 300);
}

TEST_F(ControlGroups, OfVersion1LimitByTheMemoryController) {
  put("memory/memory.limit_in_bytes", "9223372036854771712");
  put("memory/slurm/uid_1000/job_8/memory.limit_in_bytes", "7000");
  put("cpu/slurm/uid_1000/job_8/memory.limit_in_bytes", "1");
  const std::string membership =
      "5:cpu,cpuacct:/slurm/uid_1000/job_8\n4:memory:/slurm/uid_1000/job_8/step_0/task_0\n0::/\n";
  EXPECT_EQ(limit(membership), 7000);
  EXPECT_EQ(limit("4:hugetlb,memory:/slurm/uid_1000/job_8\n"), 7000);
}

TEST_F(ControlGroups, OutsideOfAContainerCountByTheOneThatItSees) {
  put("memory.max", "600");
  EXPECT_EQ(limit("0::/../../pod/other\n"), 600);
  EXPECT_EQ(limit("0::/docker/not-mounted-here\n"), 600);
}

TEST_F(ControlGroups, ThatCannotBeUnderstoodLimitNothing) {
  for (const char* text : {"", "\n", ":", "0", "0:", "0::", "4:memory:", "::::"})
    EXPECT_EQ(limit(text), std::nullopt) << text;
}

TEST(MemoryOfNode, IsThereAndNoMoreThanTheNodeHas) {
  EXPECT_GT(memory_of_node(), std::uint64_t{1} << 24);
}

}  // namespace
}  // namespace starattn
