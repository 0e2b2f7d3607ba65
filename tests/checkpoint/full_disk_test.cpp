// SPDX-License-Identifier: Apache-2.0
// No room left: an Error, an absent block, a process that lives on and ends in order.
#include <sched.h>
#include <sys/mount.h>
#include <sys/resource.h>

#include <csignal>

#include "store_test.h"

namespace starattn {
namespace {

class FullDiskTest : public StoreTest {
 protected:
  FullDiskTest() : s_(sample(600, 512)) {  // 32 KiB a part, 200 KB a block
    s_.info.n_kv_heads = 2;
    s_.info.head_dim = 8;
  }
  Sample s_;
};

void limit_file_size(rlim_t n_bytes) {
  rlimit limit{};
  ::getrlimit(RLIMIT_FSIZE, &limit);
  limit.rlim_cur = n_bytes;
  if (::setrlimit(RLIMIT_FSIZE, &limit) != 0) throw std::runtime_error("setrlimit");
}

void expect(bool condition, const std::string& what) {
  if (!condition) throw std::runtime_error(what);
}

TEST_F(FullDiskTest, ALimitAnywhereInTheFile) {
  for (const rlim_t limit : {0, 100, 5000, 70000, 100000, 140000, 180000, 204000}) {
    fs::remove_all(folder_ / "kept");
    const pid_t child = start_child([&] {
      ::signal(SIGXFSZ, SIG_IGN);
      DocumentCheckpoint document = store.open_or_create(s_.info, s_.tokens);
      expect(write(document, 1), "block 1");
      for (int attempt = 0; attempt < 3; ++attempt) {
        limit_file_size(limit);
        const auto error = error_of([&] { write(document, 0); });
        limit_file_size(RLIM_INFINITY);
        expect(error && error->exit() == Exit::io, "an error of I/O");
        expect(std::string(error->what()).find("block-00000.h5") != std::string::npos,
               error->what());
        expect(document.blocks_present() == std::vector<std::int64_t>{1}, "block 0 is absent");
        expect(n_temporaries(document.directory()) == 0, "nothing is left");
      }
      expect(write(document, 0), "block 0 after all");
    });
    EXPECT_TRUE(ended_well(child)) << "limit " << limit;
    EXPECT_EQ(problem_of(s_), "") << "limit " << limit;
  }
}

TEST_F(FullDiskTest, ALimitWhileADocumentIsMade) {
  for (const rlim_t limit : {0, 600, 5000, 67000}) {
    const pid_t child = start_child([&] {
      ::signal(SIGXFSZ, SIG_IGN);
      limit_file_size(limit);
      const auto error = error_of([&] { store.open_or_create(s_.info, s_.tokens); });
      expect(error && error->exit() == Exit::io, "an error of I/O");
      expect(!store.find(s_.info, s_.tokens), "no document");
      limit_file_size(RLIM_INFINITY);
      store.open_or_create(s_.info, s_.tokens);
    });
    EXPECT_TRUE(ended_well(child)) << "limit " << limit;
    fs::remove_all(folder_ / "kept");
  }
}

// Mounting is for root: a user becomes root in a namespace of his own, where that is allowed.
bool become_root() {
  const std::string uid_map = fmt::format("0 {} 1", ::getuid());
  const std::string gid_map = fmt::format("0 {} 1", ::getgid());
  if (::unshare(CLONE_NEWUSER) != 0) return false;
  put("/proc/self/setgroups", "deny");
  put("/proc/self/uid_map", uid_map);
  put("/proc/self/gid_map", gid_map);
  return ::getuid() == 0 && ::getgid() == 0;
}

// A file system of its own, in a mount namespace that ends with the process.
bool mount_small_disk(const fs::path& folder, const char* options) {
  if (::unshare(CLONE_NEWNS) != 0 && !(become_root() && ::unshare(CLONE_NEWNS) == 0)) return false;
  return ::mount(nullptr, "/", nullptr, MS_REC | MS_PRIVATE, nullptr) == 0 &&
         ::mount("tmpfs", folder.c_str(), "tmpfs", 0, options) == 0;
}

TEST_F(FullDiskTest, ADiskThatIsReallyFull) {
  constexpr int kNoMount = 77;
  for (const char* options : {"size=128k", "size=256k", "size=500k", "size=700k"}) {
    const pid_t child = start_child([&] {
      fs::create_directory(folder_ / "disk");
      if (!mount_small_disk(folder_ / "disk", options)) std::_Exit(kNoMount);
      Sample many = sample(8 * 512, 512);
      many.info.head_dim = 8;
      const CheckpointStore small(folder_ / "disk");
      DocumentCheckpoint document = small.open_or_create(many.info, many.tokens);
      const auto error = error_of([&] {
        for (std::int64_t block = 0; block < 8; ++block) write(document, block);
      });
      expect(error && error->exit() == Exit::io, error ? error->what() : "an error of I/O");
      for (const std::int64_t block : document.blocks_present())
        expect(read(document, block) == wanted(document.info(), block), "values");
      expect(document.blocks_present().size() < 8, "a block is absent");
      expect(n_temporaries(document.directory()) == 0, "nothing is left");
      expect(small.list().at(0).problem.empty(), "the store is usable");
    });
    const int status = status_of(child);
    fs::remove(folder_ / "disk");  // not before: that would unmount the disk
    if (WIFEXITED(status) && WEXITSTATUS(status) == kNoMount) GTEST_SKIP() << "may not mount";
    EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 0) << options;
  }
}

}  // namespace
}  // namespace starattn
