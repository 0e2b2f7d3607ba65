// SPDX-License-Identifier: Apache-2.0
// What a store says of its documents.
#include <algorithm>
#include <chrono>

#include "store_test.h"

namespace starattn {
namespace {

class ListingTest : public StoreTest {};

TEST_F(ListingTest, AnAbsentAndAnEmptyStoreHaveNoDocuments) {
  EXPECT_TRUE(store.list().empty());
  EXPECT_FALSE(fs::exists(folder_ / "kept"));
  fs::create_directory(folder_ / "kept");
  EXPECT_TRUE(store.list().empty());
  const Sample s = sample();
  EXPECT_FALSE(store.find(s.info, s.tokens));
  EXPECT_EQ(error_of([&] { store.open(digest_of("x")); })->exit(), Exit::no_input);
}

TEST_F(ListingTest, BrokenDocumentsAreListedWithTheirProblem) {
  const Sample whole = sample(10);
  const Sample partial = sample(11);
  const Sample broken = sample(12);
  save(whole);
  store.open_or_create(partial.info, partial.tokens);
  const fs::path bad = save(broken);
  put(bad / "manifest.json", "{");
  fs::create_directory(folder_ / "kept" / digest_of("empty").hex());
  // Not documents.
  fs::create_directory(folder_ / "kept" / "notes");
  put(folder_ / "kept" / digest_of("a file").hex(), "x");
  fs::create_directory_symlink(bad, folder_ / "kept" / digest_of("a link").hex());

  const std::vector<DocumentSummary> list = store.list();
  ASSERT_EQ(list.size(), 4U);
  EXPECT_TRUE(std::ranges::is_sorted(list, {}, &DocumentSummary::key));
  int n_complete = 0;
  int n_partial = 0;
  int n_broken = 0;
  for (const DocumentSummary& document : list) {
    n_complete += document.complete();
    n_partial += document.problem.empty() && document.n_blocks_present == 0;
    n_broken += !document.problem.empty();
    if (document.directory != bad) continue;
    EXPECT_NE(document.problem.find("manifest.json"), std::string::npos);
  }
  EXPECT_EQ(n_complete, 1);
  EXPECT_EQ(n_partial, 1);
  EXPECT_EQ(n_broken, 2);
}

TEST_F(ListingTest, SizesAndBlocksAreThoseOnDisk) {
  const Sample s = sample();
  const fs::path directory = save(s);
  std::uint64_t n_bytes = 0;
  for (const char* name : {"manifest.json", "document.h5", "block-00000.h5", "block-00001.h5"})
    n_bytes += fs::file_size(directory / name);
  fs::remove(directory / "block-00002.h5");
  put(directory / "foreign", std::string(1000, 'x'));
  const DocumentSummary document = store.list().at(0);
  EXPECT_EQ(document.n_blocks_present, 2);
  EXPECT_EQ(document.info.n_blocks, 3);
  EXPECT_EQ(document.n_bytes, n_bytes);
  EXPECT_FALSE(document.complete());
}

TEST_F(ListingTest, ADocumentIsUsedWhenARunOpensIt) {
  const Sample s = sample();
  const fs::path in_use = save(s) / "in-use";
  const auto forget = [&] {
    fs::last_write_time(in_use, fs::file_time_type::clock::now() - std::chrono::hours(24));
    return store.list().at(0).last_used_unix;
  };
  std::int64_t before = forget();
  store.open(store.list().at(0).key);  // for a look
  EXPECT_EQ(store.list().at(0).last_used_unix, before);
  EXPECT_TRUE(store.find(s.info, s.tokens));
  EXPECT_GT(store.list().at(0).last_used_unix, before + 3600);
  before = forget();
  store.open_or_create(s.info, s.tokens);
  EXPECT_GT(store.list().at(0).last_used_unix, before + 3600);
  fs::remove(in_use);
  EXPECT_EQ(store.list().at(0).last_used_unix, 0);
}

TEST_F(ListingTest, NamesAreExact) {
  EXPECT_EQ(block_name(7), "block-00007.h5");
  EXPECT_EQ(block_of_name("block-00007.h5"), 7);
  EXPECT_EQ(block_of_name("block-1234567.h5"), 1234567);
  for (const char* name : {"block-7.h5", "block-000007.h5", "block-0000a.h5", "block-.h5", "x",
                           "block-00007.h5 ", "block-99999999999999999999.h5", "Block-00007.h5"})
    EXPECT_FALSE(block_of_name(name)) << name;
  EXPECT_TRUE(is_temporary_name("block-00007.h5.tmp.0123456789abcdef"));
  EXPECT_TRUE(is_temporary_name("manifest.json.tmp.00"));
  for (const char* name : {"notes.tmp.00", "manifest.json.tmp.", "manifest.json.tmp.xyz", ".tmp.0"})
    EXPECT_FALSE(is_temporary_name(name)) << name;
}

}  // namespace
}  // namespace starattn
