// SPDX-License-Identifier: Apache-2.0
// Which documents go, which stay, and what is never touched.
#include "checkpoint/prune.h"

#include <fcntl.h>
#include <sys/stat.h>

#include "store_test.h"

namespace starattn {
namespace {

constexpr std::int64_t kNow = 2'000'000'000;

class PruneTest : public StoreTest {
 protected:
  // A whole document, last written so many seconds ago.
  fs::path aged(const Sample& s, std::int64_t seconds) {
    const fs::path directory = save(s);
    set_age(directory, seconds);
    return directory;
  }
  static void set_age(const fs::path& directory, std::int64_t seconds) {
    for (const auto& entry : fs::directory_iterator(directory)) {
      const timespec times[2] = {{kNow - seconds, 0}, {kNow - seconds, 0}};
      ASSERT_EQ(::utimensat(AT_FDCWD, entry.path().c_str(), times, 0), 0);
    }
  }
  PruneResult prune(const PruneRules& rules) const { return starattn::prune(store, rules, kNow); }
};

TEST_F(PruneTest, WithoutRulesOnlyLeftoversGo) {
  const Sample s = sample();
  const fs::path directory = aged(s, 1'000'000);
  put(directory / "block-00001.h5.tmp.0123456789abcdef", "half");
  const PruneResult result = prune({});
  EXPECT_EQ(result.n_temporaries, 1);
  EXPECT_TRUE(result.removed.empty());
  EXPECT_EQ(problem_of(s), "");
}

TEST_F(PruneTest, IncompleteOnesGo) {
  const Sample whole = sample(10);
  const Sample partial = sample(11);
  const Sample broken = sample(12);
  save(whole);
  const fs::path half = save(partial);
  fs::remove(half / "block-00000.h5");
  const fs::path bad = save(broken);
  put(bad / "manifest.json", "{");
  const PruneResult result = prune({.incomplete = true});
  EXPECT_EQ(result.removed.size(), 2U);
  EXPECT_FALSE(fs::exists(half));
  EXPECT_FALSE(fs::exists(bad));
  EXPECT_EQ(problem_of(whole), "");
  EXPECT_GT(result.freed_bytes, 100'000U);
}

TEST_F(PruneTest, OldOnesGo) {
  const fs::path old = aged(sample(10), 101);
  const fs::path young = aged(sample(11), 99);
  const PruneResult result = prune({.older_than_seconds = 100});
  ASSERT_EQ(result.removed.size(), 1U);
  EXPECT_EQ(result.removed[0].summary.directory, old);
  EXPECT_FALSE(fs::exists(old));
  EXPECT_TRUE(fs::exists(young));
}

TEST_F(PruneTest, TheNewestStayUpToASum) {
  const fs::path oldest = aged(sample(10), 300);
  const fs::path middle = aged(sample(11), 200);
  const fs::path newest = aged(sample(12), 100);
  const std::uint64_t two = 2 * store.list().at(0).n_bytes + 100'000;
  EXPECT_TRUE(prune({.keep_newest_bytes = 2 * two}).removed.empty());
  EXPECT_EQ(prune({.keep_newest_bytes = two}).removed.size(), 1U);
  EXPECT_FALSE(fs::exists(oldest));
  EXPECT_TRUE(fs::exists(middle));
  EXPECT_EQ(prune({.keep_newest_bytes = 0}).removed.size(), 2U);
  EXPECT_FALSE(fs::exists(newest));
  EXPECT_TRUE(fs::exists(folder_ / "kept"));
}

TEST_F(PruneTest, ADryRunTellsTheSameAndTouchesNothing) {
  const fs::path gone = aged(sample(10), 300);
  const fs::path foreign = aged(sample(11), 300);
  const fs::path used = aged(sample(12), 300);
  put(foreign / "notes.txt", "mine");
  put(gone / "block-00001.h5.tmp.0123456789abcdef", "half");
  fs::remove(gone / "lock");
  const Sample in_use = sample(12);
  const auto open = store.find(in_use.info, in_use.tokens);
  PruneRules rules{.older_than_seconds = 100, .dry_run = true};
  const PruneResult said = prune(rules);
  EXPECT_TRUE(fs::exists(gone / "block-00001.h5.tmp.0123456789abcdef"));
  EXPECT_FALSE(fs::exists(gone / "lock"));
  rules.dry_run = false;
  const PruneResult done = prune(rules);
  ASSERT_EQ(said.removed.size(), 1U);
  ASSERT_EQ(done.removed.size(), 1U);
  EXPECT_EQ(said.removed[0].reason, done.removed[0].reason);
  EXPECT_EQ(said.freed_bytes, done.freed_bytes);
  ASSERT_EQ(said.kept.size(), 2U);
  ASSERT_EQ(done.kept.size(), 2U);
  for (std::size_t i = 0; i < 2; ++i) EXPECT_EQ(said.kept[i].reason, done.kept[i].reason);
  EXPECT_FALSE(fs::exists(gone));
}

TEST_F(PruneTest, WhatAProcessHasOpenStays) {
  const Sample s = sample();
  const fs::path directory = aged(s, 300);
  for (const bool reader : {true, false}) {
    std::optional<DocumentCheckpoint> open;
    if (reader)
      open = store.find(s.info, s.tokens);
    else
      open.emplace(store.open_or_create(s.info, s.tokens));
    const PruneResult result = prune({.older_than_seconds = 100});
    ASSERT_EQ(result.kept.size(), 1U);
    EXPECT_EQ(result.kept[0].reason, "in use by another process");
    EXPECT_EQ(read(*open, 2), wanted(open->info(), 2));
  }
  EXPECT_EQ(prune({.older_than_seconds = 100}).removed.size(), 1U);
  EXPECT_FALSE(fs::exists(directory));
}

TEST_F(PruneTest, FilesOfOthersAndTheirDocumentStay) {
  const std::vector<std::function<void(const fs::path&)>> plants = {
      [](const fs::path& d) { put(d / "notes.txt", "mine"); },
      [](const fs::path& d) { fs::create_directory(d / "block-00009.h5"); },
      [&](const fs::path& d) { fs::create_symlink(folder_ / "secret", d / "block-00009.h5"); },
      [](const fs::path& d) { put(d / "block-9.h5", "almost ours"); }};
  put(folder_ / "secret", "precious");
  for (const auto& plant : plants) {
    const Sample s = sample();
    const fs::path directory = aged(s, 300);
    plant(directory);
    const PruneResult result = prune({.older_than_seconds = 100});
    EXPECT_TRUE(result.removed.empty());
    ASSERT_EQ(result.kept.size(), 1U);
    EXPECT_NE(result.kept[0].reason.find("not ours"), std::string::npos);
    EXPECT_EQ(problem_of(s), "");
    fs::remove_all(directory);
  }
  EXPECT_EQ(content(folder_ / "secret"), "precious");
}

// Something that takes the name of a lock file, so that the lock cannot be had, not even by root.
TEST_F(PruneTest, WhatCannotBeLockedHasFailedAndTheOthersGo) {
  const fs::path stuck = aged(sample(10), 300);
  const fs::path free = aged(sample(11), 300);
  fs::remove(stuck / "lock");
  fs::create_directory(stuck / "lock");
  const PruneResult result = prune({.older_than_seconds = 100});
  ASSERT_EQ(result.failed.size(), 1U);
  EXPECT_EQ(result.failed[0].summary.directory, stuck);
  EXPECT_NE(result.failed[0].reason.find(stuck / "lock"), std::string::npos);
  EXPECT_TRUE(result.kept.empty());
  EXPECT_TRUE(fs::exists(stuck / "manifest.json"));
  EXPECT_FALSE(fs::exists(free));
}

TEST_F(PruneTest, WhatIsNotADocumentIsPassedOver) {
  aged(sample(), 300);
  fs::create_directory(folder_ / "kept" / "notes");
  put(folder_ / "kept" / "notes" / "manifest.json", "mine");
  fs::create_directory(folder_ / "other");
  put(folder_ / "other" / "manifest.json", "mine");
  fs::create_directory_symlink(folder_ / "other", folder_ / "kept" / digest_of("a link").hex());
  prune({.incomplete = true, .keep_newest_bytes = 0});
  EXPECT_EQ(content(folder_ / "kept" / "notes" / "manifest.json"), "mine");
  EXPECT_EQ(content(folder_ / "other" / "manifest.json"), "mine");
}

TEST_F(PruneTest, OpeningAndPruningAtOnceNeverFails) {
  const Sample s = sample(4, 4);
  const pid_t pruner = start_child([&] {
    for (int i = 0; i < 400; ++i) starattn::prune(store, {.incomplete = true}, kNow);
  });
  const pid_t opener = start_child([&] {
    for (int i = 0; i < 200; ++i) {
      DocumentCheckpoint document = store.open_or_create(s.info, s.tokens);
      if (i % 3 == 0) write(document, 0);
      if (i % 3 == 1) put(fs::path(document.directory()) / "block-00000.h5", "");
    }
  });
  EXPECT_TRUE(ended_well(pruner));
  EXPECT_TRUE(ended_well(opener));
}

}  // namespace
}  // namespace starattn
