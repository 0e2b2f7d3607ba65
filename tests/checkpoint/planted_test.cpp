// SPDX-License-Identifier: Apache-2.0
// What someone else put where a document's files belong, and documents that may only be read.
#include "store_test.h"

namespace starattn {
namespace {

class PlantedTest : public StoreTest {
 protected:
  // Opens the document as a run does and saves what is missing.
  void save_again(const Sample& s) {
    DocumentCheckpoint document = store.open_or_create(s.info, s.tokens, OnDamage::rebuild);
    for (std::int64_t block = 0; block < s.info.n_blocks; ++block) write(document, block);
  }
  static fs::path aside(const fs::path& directory, int n) {
    return directory.string() + fmt::format(".set-aside-{}", n);
  }
};

TEST_F(PlantedTest, AFolderInAFilesPlaceSetsTheDocumentAside) {
  const Sample s = sample();
  const fs::path directory = save(s);
  int n = 0;
  for (const char* name : {"manifest.json", "document.h5", "block-00001.h5", "block-00002.h5"}) {
    fs::remove(directory / name);
    fs::create_directories(directory / name / "inside");
    EXPECT_TRUE(error_of([&] { store.open_or_create(s.info, s.tokens); })) << name;
    save_again(s);
    EXPECT_EQ(problem_of(s), "") << name;
    EXPECT_TRUE(fs::is_directory(aside(directory, ++n) / name / "inside")) << name;
  }
  EXPECT_EQ(store.list().size(), 1);
}

TEST_F(PlantedTest, ALinkedDocumentFolderIsSetAsideAndNothingIsWrittenThroughIt) {
  const Sample s = sample();
  const fs::path directory = save(s);
  const fs::path elsewhere = folder_ / "elsewhere";
  for (const bool is_complete : {true, false}) {
    fs::remove_all(elsewhere);
    fs::rename(directory, elsewhere);
    if (!is_complete) fs::remove(elsewhere / "block-00001.h5");
    const std::string before = content(elsewhere / "manifest.json");
    fs::create_directory_symlink(elsewhere, directory);
    save_again(s);
    EXPECT_EQ(problem_of(s), "");
    EXPECT_FALSE(fs::is_symlink(directory));
    EXPECT_TRUE(fs::is_symlink(aside(directory, is_complete ? 1 : 2)));
    EXPECT_EQ(content(elsewhere / "manifest.json"), before);
    EXPECT_EQ(fs::exists(elsewhere / "block-00001.h5"), is_complete);
  }
}

TEST_F(PlantedTest, AFolderThatAnotherProcessUsesStays) {
  const Sample s = sample();
  const fs::path directory = save(s);
  const DocumentCheckpoint other = store.open_or_create(s.info, s.tokens);
  fs::remove(directory / "block-00001.h5");
  fs::create_directory(directory / "block-00001.h5");
  const auto error = error_of([&] { save_again(s); });
  ASSERT_TRUE(error);
  EXPECT_EQ(error->exit(), Exit::io);
  EXPECT_TRUE(fs::is_directory(directory / "block-00001.h5"));
}

TEST_F(PlantedTest, ALockThatIsNoFileSaysWhatToRemove) {
  const Sample s = sample();
  const fs::path directory = save(s);
  put(folder_ / "target", "precious");
  for (const char* name : {"lock", "in-use"}) {
    for (const bool is_link : {true, false}) {
      fs::remove(directory / name);
      if (is_link) {
        fs::create_symlink(folder_ / "target", directory / name);
      } else {
        fs::create_directory(directory / name);
      }
      const auto error = error_of([&] { save_again(s); });
      ASSERT_TRUE(error) << name;
      EXPECT_EQ(error->exit(), Exit::cannot_create);
      const std::string message = error->what();
      EXPECT_NE(message.find((directory / name).string()), std::string::npos) << message;
      EXPECT_NE(message.find("Remove it"), std::string::npos) << message;
      fs::remove(directory / name);
    }
  }
  EXPECT_EQ(content(folder_ / "target"), "precious");
  save_again(s);
  EXPECT_EQ(problem_of(s), "");
}

// In a child, as a user without rights.
TEST_F(PlantedTest, WhereOneMayOnlyReadACompleteDocumentIsUsed) {
  const Sample s = sample();
  const fs::path directory = save(s);
  fs::permissions(folder_, fs::perms::all);
  const auto as_reader = [&](const std::function<void()>& body) {
    fs::permissions(directory, fs::perms(0555));
    fs::permissions(directory.parent_path(), fs::perms(0555));
    const bool is_good = ended_well(start_child([&] {
      if (::geteuid() == 0) STARATTN_CHECK(::seteuid(65534) == 0);
      body();
    }));
    fs::permissions(directory, fs::perms(0755));
    fs::permissions(directory.parent_path(), fs::perms(0755));
    return is_good;
  };
  EXPECT_TRUE(as_reader([&] {
    const DocumentCheckpoint document = store.open_or_create(s.info, s.tokens, OnDamage::rebuild);
    STARATTN_CHECK(read(document, 1) == wanted(document.info(), 1));
  }));
  fs::remove(directory / "block-00001.h5");
  EXPECT_TRUE(as_reader([&] {
    const auto error = error_of([&] { store.open_or_create(s.info, s.tokens, OnDamage::rebuild); });
    STARATTN_CHECK(error && error->exit() == Exit::cannot_create);
  }));
}

}  // namespace
}  // namespace starattn
