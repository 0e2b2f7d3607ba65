// SPDX-License-Identifier: Apache-2.0
// Several processes at one document, and processes that die or fail at any point.
#include <csignal>
#include <thread>

#include "store_test.h"

namespace starattn {
namespace {

class WritersTest : public StoreTest {
 protected:
  std::vector<std::int64_t> present(const Sample& s) const {
    return store.find(s.info, s.tokens)->blocks_present();
  }
};

TEST_F(WritersTest, ProcessesWriteTheSameAndDifferentBlocksAtOnce) {
  const Sample s = sample(64, 4);  // 16 blocks
  std::vector<pid_t> children;
  for (int writer = 0; writer < 4; ++writer) {
    children.push_back(start_child([&] {
      DocumentCheckpoint document = store.open_or_create(s.info, s.tokens);
      // Two begin at the front, two in the middle: all meet.
      for (std::int64_t i = 0; i < 16; ++i) write(document, (i + 8 * (writer % 2)) % 16);
    }));
  }
  for (const pid_t child : children) EXPECT_TRUE(ended_well(child));
  EXPECT_EQ(problem_of(s), "");
  const fs::path directory = store.list().at(0).directory;
  EXPECT_EQ(n_temporaries(directory), 0);
}

TEST_F(WritersTest, TheSecondWriterOfABlockIsToldSo) {
  const Sample s = sample();
  DocumentCheckpoint document = store.open_or_create(s.info, s.tokens);
  EXPECT_TRUE(write(document, 1));
  EXPECT_FALSE(write(document, 1));
  EXPECT_EQ(document.blocks_present(), (std::vector<std::int64_t>{1}));
}

TEST_F(WritersTest, AWriterKilledInAnyLayerLeavesNoBlock) {
  const Sample s = sample();
  save(s);
  fs::remove(fs::path(store.list().at(0).directory) / "block-00001.h5");
  for (int kill_at = 0; kill_at < 4; ++kill_at) {
    const pid_t child = start_child([&] {
      DocumentCheckpoint document = store.open_or_create(s.info, s.tokens);
      const KvSource sound = source_of(document.info(), 1);
      write(document, 1, [&](std::int64_t layer, KvPart part) {
        if (layer * 2 + (part == KvPart::v) == kill_at) ::raise(SIGKILL);
        return sound(layer, part);
      });
    });
    EXPECT_TRUE(WIFSIGNALED(status_of(child)));
    const fs::path directory = store.list().at(0).directory;
    EXPECT_EQ(n_temporaries(directory), 1);
    EXPECT_EQ(present(s), (std::vector<std::int64_t>{0, 2}));
    DocumentCheckpoint again = store.open_or_create(s.info, s.tokens);
    EXPECT_EQ(n_temporaries(directory), 0);  // the next one alone with it cleans up
    EXPECT_TRUE(write(again, 1));
    EXPECT_EQ(problem_of(s), "");
    fs::remove(directory / "block-00001.h5");
  }
}

TEST_F(WritersTest, AWriterKilledAtAnyTimeLeavesAUsableStore) {
  const Sample s = sample(64, 4);
  std::mt19937 random(5);
  for (int round = 0; round < 25; ++round) {
    const pid_t child = start_child([&] {
      DocumentCheckpoint document = store.open_or_create(s.info, s.tokens);
      for (std::int64_t block = 0; block < 16; ++block) write(document, block);
    });
    std::this_thread::sleep_for(std::chrono::microseconds(random() % 30000));
    ::kill(child, SIGKILL);
    status_of(child);
    DocumentCheckpoint document = store.open_or_create(s.info, s.tokens);
    for (const std::int64_t block : document.blocks_present())
      ASSERT_EQ(read(document, block), wanted(document.info(), block)) << round;
    EXPECT_EQ(n_temporaries(document.directory()), 0);
    if (round % 5 == 4) fs::remove_all(folder_ / "kept");
  }
  save(s);
  EXPECT_EQ(problem_of(s), "");
}

// The states between two steps of a writer.
TEST_F(WritersTest, EveryStateThatADeadWriterLeavesIsTakenUp) {
  const Sample s = sample();
  const fs::path whole = save(s);
  const std::vector<std::vector<std::string>> states = {
      {},  // the directory only
      {"lock", "in-use"},
      {"lock", "in-use", "document.h5"},                                      // no manifest yet
      {"lock", "in-use", "document.h5", "block-00001.h5"},                    // nor later
      {"lock", "in-use", "document.h5", "manifest.json", "block-00000.h5"}};  // files went missing
  for (const auto& names : states) {
    const fs::path kept = folder_ / "whole";
    fs::rename(whole, kept);
    fs::create_directory(whole);
    for (const std::string& name : names) fs::copy_file(kept / name, whole / name);
    put(whole / "document.h5.tmp.0123456789abcdef", "half");
    put(whole / "manifest.json.tmp.00000000000000ff", "half");
    save(s);
    EXPECT_EQ(problem_of(s), "") << names.size();
    EXPECT_EQ(n_temporaries(whole), 0);
    fs::remove_all(kept);
  }
}

TEST_F(WritersTest, ABlockFileThatNoManifestListsCountsAsAbsent) {
  const Sample s = sample();
  const fs::path directory = save(s);
  const std::string block = content(directory / "block-00002.h5");
  {
    DocumentCheckpoint document = store.open_or_create(s.info, s.tokens);
    put(directory / "block-00002.h5", std::string(block.size(), 'x'));
    document.discard_if_damaged(2);
  }
  EXPECT_EQ(present(s), (std::vector<std::int64_t>{0, 1}));
  DocumentCheckpoint document = store.open_or_create(s.info, s.tokens);
  EXPECT_EQ(error_of([&] { read(document, 2); })->exit(), Exit::no_input);
  EXPECT_TRUE(write(document, 2));
  EXPECT_EQ(content(directory / "block-00002.h5"), block);
}

TEST_F(WritersTest, ASourceThatThrowsLeavesNoBlockAndItsOwnError) {
  const Sample s = sample();
  DocumentCheckpoint document = store.open_or_create(s.info, s.tokens);
  for (int throw_at = 0; throw_at < 4; ++throw_at) {
    const KvSource sound = source_of(document.info(), 0);
    const auto error = error_of([&] {
      write(document, 0, [&](std::int64_t layer, KvPart part) {
        if (layer * 2 + (part == KvPart::v) == throw_at) fail(Exit::unfit, "the device is gone");
        return sound(layer, part);
      });
    });
    ASSERT_TRUE(error);
    EXPECT_STREQ(error->what(), "the device is gone");
    EXPECT_TRUE(document.blocks_present().empty());
    EXPECT_EQ(n_temporaries(document.directory()), 0);
  }
  EXPECT_TRUE(write(document, 0));
  EXPECT_EQ(read(document, 0), wanted(document.info(), 0));
}

TEST_F(WritersTest, ASinkThatThrowsKeepsItsOwnError) {
  const Sample s = sample();
  save(s);
  const auto document = store.find(s.info, s.tokens);
  Bytes room(document->info().part_bytes(4));
  KvSink sink;
  sink.place = [&](std::int64_t, KvPart) { return std::span(room); };
  sink.filled = [](std::int64_t layer, KvPart) {
    if (layer == 1) fail(Exit::unfit, "the device is gone");
  };
  EXPECT_STREQ(error_of([&] { document->read_block(0, sink); })->what(), "the device is gone");
  EXPECT_EQ(problem_of(s), "");
}

TEST_F(WritersTest, AReaderSeesAReplacedBlockWholeOrNotAtAll) {
  const Sample s = sample(8, 4);
  const fs::path directory = save(s);
  const pid_t child = start_child([&] {
    DocumentCheckpoint document = store.open_or_create(s.info, s.tokens);
    for (int round = 0; round < 60; ++round) {
      put(directory / "block-00001.h5", "");  // lost its bytes
      write(document, 1);
    }
  });
  const auto document = store.find(s.info, s.tokens);
  int n_read = 0;
  for (int round = 0; round < 300; ++round) {
    try {
      ASSERT_EQ(read(*document, 1), wanted(document->info(), 1));
      ++n_read;
    } catch (const Error& error) {
      EXPECT_NE(std::string(error.what()).find("block-00001.h5"), std::string::npos);
    }
  }
  EXPECT_TRUE(ended_well(child));
  EXPECT_EQ(problem_of(s), "");
  EXPECT_GT(n_read, 0);
}

TEST_F(WritersTest, WaitingForALockEndsAndNamesTheHolder) {
  const Sample s = sample();
  const fs::path directory = save(s);
  const KernelLock held(directory / "lock", KernelLock::Mode::exclusive, 0);
  const CheckpointStore impatient(store.directory(), 0.05);
  const auto error = error_of([&] { impatient.open_or_create(s.info, s.tokens); });
  ASSERT_TRUE(error);
  EXPECT_EQ(error->exit(), Exit::io);
  EXPECT_NE(std::string(error->what()).find(fmt::format("process {} on", ::getpid())),
            std::string::npos)
      << error->what();
  EXPECT_EQ(problem_of(s), "");  // readers do not wait for it
}

}  // namespace
}  // namespace starattn
