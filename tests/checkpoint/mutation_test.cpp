// SPDX-License-Identifier: Apache-2.0
// Damage of a single byte, and any cut, is noticed: an error that names the file, never values.
#include <fcntl.h>
#include <sys/stat.h>

#include "checkpoint/manifest.h"
#include "store_test.h"

namespace starattn {
namespace {

class MutationTest : public StoreTest {
 protected:
  MutationTest() : s_(sample(6, 4)), directory_(save(s_)) {}

  // What is wrong with the document; of block 1 alone where that is what was damaged.
  std::string problem(const std::string& name) {
    if (name != "block-00001.h5") return problem_of(s_);
    const auto error = error_of([&] { read(*open_, 1); });
    return error ? error->what() : "";
  }

  // The damage is noticed, and the reason names the file.
  void expect_refused(const std::string& name, const std::string& what) {
    const std::string found = problem(name);
    ASSERT_NE(found.find(name), std::string::npos) << what << ": '" << found << "'";
  }

  void flip_bytes(const std::string& name) {
    const std::string path = directory_ / name;
    const std::string sound = content(path);
    std::mt19937 bits(7);
    const int fd = ::open(path.c_str(), O_WRONLY);
    // HDF5's own structures byte by byte, the long rest by sample.
    for (std::size_t i = 0; i < sound.size() && !HasFatalFailure();
         i += i < 6000 ? 1 : 1 + bits() % 31) {
      const char changed = static_cast<char>(sound[i] ^ static_cast<char>(1 << bits() % 8));
      ASSERT_EQ(::pwrite(fd, &changed, 1, static_cast<off_t>(i)), 1);
      expect_refused(name, fmt::format("byte {}", i));
      ASSERT_EQ(::pwrite(fd, &sound[i], 1, static_cast<off_t>(i)), 1);
    }
    ::close(fd);
    EXPECT_EQ(problem_of(s_), "");
  }

  void cut_everywhere(const std::string& name, std::size_t step) {
    const fs::path path = directory_ / name;
    const std::string sound = content(path);
    for (std::size_t cut = 0; cut < sound.size() && !HasFatalFailure(); cut += step) {
      put(path, sound.substr(0, cut));
      expect_refused(name, fmt::format("cut to {}", cut));
    }
    put(path, sound + "x");
    expect_refused(name, "one byte more");
    put(path, sound);
    EXPECT_EQ(problem_of(s_), "");
  }

  Sample s_;
  fs::path directory_;
  std::optional<DocumentCheckpoint> open_ = store.find(s_.info, s_.tokens);
};

TEST_F(MutationTest, EveryByteOfTheManifest) {
  flip_bytes("manifest.json");
}
TEST_F(MutationTest, BytesOfTheDocumentFile) {
  flip_bytes("document.h5");
}
TEST_F(MutationTest, BytesOfABlockFile) {
  flip_bytes("block-00001.h5");
}

TEST_F(MutationTest, EveryCut) {
  cut_everywhere("manifest.json", 1);
  cut_everywhere("document.h5", 997);
  cut_everywhere("block-00001.h5", 997);
}

TEST_F(MutationTest, AnyBytesInTheManifest) {
  const fs::path path = directory_ / "manifest.json";
  const std::string sound = content(path);
  std::mt19937 random(11);
  for (int round = 0; round < 3000 && !HasFatalFailure(); ++round) {
    std::string text = sound;
    for (unsigned n = 1 + random() % 8; n > 0; --n) {
      const std::size_t at = random() % text.size();
      if (random() % 2)
        text[at] = static_cast<char>(random());
      else
        text.erase(at, random() % 40);
      if (random() % 2)
        text.insert(at % (text.size() + 1), sound.substr(random() % sound.size(), 30));
    }
    if (text == sound) continue;
    put(path, text);
    expect_refused("manifest.json", text);
    const DocumentSummary summary = summarize_document(directory_, store.list().at(0).key);
    ASSERT_NE(summary.problem, "");
  }
}

TEST_F(MutationTest, AMissingFileIsNamed) {
  for (const char* name : {"document.h5", "block-00001.h5"}) {
    fs::rename(directory_ / name, folder_ / "away");
    expect_refused(name, "missing");
    fs::rename(folder_ / "away", directory_ / name);
  }
}

TEST_F(MutationTest, SymbolicLinksAreNeverFollowed) {
  for (const char* name : {"manifest.json", "document.h5", "block-00001.h5"}) {
    fs::rename(directory_ / name, folder_ / "away");
    fs::create_symlink(folder_ / "away", directory_ / name);
    expect_refused(name, "symbolic link");
    fs::remove(directory_ / name);
    fs::rename(folder_ / "away", directory_ / name);
  }
  put(folder_ / "target", "precious");
  for (const char* name : {"lock", "in-use"}) {
    fs::remove(directory_ / name);
    fs::create_symlink(folder_ / "target", directory_ / name);
    const auto error = error_of([&] { store.open_or_create(s_.info, s_.tokens); });
    ASSERT_TRUE(error) << name;
    EXPECT_NE(std::string(error->what()).find(name), std::string::npos) << error->what();
    fs::remove(directory_ / name);
  }
  EXPECT_EQ(content(folder_ / "target"), "precious");
}

TEST_F(MutationTest, AFifoOrADirectoryInAFilesPlaceIsRefused) {
  for (const char* name : {"manifest.json", "document.h5", "block-00001.h5"}) {
    fs::rename(directory_ / name, folder_ / "away");
    ASSERT_EQ(::mkfifo((directory_ / name).c_str(), 0600), 0);
    expect_refused(name, "fifo");
    fs::remove(directory_ / name);
    fs::create_directory(directory_ / name);
    expect_refused(name, "directory");
    fs::remove(directory_ / name);
    fs::rename(folder_ / "away", directory_ / name);
  }
}

TEST_F(MutationTest, DamageIsReportedAndADamagedBlockIsWrittenAgain) {
  put(directory_ / "block-00001.h5",
      content(directory_ / "block-00001.h5").replace(70000, 4, "oops"));
  DocumentCheckpoint document = store.open_or_create(s_.info, s_.tokens);
  EXPECT_EQ(document.blocks_present(), (std::vector<std::int64_t>{0, 1}));  // its size is right
  EXPECT_FALSE(document.damage_of(0));
  ASSERT_TRUE(document.damage_of(1));
  EXPECT_NE(document.damage_of(1)->find("block-00001.h5: damaged in piece 0"), std::string::npos);
  EXPECT_FALSE(document.discard_if_damaged(0));
  EXPECT_TRUE(document.discard_if_damaged(1));
  EXPECT_EQ(document.blocks_present(), (std::vector<std::int64_t>{0}));
  EXPECT_TRUE(write(document, 1));
  EXPECT_EQ(problem_of(s_), "");
}

TEST_F(MutationTest, ADamagedManifestIsRefusedOrRebuilt) {
  put(directory_ / "manifest.json", "{}");
  EXPECT_TRUE(error_of([&] { store.open_or_create(s_.info, s_.tokens); }));
  EXPECT_EQ(content(directory_ / "manifest.json"), "{}");
  DocumentCheckpoint rebuilt = store.open_or_create(s_.info, s_.tokens, OnDamage::rebuild);
  EXPECT_TRUE(rebuilt.blocks_present().empty());
  for (const std::int64_t block : {0, 1}) EXPECT_TRUE(write(rebuilt, block));
  EXPECT_EQ(problem_of(s_), "");
}

TEST_F(MutationTest, AManifestOfAnotherFormatVersionIsLeftAlone) {
  const std::string sound = content(directory_ / "manifest.json");
  const std::string stated = fmt::format("\"format_version\": {}", kFormatVersion);
  std::string other = sound;
  ASSERT_NE(other.find(stated), std::string::npos);
  other.replace(other.find(stated), stated.size(), "\"format_version\": 99");
  put(directory_ / "manifest.json", other);
  const auto error = error_of([&] { store.open_or_create(s_.info, s_.tokens, OnDamage::rebuild); });
  ASSERT_TRUE(error);
  EXPECT_NE(std::string(error->what()).find("the file has 99"), std::string::npos) << error->what();
  EXPECT_EQ(content(directory_ / "manifest.json"), other);
  put(directory_ / "manifest.json", sound);
  EXPECT_EQ(problem_of(s_), "");
}

TEST_F(MutationTest, AManifestThatCannotBeReadNowIsNotRebuilt) {
  if (::geteuid() == 0) GTEST_SKIP() << "root may read everything";
  const fs::path path = directory_ / "manifest.json";
  fs::permissions(path, fs::perms::none);
  const auto error = error_of([&] { store.open_or_create(s_.info, s_.tokens, OnDamage::rebuild); });
  fs::permissions(path, fs::perms::owner_read | fs::perms::owner_write);
  ASSERT_TRUE(error);
  EXPECT_EQ(error->exit(), Exit::io);
  EXPECT_EQ(problem_of(s_), "");
}

TEST_F(MutationTest, ADamagedDocumentFileCostsNoBlock) {
  put(directory_ / "document.h5", "not HDF5");
  DocumentCheckpoint rebuilt = store.open_or_create(s_.info, s_.tokens, OnDamage::rebuild);
  EXPECT_EQ(rebuilt.blocks_present(), (std::vector<std::int64_t>{0, 1}));
  EXPECT_EQ(problem_of(s_), "");
}

}  // namespace
}  // namespace starattn
