// SPDX-License-Identifier: Apache-2.0
#include "base/file.h"

#include <fcntl.h>
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
  std::string temporary_ = path_ + ".tmp.starattn";
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

TEST_F(DurableFileTest, TakesOverWhatAKilledProcessLeft) {
  const FileDescriptor left(::open(temporary_.c_str(), O_WRONLY | O_CREAT, 0644));
  write_all(left.get(), "half of something that was longer", temporary_);
  write_file_durably(path_, "whole");
  EXPECT_EQ(read_file(path_, 100), "whole");
  EXPECT_FALSE(exists(temporary_));
}

TEST_F(DurableFileTest, HasOneWriterAtATime) {
  DurableFile first(path_);
  first.append("first");
  EXPECT_THROW(DurableFile{path_}, Error);
  first.commit();
  EXPECT_EQ(read_file(path_, 100), "first");
  write_file_durably(path_, "second");
  EXPECT_EQ(read_file(path_, 100), "second");
}

TEST_F(DurableFileTest, IsWrittenWhereASymbolicLinkLeads) {
  const std::string link = path_ + ".link";
  ASSERT_EQ(::symlink(path_.c_str(), link.c_str()), 0);
  write_file_durably(link, "once");
  write_file_durably(link, "twice");
  EXPECT_EQ(read_file(path_, 100), "twice");
  EXPECT_EQ(real_path(link), path_);
  ::unlink(link.c_str());
}

TEST_F(DurableFileTest, IsNoFolderPipeOrDevice) {
  const std::string pipe = path_ + ".pipe";
  ASSERT_EQ(::mkfifo(pipe.c_str(), 0600), 0);
  const std::string link = path_ + ".link";
  ASSERT_EQ(::symlink("/dev/stdout", link.c_str()), 0);
  for (const std::string& path :
       {pipe, link, std::string("/dev/null"), std::string("/dev/stdout"), std::string("/dev/full"),
        std::string("/proc/self/fd/1"), testing::TempDir()}) {
    try {
      DurableFile file(path);
      ADD_FAILURE() << "created " << path;
    } catch (const Error& error) {
      EXPECT_EQ(error.exit(), Exit::cannot_create) << error.what();
    }
    EXPECT_FALSE(exists(path + ".tmp.starattn"));
  }
  ::unlink(pipe.c_str());
  ::unlink(link.c_str());
}

}  // namespace
}  // namespace starattn
