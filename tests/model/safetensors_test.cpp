// SPDX-License-Identifier: Apache-2.0
// Headers that lie are refused with the file and the tensor.
#include "model/safetensors.h"

#include "safetensors_bytes.h"

namespace starattn {
namespace {

void expect_bad(const std::string& file, std::initializer_list<std::string_view> words) {
  const TemporaryFolder folder;
  folder.write("x.safetensors", file);
  const auto open = [&] { SafetensorsFile{folder.file("x.safetensors")}; };
  expect_refused(open, Exit::bad_data, {folder.file("x.safetensors")});
  expect_refused(open, Exit::bad_data, words);
}

// The good file, but for tensor a.
void expect_bad_a(const Json& a, std::initializer_list<std::string_view> words) {
  SCOPED_TRACE(to_line(a));
  Json header = good_header();
  header["a"] = a;
  expect_bad(file_of(to_line(header), kData), {"tensor 'a'"});
  expect_bad(file_of(to_line(header), kData), words);
}

TEST(Safetensors, GiveBackWhatWasWritten) {
  const TemporaryFolder folder;
  folder.write("x", file_of(to_line(good_header()) + "   ", kData));  // padded, as writers do
  const SafetensorsFile file(folder.file("x"));
  EXPECT_EQ(file.n_tensors(), 5U);
  EXPECT_EQ(file.path(), folder.file("x"));
  const std::tuple<const char*, const char*, std::vector<std::int64_t>, std::string> all[] = {
      {"a", "BF16", {2, 3}, "123456789abc"},
      {"b", "F32", {2}, "defghijk"},
      {"c", "F32", {0, 7}, ""},
      {"d", "U8", {}, "0"},
      {"e", "U8", {3}, "lmn"}};
  for (const auto& [name, dtype, shape, bytes] : all) {
    const TensorView* tensor = file.find(name);
    ASSERT_TRUE(tensor) << name;
    EXPECT_EQ(tensor->dtype_name, dtype);
    EXPECT_EQ(tensor->shape, shape);
    EXPECT_EQ(bytes_of(*tensor), bytes);
  }
  EXPECT_FALSE(file.find("f"));
  EXPECT_FALSE(file.find("__metadata__"));
}

TEST(Safetensors, MayHoldNothing) {
  const TemporaryFolder folder;
  folder.write("x", file_of("{}", ""));
  EXPECT_EQ(SafetensorsFile(folder.file("x")).n_tensors(), 0U);
}

TEST(Safetensors, StayOpenWhenMoved) {
  const TemporaryFolder folder;
  folder.write("x", file_of(to_line(good_header()), kData));
  SafetensorsFile file(folder.file("x"));
  const SafetensorsFile moved(std::move(file));
  EXPECT_EQ(bytes_of(*moved.find("e")), "lmn");
}

TEST(HeaderLength, IsCheckedAgainstTheFile) {
  expect_bad("", {"8 bytes", "got 0"});
  expect_bad("1234567", {"8 bytes", "got 7"});
  expect_bad(with_length(0, ""), {"'{'"});
  expect_bad(with_length(3, "{}"), {"byte 0", "at most 2", "got 3"});
  expect_bad(with_length(UINT64_MAX, "{}"), {"byte 0", "18446744073709551615"});
  expect_bad(with_length(std::uint64_t{1} << 63, "{}"), {"byte 0"});

  // Long enough on disk (as a hole), too long for us.
  const TemporaryFolder folder;
  folder.write("x", with_length(100'000'001, "{}"));
  std::filesystem::resize_file(folder.file("x"), 200'000'000);
  expect_refused([&] { SafetensorsFile{folder.file("x")}; }, Exit::bad_data,
                 {folder.file("x"), "at most 100000000", "got 100000001"});
}

TEST(Header, IsAnObjectOfObjects) {
  for (const char* header : {" {}", "[]", "null", "1", "\xef\xbb\xbf{}"})
    expect_bad(file_of(header, ""), {"'{'"});
  for (const char* header : {"{", "{}}", "{\"a\"}", "{\"a\xff\": {}}"})
    expect_bad(file_of(header, ""), {"JSON"});
  for (const char* header : {R"({"a": 1})", R"({"a": null})", R"({"a": []})"})
    expect_bad(file_of(header, ""), {"'a'", "object"});
  expect_bad(file_of(R"({"__metadata__": 1})", ""), {"__metadata__", "object"});
  expect_bad(file_of(R"({"a": {"dtype": "U8", "shape": [[[[[1]]]]]}})", ""), {"deeper"});
  expect_bad(file_of("{\"a\":" + std::string(1'000'000, '['), ""), {"deeper"});
  const std::string a = R"("a": {"dtype": "U8", "shape": [1], "data_offsets": [0, 1]})";
  expect_bad(file_of("{" + a + "," + a + "}", "x"), {"'a'", "twice"});
  expect_bad(file_of(R"({"a": {"dtype": "U8", "dtype": "I8"}})", "x"), {"'dtype'", "twice"});
}

// What is one byte or two in the file takes a hundred in memory.
TEST(Header, HoldsNoMoreValuesThanMemoryCanTake) {
  std::string zeros = "[0";
  for (int i = 0; i < 1'000'000; ++i) zeros += ",0";
  expect_bad(file_of(R"({"a": {"dtype": "U8", "shape": )" + zeros + "]}}", ""), {"1000000 values"});
  std::string names = "{";
  for (int i = 0; i < 1'000'000; ++i) names += fmt::format("\"{}\":0,", i);
  expect_bad(file_of(names + R"("a":0})", ""), {"1000000 values"});
}

TEST(Tensors, SayTheirDtypeAndShape) {
  for (const char* key : {"dtype", "shape", "data_offsets"}) {
    Json a = good_header()["a"];
    a.erase(key);
    expect_bad_a(a, {fmt::format("'{}'", key), "missing"});
  }
  for (const char* dtype : {"", "bf16", "BF17", "F4"})
    expect_bad_a(entry(dtype, {2, 3}, {1, 13}), {"unknown dtype", fmt::format("'{}'", dtype)});
  for (const Json& shape :
       {Json(6), Json("6"), Json::object(), Json{2, 3.0}, Json{2, "3"}, Json{-2, -3},
        Json{2, nullptr}, Json{{2, 3}}, Json{6, 1ULL << 63}, Json{1e30}})
    expect_bad_a(entry("BF16", shape, {1, 13}), {"'shape'"});
  for (const Json& shape : {Json{INT64_MAX, 3}, Json{1LL << 32, 1LL << 32}, Json{1LL << 62, 4, 6},
                            Json{1LL << 62, 2, 0}})
    expect_bad_a(entry("BF16", shape, {1, 13}), {"'shape'", "2^64"});
  expect_bad_a(entry("BF16", {1, 1, 1, 1, 1, 1, 1, 2, 3}, {1, 13}), {"'shape'", "at most 8"});
  // 2^63 * 2 bytes + 12 would wrap to the 12 bytes that are there.
  expect_bad_a(entry("BF16", {(1LL << 62) + 3, 2}, {1, 13}), {"'shape'", "2^64"});
}

TEST(Tensors, TakeTheBytesOfTheirShape) {
  for (const Json& shape : {Json{2, 2}, Json{7}, Json::array(), Json{0}, Json{2, 3, 2}})
    expect_bad_a(entry("BF16", shape, {1, 13}), {"'data_offsets'", "12 in [1, 13]"});
  expect_bad_a(entry("F32", {2, 3}, {1, 13}), {"expected 24 bytes", "shape [2, 3] of F32"});
  for (const Json& offsets : {Json(1), Json{1}, Json{1, 13, 14}, Json{-1, 11}, Json{1.0, 13.0},
                              Json{"1", "13"}, Json{1, nullptr}, Json{1e30, 2e30}})
    expect_bad_a(entry("BF16", {2, 3}, offsets), {"'data_offsets'", "[begin, end]"});
  for (const Json& offsets : {Json{13, 1}, Json{13, 25}, Json{25, 37},
                              Json{UINT64_MAX - 1, UINT64_MAX}, Json{UINT64_MAX - 5, 6}})
    expect_bad_a(entry("BF16", {2, 3}, offsets), {"'data_offsets'", "<= 24"});
}

TEST(Tensors, TileTheData) {
  const auto refused = [](const Json& header, const std::string& data,
                          std::initializer_list<std::string_view> words) {
    SCOPED_TRACE(to_line(header));
    expect_bad(file_of(to_line(header), data), words);
  };
  Json header = good_header();
  refused(header, kData + "o", {"expected 24 bytes", "got 25"});  // behind the last
  refused(header, kData.substr(0, 23), {"tensor 'e'", "<= 23", "truncated"});
  header["e"] = entry("U8", {2}, {22, 24});
  refused(header, kData, {"tensor 'e'", "hole"});
  header["e"] = entry("U8", {4}, {20, 24});
  refused(header, kData, {"tensor 'e'", "overlap"});
  header["e"] = header["b"];  // the same bytes twice
  refused(header, kData.substr(0, 21), {"overlap"});
  header = good_header();
  header.erase("d");
  refused(header, kData, {"tensor 'a'", "hole"});
  header["d"] = entry("U8", {0}, {5, 5});  // an empty tensor inside another
  refused(header, kData, {"hole"});
}

}  // namespace
}  // namespace starattn
