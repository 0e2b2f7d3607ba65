// SPDX-License-Identifier: Apache-2.0
#include "io/text_source.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zlib.h>

#include <thread>

#include "../temporary_folder.h"
#include "io/line_reader.h"

namespace starattn {
namespace {

using namespace std::string_literals;

std::string gzipped(const std::string& text) {
  std::string packed(::compressBound(text.size()) + 64, '\0');
  z_stream stream{};
  EXPECT_EQ(::deflateInit2(&stream, 6, Z_DEFLATED, 16 + MAX_WBITS, 8, Z_DEFAULT_STRATEGY), Z_OK);
  stream.next_in = reinterpret_cast<Bytef*>(const_cast<char*>(text.data()));
  stream.avail_in = static_cast<uInt>(text.size());
  stream.next_out = reinterpret_cast<Bytef*>(packed.data());
  stream.avail_out = static_cast<uInt>(packed.size());
  EXPECT_EQ(::deflate(&stream, Z_FINISH), Z_STREAM_END);
  packed.resize(stream.total_out);
  ::deflateEnd(&stream);
  return packed;
}

std::vector<std::string> lines_of(const std::string& path) {
  std::vector<std::string> lines;
  LineReader reader(path);
  while (const auto line = reader.next()) lines.push_back(line->text);
  return lines;
}

TEST(TextSource, UnpacksGzip) {
  const TemporaryFolder folder;
  std::string text;
  for (int i = 0; i < 200'000; ++i) text += std::to_string(i * 7919 % 1'000'003) + "\n";
  folder.write("plain", text);
  folder.write("packed", gzipped(text));
  const std::size_t half = text.find('\n', text.size() / 2) + 1;
  folder.write("members", gzipped(text.substr(0, half)) + gzipped(text.substr(half)));
  folder.write("empty", gzipped(""));
  EXPECT_EQ(lines_of(folder.file("packed")), lines_of(folder.file("plain")));
  EXPECT_EQ(lines_of(folder.file("members")), lines_of(folder.file("plain")));
  EXPECT_TRUE(lines_of(folder.file("empty")).empty());
  EXPECT_EQ(read_text(folder.file("packed"), text.size()), text);
  expect_refused([&] { read_text(folder.file("packed"), text.size() - 1); }, Exit::bad_data,
                 {"packed", "more than"});
}

TEST(TextSource, NoticesDamagedGzip) {
  const TemporaryFolder folder;
  const std::string whole = gzipped(std::string(100'000, 'x') + "\n");
  folder.write("cut", whole.substr(0, whole.size() - 3));
  expect_refused([&] { lines_of(folder.file("cut")); }, Exit::bad_data, {"cut", "end too early"});
  std::string flipped = whole;
  flipped[whole.size() - 6] ^= 1;  // of the checksum
  folder.write("flipped", flipped);
  expect_refused([&] { lines_of(folder.file("flipped")); }, Exit::bad_data, {"flipped", "damaged"});
  folder.write("twice", gzipped(whole));
  expect_refused([&] { lines_of(folder.file("twice")); }, Exit::bad_data, {"twice", "gunzip"});
}

TEST(TextSource, NamesWhatIsNoText) {
  const TemporaryFolder folder;
  const std::pair<std::string, const char*> cases[] = {{"\xff\xfe{\0\"\0"s, "UTF-16"},
                                                       {"\xfe\xff\0{"s, "UTF-16"},
                                                       {"{\0\"\0i\0"s, "UTF-16LE"},
                                                       {"\0{\0\"\0i"s, "UTF-16BE"},
                                                       {"\xff\xfe\0\0{\0\0\0"s, "UTF-32"},
                                                       {"\x28\xb5\x2f\xfd rest", "zstd"},
                                                       {"PK\x03\x04 rest", "zip"},
                                                       {"%PDF-1.7\n", "PDF"},
                                                       {"BZh91AY&SY", "bzip2"},
                                                       {"\xfd"
                                                        "7zXZ\0rest"s,
                                                        "xz"}};
  for (const auto& [bytes, name] : cases) {
    folder.write("file", bytes);
    expect_refused([&] { LineReader(folder.file("file")); }, Exit::bad_data, {"file", name});
    folder.write("file", gzipped(bytes));
    expect_refused([&] { LineReader(folder.file("file")); }, Exit::bad_data, {"unpacked", name});
  }
  folder.write("file", "BZhang said: \xe4\xbd\xa0");
  EXPECT_EQ(lines_of(folder.file("file")).size(), 1U);
  for (const char* beginning : {"B", "BZ", "BZh", "BZh9", "BZh91", "P", "7z", "%PDF", "\x89"}) {
    folder.write("file", beginning);  // of such a file, and no more
    EXPECT_EQ(lines_of(folder.file("file")), std::vector<std::string>{beginning});
  }
  expect_refused([&] { LineReader(folder.path()); }, Exit::no_input, {"folder"});
  expect_refused([&] { LineReader(folder.file("none")); }, Exit::no_input, {"none"});
}

TEST(TextSource, SkipsAByteOrderMark) {
  const TemporaryFolder folder;
  folder.write("marked", "\xef\xbb\xbf{}\n");
  EXPECT_EQ(lines_of(folder.file("marked")), std::vector<std::string>{"{}"});
  EXPECT_EQ(read_text(folder.file("marked"), 100), "{}\n");
  folder.write("packed", gzipped("\xef\xbb\xbf{}\n"));
  EXPECT_EQ(lines_of(folder.file("packed")), std::vector<std::string>{"{}"});
  folder.write("bad", "a\xff");
  expect_refused([&] { read_text(folder.file("bad"), 100); }, Exit::bad_data, {"UTF-8 at byte 1"});
}

TEST(TextSource, ReadsAPipeThatIsWrittenLate) {
  const TemporaryFolder folder;
  const std::string pipe = folder.file("pipe");
  ASSERT_EQ(::mkfifo(pipe.c_str(), 0600), 0);
  std::thread writer([&] {
    std::this_thread::sleep_for(std::chrono::milliseconds(250));
    std::ofstream out(pipe);
    out << "one\n" << std::flush;
    std::this_thread::sleep_for(std::chrono::milliseconds(250));
    out << "two\n";
  });
  EXPECT_EQ(lines_of(pipe), (std::vector<std::string>{"one", "two"}));
  writer.join();
}

TEST(TextSource, EndsItsWaitWhenAsked) {
  const TemporaryFolder folder;
  const std::string pipe = folder.file("pipe");
  ASSERT_EQ(::mkfifo(pipe.c_str(), 0600), 0);
  int n_asked = 0;
  expect_refused([&] { LineReader(pipe, [&] { return ++n_asked == 3; }); }, Exit::stopped,
                 {"waiting for", "pipe"});
  const FileDescriptor writer(::open(pipe.c_str(), O_RDWR));
  write_all(writer.get(), "first\nsecond, not ended", pipe);
  bool is_asked = false;
  LineReader reader(pipe, [&] { return is_asked; });
  EXPECT_EQ(reader.next()->text, "first");
  is_asked = true;
  expect_refused([&] { reader.next(); }, Exit::stopped, {"pipe"});
}

}  // namespace
}  // namespace starattn
