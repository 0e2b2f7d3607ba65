// SPDX-License-Identifier: Apache-2.0
#include "base/file_purposes.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "../temporary_folder.h"

namespace starattn {
namespace {

class FilePurposesTest : public testing::Test {
 protected:
  FilePurposesTest() {
    folder_.write("there", "1");
    ::mkdir(folder_.file("sub").c_str(), 0700);
    EXPECT_EQ(::link(folder_.file("there").c_str(), folder_.file("hard").c_str()), 0);
    EXPECT_EQ(::symlink("there", folder_.file("soft").c_str()), 0);
    EXPECT_EQ(::symlink("sub/new", folder_.file("dangling").c_str()), 0);
    EXPECT_EQ(::symlink("sub", folder_.file("other").c_str()), 0);
  }
  TemporaryFolder folder_;
};

TEST_F(FilePurposesTest, KnowsAFileByAllItsNames) {
  for (const char* name : {"there", "./there", "sub/../there", "hard", "soft", "other/../soft"}) {
    FilePurposes files;
    files.reads("--input", folder_.file("there"));
    expect_refused([&] { files.writes("--trace", folder_.file(name)); }, Exit::usage,
                   {"--input", "--trace", name});
  }
}

TEST_F(FilePurposesTest, TakesStandardOutputWhereItIsWritten) {
  FilePurposes files;
  expect_refused([&] { files.writes("--trace", "-"); }, Exit::usage,
                 {"--trace", "expected a file"});
  files.writes_or_streams("--output", "-");
}

TEST_F(FilePurposesTest, KnowsOneOfManyThatAreRead) {
  FilePurposes files;
  files.writes("--output", folder_.file("sub/new"));
  EXPECT_FALSE(files.writes_over_something());
  files.reads_one_of_many("context", folder_.file("sub/new"));  // not there: who reads it says so
  files.writes("--trace", folder_.file("soft"));
  EXPECT_TRUE(files.writes_over_something());
  files.reads_one_of_many("context", folder_.file("sub"));
  expect_refused([&] { files.reads_one_of_many("context", folder_.file("hard")); }, Exit::usage,
                 {"--trace", "context", "hard"});
}

TEST_F(FilePurposesTest, KnowsWhatLiesInSubfoldersOfAFolder) {
  for (const char* name : {"sub/new", "other/new", "dangling", "sub/../sub/new"}) {
    FilePurposes files;
    files.writes("--trace", folder_.file(name));
    files.owns_subfolders("--checkpoint-dir", folder_.file("sub"));  // it lies in it, not below
    files.owns_subfolders("--checkpoint-dir", folder_.file("nowhere"));
    expect_refused([&] { files.owns_subfolders("--checkpoint-dir", folder_.file(".")); },
                   Exit::usage, {"--trace", name, "--checkpoint-dir"});
  }
  FilePurposes files;
  files.writes("--trace", folder_.file("there"));
  files.owns_subfolders("--checkpoint-dir", folder_.file("."));
}

TEST_F(FilePurposesTest, KnowsAFileThatIsNotThereYet) {
  for (const char* name : {"sub/new", "sub/./new", "dangling", "other/new", "sub/../sub/new"}) {
    FilePurposes files;
    files.writes("--output", folder_.file("sub/new"));
    expect_refused([&] { files.writes("--html", folder_.file(name)); }, Exit::usage,
                   {"--output", "--html"});
    files.writes("--html", folder_.file("new"));  // of another folder
  }
}

TEST_F(FilePurposesTest, LetsOthersPass) {
  FilePurposes files;
  files.reads("--input", folder_.file("there"));
  files.reads("--config", "");
  files.reads("--baseline", folder_.file("nowhere"));
  files.writes("--output", folder_.file("out"));
  files.writes("--trace", "/nowhere/at/all");
  files.reads("the trials", folder_.file("sub"));
  files.reads("the trials", folder_.file("sub"));  // twice for one purpose
}

TEST_F(FilePurposesTest, GuardsTheFilesOfAFolder) {
  folder_.write("sub/config.json", "{}");
  folder_.write("sub/answers.jsonl", "begun");  // which may be continued
  FilePurposes files;
  files.reads_folder("--model", folder_.file("sub"));
  expect_refused([&] { files.writes("--trace", folder_.file("other/config.json")); }, Exit::usage,
                 {"--model", "--trace"});
  files.writes("--output", folder_.file("sub/answers.jsonl"));
  files.reads("--input", folder_.file("sub/config.json"));  // may lie beside the model's files
  expect_refused([&] { files.writes("--html", folder_.file("sub/config.json")); }, Exit::usage,
                 {"--html"});
}

TEST_F(FilePurposesTest, RefusesWhatIsNoPlaceForAnOutput) {
  FilePurposes files;
  for (const char* path : {"/dev/null", "/dev/full", "/dev/stdout", "/tmp"})
    expect_refused([&] { files.writes("--output", path); }, Exit::cannot_create, {path});
  const std::string link = folder_.file("standard");
  const std::string opened =
      fmt::format("/proc/self/fd/{}", ::open(folder_.file("there").c_str(), 0));
  ASSERT_EQ(::symlink(opened.c_str(), link.c_str()), 0);  // though it leads to a file
  expect_refused([&] { files.writes("--output", link); }, Exit::cannot_create, {link, "open"});
  files.writes_or_streams("--output", kStandardStream);
}

}  // namespace
}  // namespace starattn
