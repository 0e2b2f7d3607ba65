// SPDX-License-Identifier: Apache-2.0
#include "base/file.h"

#include <fcntl.h>
#include <sys/resource.h>
#include <sys/stat.h>

#include <csignal>

#include "../temporary_folder.h"

namespace starattn {
namespace {

namespace fs = std::filesystem;

std::size_t n_files_in(const std::string& folder) {
  return static_cast<std::size_t>(std::distance(fs::directory_iterator(folder), {}));
}

TEST(WriteFileDurably, LeavesTheBytesAndNothingElse) {
  const TemporaryFolder folder;
  const std::string path = folder.file("a.json");
  const std::string bytes("one\0two\n", 8);
  write_file_durably(path, bytes);
  EXPECT_EQ(read_file(path, 100), bytes);
  write_file_durably(path, "");
  EXPECT_EQ(read_file(path, 100), "");
  EXPECT_EQ(n_files_in(folder.path()), 1U);
}

TEST(WriteFileDurably, KeepsTheOldFileWhenItFails) {
  const TemporaryFolder folder;
  const std::string path = folder.file("a.json");
  write_file_durably(path, "old");

  // A full disk, as near as a process can make one: files end at 4096 bytes.
  struct rlimit before {};
  ASSERT_EQ(::getrlimit(RLIMIT_FSIZE, &before), 0);
  const struct rlimit small = {4096, before.rlim_max};
  const auto handler = std::signal(SIGXFSZ, SIG_IGN);
  ASSERT_EQ(::setrlimit(RLIMIT_FSIZE, &small), 0);
  expect_refused([&] { write_file_durably(path, std::string(5000, 'x')); }, Exit::io,
                 {path, "4096 bytes"});
  ASSERT_EQ(::setrlimit(RLIMIT_FSIZE, &before), 0);
  std::signal(SIGXFSZ, handler);

  EXPECT_EQ(read_file(path, 100), "old");
  EXPECT_EQ(n_files_in(folder.path()), 1U);
}

TEST(WriteFileDurably, RefusesPlacesThatCannotBe) {
  const TemporaryFolder folder;
  fs::create_directory(folder.file("a"));
  expect_refused([&] { write_file_durably(folder.file("none/a"), "x"); }, Exit::cannot_create,
                 {folder.file("none/a")});
  expect_refused([&] { write_file_durably(folder.file("a"), "x"); }, Exit::cannot_create,
                 {folder.file("a")});
  EXPECT_EQ(n_files_in(folder.path()), 1U);
  expect_refused([&] { fsync_directory(folder.file("none")); }, Exit::io, {folder.file("none")});
}

TEST(WriteAll, SaysWhenTheDeviceIsFull) {
  const FileDescriptor full(::open("/dev/full", O_WRONLY));
  if (!full.valid()) GTEST_SKIP() << "no /dev/full here";
  expect_refused([&] { write_all(full.get(), "x", "answers.jsonl"); }, Exit::io,
                 {"answers.jsonl", "No space left"});
}

TEST(ReadFile, KeepsToItsLimit) {
  const TemporaryFolder folder;
  folder.write("a", "12345");
  EXPECT_EQ(read_file(folder.file("a"), 5), "12345");
  expect_refused([&] { read_file(folder.file("a"), 4); }, Exit::bad_data,
                 {folder.file("a"), "5 bytes", "at most 4"});
}

TEST(ReadFile, RefusesWhatIsNoFile) {
  const TemporaryFolder folder;
  ASSERT_EQ(::mkfifo(folder.file("pipe").c_str(), 0600), 0);  // nobody will ever write to it
  for (const std::string& path : {folder.path(), folder.file("none"), folder.file("pipe")}) {
    expect_refused([&] { read_file(path, 9); }, Exit::no_input, {path});
  }
}

TEST(ReadFile, RefusesAGitLfsPointer) {
  const TemporaryFolder folder;
  folder.write("config.json",
               "version https://git-lfs.github.com/spec/v1\noid sha256:aa\nsize 4997750760\n");
  expect_refused([&] { read_file(folder.file("config.json"), 1000); }, Exit::bad_data,
                 {folder.file("config.json"), "is a Git LFS pointer", "git lfs pull"});
}

TEST(FileDescriptor, ClosesOnce) {
  const auto is_open = [](int fd) { return ::fcntl(fd, F_GETFD) != -1; };
  int fd = -1;
  {
    FileDescriptor first(::open("/dev/null", O_RDONLY));
    fd = first.get();
    const FileDescriptor second(std::move(first));
    EXPECT_FALSE(first.valid());  // NOLINT: what a move leaves is the point
    EXPECT_TRUE(second.valid() && is_open(fd));
  }
  EXPECT_FALSE(is_open(fd));
}

TEST(ParentDirectory, IsWhatHoldsTheFile) {
  EXPECT_EQ(parent_directory("a"), ".");
  EXPECT_EQ(parent_directory("/a"), "/");
  EXPECT_EQ(parent_directory("a/b"), "a");
  EXPECT_EQ(parent_directory("/a/b/c"), "/a/b");
}

}  // namespace
}  // namespace starattn
