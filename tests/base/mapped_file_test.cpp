// SPDX-License-Identifier: Apache-2.0
#include "base/mapped_file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <numeric>

#include "../temporary_folder.h"

namespace starattn {
namespace {

namespace fs = std::filesystem;

TEST(MappedFile, HoldsTheBytesAndMoves) {
  const TemporaryFolder folder;
  folder.write("a", "abc");
  folder.write("empty", "");
  const auto text = [](const MappedFile& file) {
    return std::string(reinterpret_cast<const char*>(file.bytes().data()), file.bytes().size());
  };
  MappedFile a(folder.file("a"));
  EXPECT_EQ(text(a), "abc");
  MappedFile empty(folder.file("empty"));
  EXPECT_TRUE(empty.bytes().empty());

  MappedFile moved(std::move(a));
  EXPECT_EQ(text(moved), "abc");
  EXPECT_EQ(moved.path(), folder.file("a"));
  moved = std::move(empty);
  EXPECT_EQ(text(moved), "");
}

TEST(MappedFile, NeedsARegularFile) {
  const TemporaryFolder folder;
  for (const std::string& path : {folder.path(), folder.file("none")})
    expect_refused([&] { MappedFile{path}; }, Exit::no_input, {path});
}

void write_at(const std::string& path, off_t at, std::string_view bytes) {
  const FileDescriptor file(::open(path.c_str(), O_WRONLY));
  ASSERT_EQ(::pwrite(file.get(), bytes.data(), bytes.size(), at), std::ssize(bytes));
}

// Long before the test, so that every later time is another.
void age(const std::string& path) {
  const timespec times[] = {{1'000'000'000, 0}, {1'000'000'000, 0}};
  ASSERT_EQ(::utimensat(AT_FDCWD, path.c_str(), times, 0), 0);
}

TEST(MappedFile, TellsThatItWasWritten) {
  const TemporaryFolder folder;
  for (const bool is_longer : {false, true}) {
    folder.write("a", "abcdef");
    age(folder.file("a"));
    const MappedFile file(folder.file("a"));
    EXPECT_NO_THROW(file.check_unchanged());
    EXPECT_FALSE(file.has_new_attributes());
    write_at(folder.file("a"), is_longer ? 6 : 2, "x");
    expect_refused([&] { file.check_unchanged(); }, Exit::io, {folder.file("a"), "has changed"});
  }
}

TEST(MappedFile, HasNewAttributesWhereItWasWrittenAndGivenItsOldTime) {
  const TemporaryFolder folder;
  folder.write("a", "abcdef");
  age(folder.file("a"));
  MappedFile file(folder.file("a"));
  write_at(folder.file("a"), 2, "x");
  age(folder.file("a"));
  EXPECT_NO_THROW(file.check_unchanged());
  EXPECT_TRUE(file.has_new_attributes());
  file.accept_attributes();
  EXPECT_FALSE(file.has_new_attributes());
}

TEST(MappedFile, KeepsAFileThatIsReplaced) {
  const TemporaryFolder folder;
  folder.write("a", "abcdef");
  folder.write("b", "other");
  const MappedFile file(folder.file("a"));
  fs::rename(folder.file("b"), folder.file("a"));
  EXPECT_NO_THROW(file.check_unchanged());
  EXPECT_EQ(static_cast<char>(file.bytes()[5]), 'f');
}

TEST(MappedFile, ReadsZerosBehindTheEndOfAFileThatWasCutOff) {
  const TemporaryFolder folder;
  const auto page = static_cast<std::size_t>(::sysconf(_SC_PAGESIZE));
  folder.write("a", std::string(10 * page, 'a'));
  folder.write("b", std::string(10 * page, 'b'));
  const MappedFile file(folder.file("a"));
  const MappedFile other(folder.file("b"));
  fs::resize_file(folder.file("a"), 2 * page);
  const auto sum = [](std::span<const std::byte> bytes) {
    return std::accumulate(bytes.begin(), bytes.end(), std::size_t{0},
                           [](std::size_t n, std::byte b) { return n + static_cast<unsigned>(b); });
  };
  EXPECT_EQ(sum(file.bytes().subspan(5 * page)), 0U);  // a signal otherwise
  EXPECT_EQ(sum(file.bytes()), 2 * page * 'a');
  EXPECT_EQ(sum(other.bytes()), 10 * page * 'b');
  expect_refused([&] { file.check_unchanged(); }, Exit::io, {folder.file("a"), "bytes"});
  EXPECT_NO_THROW(other.check_unchanged());
  // It grows again before anybody looks: the zeros stay, and are told.
  fs::resize_file(folder.file("a"), 10 * page);
  expect_refused([&] { file.check_unchanged(); }, Exit::io, {folder.file("a")});
}

}  // namespace
}  // namespace starattn
