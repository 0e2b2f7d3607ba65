// SPDX-License-Identifier: Apache-2.0
#include "base/file.h"

#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/error.h"

namespace starattn {
namespace {

class DurableFileTest : public testing::Test {
 protected:
  void SetUp() override { ::unlink(path_.c_str()); }
  void TearDown() override { ::unlink(path_.c_str()); }
  bool exists(const std::string& path) const {
    struct stat info {};
    return ::stat(path.c_str(), &info) == 0;
  }
  std::string path_ = testing::TempDir() + "starattn_durable_" + std::to_string(::getpid());
  std::string temporary_ = path_ + ".tmp." + std::to_string(::getpid());
};

TEST_F(DurableFileTest, AppearsWholeAtCommit) {
  {
    DurableFile file(path_);
    file.append("one ");
    EXPECT_FALSE(exists(path_));
    file.append("two");
    file.commit();
  }
  EXPECT_EQ(read_file(path_, 100), "one two");
  EXPECT_FALSE(exists(temporary_));
}

TEST_F(DurableFileTest, KeepsTheOldBytesWithoutCommit) {
  write_file_durably(path_, "old");
  {
    DurableFile file(path_);
    file.append("new");
    EXPECT_TRUE(exists(temporary_));
  }
  EXPECT_EQ(read_file(path_, 100), "old");
  EXPECT_FALSE(exists(temporary_));
}

TEST_F(DurableFileTest, SaysWhatCannotBeCreated) {
  try {
    DurableFile file("/nowhere/file");
    ADD_FAILURE() << "created";
  } catch (const Error& error) {
    EXPECT_EQ(error.exit(), Exit::cannot_create);
    EXPECT_NE(std::string(error.what()).find("/nowhere/file"), std::string::npos);
  }
}

}  // namespace
}  // namespace starattn
