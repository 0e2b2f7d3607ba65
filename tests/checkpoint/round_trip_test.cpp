// SPDX-License-Identifier: Apache-2.0
// What is saved comes back bit for bit, and only under the key of its content.
#include <numeric>
#include <set>

#include "checkpoint/fingerprint.h"
#include "store_test.h"

namespace starattn {
namespace {

class RoundTripTest : public StoreTest {};

TEST_F(RoundTripTest, EveryBlockComesBackBitForBit) {
  for (const Dtype dtype : {Dtype::f32, Dtype::bf16, Dtype::f16, Dtype::f8}) {
    for (const std::int64_t n_tokens : {1, 4, 10, 12}) {
      const Sample s = sample(n_tokens, 4, dtype);
      save(s);
      EXPECT_EQ(problem_of(s), "") << name_of(dtype) << " " << n_tokens;
    }
  }
}

TEST_F(RoundTripTest, EveryBf16ThereIsComesBack) {
  Sample s = sample(64, 64, Dtype::bf16);
  s.info.n_kv_heads = 8;
  s.info.head_dim = 128;
  std::vector<std::uint16_t> all(65536);
  std::iota(all.begin(), all.end(), std::uint16_t{0});
  // A subnormal in front spoils later values where HDF5 converts, so the order matters too.
  std::vector<std::uint16_t> mixed = all;
  std::shuffle(mixed.begin(), mixed.end(), std::mt19937(1));
  DocumentCheckpoint document = store.open_or_create(s.info, s.tokens);
  write(document, 0, [&](std::int64_t, KvPart part) {
    return std::as_bytes(std::span(part == KvPart::k ? all : mixed));
  });
  const std::vector<Bytes> found = read(document, 0);
  for (std::size_t part = 0; part < found.size(); ++part) {
    const auto& given = part % 2 == 0 ? all : mixed;
    EXPECT_EQ(std::memcmp(found[part].data(), given.data(), found[part].size()), 0) << part;
  }
}

TEST_F(RoundTripTest, F32KeepsNanPayloadsSubnormalsAndSigns) {
  Sample s = sample(1, 4);
  const std::vector<std::uint32_t> bits = {0x7f800001, 0xffc12345, 0x7fffffff, 0x00000001,
                                           0x807fffff, 0x80000000, 0x7f800000, 0xff800000};
  DocumentCheckpoint document = store.open_or_create(s.info, s.tokens);
  write(document, 0, [&](std::int64_t, KvPart) { return std::as_bytes(std::span(bits)); });
  for (const Bytes& part : read(document, 0))
    EXPECT_EQ(std::memcmp(part.data(), bits.data(), part.size()), 0);
}

TEST_F(RoundTripTest, ABlockOfSeveralPiecesComesBack) {
  Sample s = sample(1100, 1100);
  s.info.n_layers = 1;
  s.info.n_kv_heads = 64;
  s.info.head_dim = 128;  // 34 MiB each of K and V, 5 pieces
  const fs::path directory = save(s);
  EXPECT_EQ(problem_of(s), "");
  EXPECT_GT(fs::file_size(directory / "block-00000.h5"), 4 * kPieceBytes);
}

TEST_F(RoundTripTest, EqualContentsGiveEqualBytes) {
  const Sample s = sample();
  const fs::path directory = save(s);
  const CheckpointStore other((folder_ / "other").string());
  DocumentCheckpoint again = other.open_or_create(s.info, s.tokens);
  for (const std::int64_t block : {2, 0, 1}) write(again, block);
  for (const char* name : {"manifest.json", "document.h5", "block-00000.h5", "block-00002.h5"})
    EXPECT_EQ(content(directory / name), content(fs::path(again.directory()) / name)) << name;
}

TEST_F(RoundTripTest, AnythingThatChangesTheValuesChangesTheKey) {
  const Sample s = sample();
  save(s);
  std::vector<Sample> others(7, s);
  others[0].tokens[9] += 1;
  others[1].tokens.pop_back();
  others[2].info.plan = "block_size=4 anchor_size=0 reach=0";
  others[2].info.anchor_size = 0;
  others[3].info.plan = "block_size=4 anchor_size=4 reach=1";
  others[3].info.reach = 1;
  others[4].info.kv_dtype = Dtype::bf16;
  others[5].info.model = digest_of("another model");
  std::swap(others[6].tokens[0], others[6].tokens[1]);
  std::set<Digest> keys;
  for (const Sample& other : others) {
    EXPECT_FALSE(store.find(other.info, other.tokens));
    keys.insert(store.open_or_create(other.info, other.tokens).key());
  }
  EXPECT_EQ(keys.size(), others.size());
  EXPECT_EQ(store.list().size(), others.size() + 1);
  EXPECT_EQ(problem_of(s), "");
}

TEST_F(RoundTripTest, WhoMadeItAndWhereChangesNothing) {
  Sample s = sample();
  save(s);
  s.info.provenance = {"another program", "another line", "another day", "another host"};
  EXPECT_EQ(problem_of(s), "");
  fs::rename(folder_ / "kept", folder_ / "moved");
  store = CheckpointStore((folder_ / "moved").string());
  EXPECT_EQ(problem_of(s), "");
  const DocumentCheckpoint opened = store.open(store.list().at(0).key);
  EXPECT_EQ(opened.info().provenance.command_line, "starattn run --model m");
  EXPECT_EQ(opened.info().provenance.host, "here");
}

TEST_F(RoundTripTest, ADocumentUnderAnotherKeyIsRefused) {
  const Sample s = sample();
  const Sample t = sample(10, 4, Dtype::f32, 1);
  const fs::path from = save(s);
  const fs::path to = save(t);
  fs::remove_all(to);
  fs::copy(from, to);
  EXPECT_NE(problem_of(t).find("manifest.json: key: expected"), std::string::npos) << problem_of(t);
}

TEST_F(RoundTripTest, ABlockInAnothersPlaceIsRefused) {
  const Sample s = sample(8, 4);
  const fs::path directory = save(s);
  fs::copy_file(directory / "block-00000.h5", directory / "block-00001.h5",
                fs::copy_options::overwrite_existing);
  EXPECT_NE(problem_of(s).find("block-00001.h5"), std::string::npos) << problem_of(s);
}

TEST_F(RoundTripTest, SizesThatDoNotFitAreRefused) {
  const auto refused = [&](const Sample& s) {
    const auto error = error_of([&] { store.open_or_create(s.info, s.tokens); });
    return error && error->exit() == Exit::bad_data;
  };
  std::vector<Sample> wrong(6, sample());
  wrong[0].tokens.clear();
  wrong[1].info.n_blocks = 4;
  wrong[2].info.anchor_size = 5;
  wrong[3].info.head_dim = 0;
  wrong[4].info.plan = "";
  wrong[5].info.n_layers = -1;
  for (std::size_t i = 0; i < wrong.size(); ++i) EXPECT_TRUE(refused(wrong[i])) << i;
  EXPECT_FALSE(fs::exists(folder_ / "kept"));
}

TEST_F(RoundTripTest, AReadOnlyStoreIsRead) {
  const Sample s = sample();
  const fs::path directory = save(s);
  fs::remove(directory / "lock");
  fs::remove(directory / "in-use");
  EXPECT_EQ(problem_of(s), "");
  EXPECT_FALSE(fs::exists(directory / "in-use"));
}

FileDigests digests_of(std::string_view bytes, int n_threads = 1) {
  return {bytes.size(), digest_pieces(std::as_bytes(std::span(bytes)), 0, 1, n_threads)};
}

TEST_F(RoundTripTest, ModelFingerprintSeesEveryByteAndNoOrderOrThread) {
  std::string big(3 * kPieceBytes + 17, 'w');
  const FileDigests a = digests_of(big);
  const FileDigests b = digests_of("small");
  EXPECT_EQ(a, digests_of(big, 3));
  const Digest whole = model_fingerprint("config", {a, b});
  EXPECT_EQ(whole, model_fingerprint("config", {b, a}));
  EXPECT_NE(whole, model_fingerprint("other", {a, b}));
  // As version 0.1.0 made it: checkpoints are found by it.
  EXPECT_EQ(whole.hex(), "02f349f14603825a975dc6eba41dc1ec");
  big[2 * kPieceBytes + 5] = 'x';
  EXPECT_NE(whole, model_fingerprint("config", {digests_of(big), b}));
}

TEST_F(RoundTripTest, PiecesHaveTheSameDigestsInSharesAndInPassing) {
  std::string bytes(2 * kPieceBytes + 17, 'w');
  for (std::size_t i = 0; i < bytes.size(); i += 4099) bytes[i] = static_cast<char>(i);
  for (const std::size_t n : {bytes.size(), 2 * kPieceBytes, std::size_t{5}, std::size_t{0}}) {
    const auto some = std::as_bytes(std::span(bytes)).first(n);
    const FileDigests whole = digests_of(std::string_view(bytes).substr(0, n));
    ASSERT_EQ(whole.pieces.size(), n_pieces_of(n));
    for (const std::size_t step : {1, 2, 5}) {
      for (std::size_t first = 0; first < step; ++first) {
        const std::vector<Digest> share = digest_pieces(some, first, step, 2);
        std::size_t n_share = 0;
        for (std::size_t piece = first; piece < whole.pieces.size(); piece += step, ++n_share)
          EXPECT_EQ(share.at(n_share), whole.pieces[piece]);
        EXPECT_EQ(share.size(), n_share);
      }
    }
    PieceDigests passing;
    for (std::size_t at = 0; at < n; at += 1'000'003)
      passing.add(some.subspan(at, std::min<std::size_t>(1'000'003, n - at)));
    EXPECT_EQ(passing.value(), whole);
  }
}

}  // namespace
}  // namespace starattn
