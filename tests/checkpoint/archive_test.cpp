// SPDX-License-Identifier: Apache-2.0
#include "checkpoint/archive.h"

#include "store_test.h"

namespace starattn {
namespace {

class ArchiveTest : public StoreTest {
 protected:
  std::string archive_ = folder_ / "one.tar";
  CheckpointStore other_{folder_ / "other", 2.0};

  Imported import_bytes(const std::string& bytes) const {
    put(archive_, bytes);
    return import_document(other_, archive_);
  }
};

TEST_F(ArchiveTest, ADocumentComesBackWhole) {
  const Sample s = sample();
  save(s);
  const Digest key = store.list()[0].key;
  export_document(store, key, archive_);
  const std::string first = content(archive_);
  const Imported imported = import_document(other_, archive_);
  EXPECT_EQ(imported.key, key);
  EXPECT_EQ(imported.n_blocks, s.info.n_blocks);
  EXPECT_EQ(imported.n_new, s.info.n_blocks);
  const auto there = other_.find(s.info, s.tokens);
  ASSERT_TRUE(there);
  for (std::int64_t block = 0; block < s.info.n_blocks; ++block)
    EXPECT_EQ(read(*there, block), wanted(there->info(), block));
  EXPECT_EQ(n_temporaries(there->directory()), 0);
  EXPECT_EQ(import_document(other_, archive_).n_new, 0) << "it is there already";
  fs::remove(archive_);
  export_document(other_, key, archive_);
  EXPECT_EQ(content(archive_), first) << "equal documents give equal files";
}

TEST_F(ArchiveTest, TarReadsIt) {
  save(sample());
  export_document(store, store.list()[0].key, archive_);
  const std::string command = "cd " + folder_.string() + " && tar -xf one.tar";
  ASSERT_EQ(std::system(command.c_str()), 0);
  fs::rename(folder_ / store.list()[0].key.hex(), folder_ / "unpacked");
  for (const char* name : {"manifest.json", "document.h5", "block-00000.h5", "block-00002.h5"})
    EXPECT_EQ(content(folder_ / "unpacked" / name),
              content(store.list()[0].directory + "/" + name));
}

TEST_F(ArchiveTest, WhatIsThereIsCompleted) {
  const Sample s = sample();
  save(s);
  export_document(store, store.list()[0].key, archive_);
  DocumentCheckpoint part = other_.open_or_create(s.info, s.tokens);
  write(part, 1);
  EXPECT_EQ(import_document(other_, archive_).n_new, s.info.n_blocks - 1);
  EXPECT_EQ(std::ssize(part.blocks_present()), s.info.n_blocks);
}

TEST_F(ArchiveTest, WhatStandsInTheWayIsSetAside) {
  save(sample());
  const std::string key = store.list()[0].key.hex();
  export_document(store, store.list()[0].key, archive_);
  for (const bool is_link : {true, false}) {
    fs::remove_all(folder_ / "other");
    fs::create_directories(folder_ / "other");
    fs::create_directories(folder_ / "elsewhere");
    if (is_link) {
      fs::create_directory_symlink(folder_ / "elsewhere", folder_ / "other" / key);
    } else {
      put(folder_ / "other" / key, "no folder");
    }
    import_document(other_, archive_);
    EXPECT_TRUE(fs::is_empty(folder_ / "elsewhere")) << "written through a link";
    EXPECT_TRUE(other_.list()[0].complete());
    EXPECT_TRUE(fs::exists(fs::symlink_status(folder_ / "other" / (key + ".set-aside-1"))));
  }
}

TEST_F(ArchiveTest, NothingIsReplaced) {
  save(sample());
  put(archive_, "mine");
  EXPECT_EQ(error_of([&] { export_document(store, store.list()[0].key, archive_); })->exit(),
            Exit::cannot_create);
  EXPECT_EQ(content(archive_), "mine");
  EXPECT_EQ(error_of([&] { export_document(store, digest_of("x"), folder_ / "x"); })->exit(),
            Exit::no_input);
}

TEST_F(ArchiveTest, ADamagedBlockIsNotExported) {
  const fs::path directory = save(sample());
  std::string bytes = content(directory / "block-00001.h5");
  bytes[bytes.size() / 2] ^= 1;
  put(directory / "block-00001.h5", bytes);
  EXPECT_EQ(error_of([&] { export_document(store, store.list()[0].key, archive_); })->exit(),
            Exit::bad_data);
  EXPECT_FALSE(fs::exists(archive_));
}

// Bytes all over an archive, and lengths: refused, or only what tar does not say.
TEST_F(ArchiveTest, DamageIsNoticed) {
  const Sample s = sample(4);
  save(s);
  export_document(store, store.list()[0].key, archive_);
  const std::string whole = content(archive_);
  for (std::size_t at = 0; at < whole.size(); at += at < 3000 ? 29 : 701) {
    std::string bytes = whole;
    bytes[at] = static_cast<char>(bytes[at] ^ 0x15);
    fs::remove_all(folder_ / "other");
    const std::optional<Error> error = error_of([&] { import_bytes(bytes); });
    if (error) {
      EXPECT_EQ(error->exit(), Exit::bad_data) << at << ": " << error->what();
      continue;
    }
    const auto there = other_.find(s.info, s.tokens);
    ASSERT_TRUE(there) << at;
    EXPECT_EQ(read(*there, 0), wanted(there->info(), 0)) << at;
  }
  for (std::size_t n = 0; n + 1024 < whole.size(); n += 2777) {
    fs::remove_all(folder_ / "other");
    const std::optional<Error> error = error_of([&] { import_bytes(whole.substr(0, n)); });
    ASSERT_TRUE(error) << n;
    EXPECT_EQ(error->exit(), Exit::bad_data);
    EXPECT_TRUE(other_.list().empty() || !other_.list()[0].complete());
  }
}

TEST_F(ArchiveTest, AListingSaysWhatTheDocumentIsCalled) {
  const Sample s = sample();
  save(s);
  EXPECT_EQ(store.list()[0].name, "");
  store.open_or_create(s.info, s.tokens).note_name("report\n7");
  EXPECT_EQ(store.list()[0].name, "report 7");
  store.find(s.info, s.tokens);
  EXPECT_EQ(store.list()[0].name, "report 7");
}

}  // namespace
}  // namespace starattn
