// SPDX-License-Identifier: Apache-2.0
// A damaged file ends in an error, or in tensors that lie within it and take all of its data.
#include <random>

#include "safetensors_bytes.h"

namespace starattn {
namespace {

std::uint64_t start_of_data(const std::string& file) {
  std::uint64_t length = 0;
  std::memcpy(&length, file.data(), sizeof(length));
  return sizeof(length) + length;
}

void expect_correct(const SafetensorsFile& file, const std::string& bytes) {
  const auto mapped = file.file().bytes();
  std::uint64_t n_bytes = 0;
  std::size_t n_found = 0;
  for (const char* name : {"a", "b", "c", "d", "e"}) {
    const TensorView* tensor = file.find(name);
    if (!tensor) continue;  // the damage hit its name
    ++n_found;
    n_bytes += tensor->n_bytes;
    ASSERT_GE(tensor->data, mapped.data());
    ASSERT_LE(tensor->data + tensor->n_bytes, mapped.data() + mapped.size());
    ASSERT_NE(bytes.find(bytes_of(*tensor)), std::string::npos);  // every byte can be read
  }
  const std::uint64_t n_data = bytes.size() - start_of_data(bytes);
  EXPECT_TRUE(n_bytes == n_data || n_found < file.n_tensors());
}

TEST(Damage, EndsInAnErrorOrACorrectOpen) {
  const std::string whole = file_of(to_line(good_header()), kData);
  const std::string letters = "0123456789-.,:[]{}\"aUF e\\";
  std::mt19937 random(3);
  const TemporaryFolder folder;
  int n_opened = 0, n_refused = 0;
  for (int i = 0; i < 4000; ++i) {
    std::string damaged = whole;
    for (unsigned n = 1 + random() % 2; n > 0; --n) {
      char& c = damaged[random() % damaged.size()];
      c = random() % 3 ? letters[random() % letters.size()] : static_cast<char>(random());
    }
    if (i % 4 == 0) damaged.resize(random() % (damaged.size() + 8));
    folder.write("x", damaged);
    try {
      const SafetensorsFile file(folder.file("x"));
      ++n_opened;
      expect_correct(file, damaged);
    } catch (const Error& error) {
      ++n_refused;
      ASSERT_EQ(error.exit(), Exit::bad_data) << error.what();
    }
  }
  EXPECT_GT(n_opened, 100);
  EXPECT_GT(n_refused, 2000);
}

TEST(Damage, IsNoticedWhereverTheFileEnds) {
  const std::string whole = file_of(to_line(good_header()), kData);
  const TemporaryFolder folder;
  for (std::size_t n = 0; n < whole.size(); ++n) {
    folder.write("x", whole.substr(0, n));
    expect_refused([&] { SafetensorsFile{folder.file("x")}; }, Exit::bad_data, {folder.file("x")});
  }
}

}  // namespace
}  // namespace starattn
