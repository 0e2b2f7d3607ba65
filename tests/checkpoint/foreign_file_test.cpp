// SPDX-License-Identifier: Apache-2.0
// HDF5 files of others, put into the store with their right digests in the manifest: what refuses
// them is the look at their structure. None may read another file or make up values.
#include "checkpoint/document_file.h"
#include "checkpoint/file_io.h"
#include "checkpoint/hdf5_attributes.h"
#include "checkpoint/hdf5_structure.h"
#include "store_test.h"

namespace starattn {
namespace {

using h5::check;

class ForeignFileTest : public StoreTest {
 protected:
  ForeignFileTest() : s_(sample(4, 4)), directory_(save(s_)), secret_(folder_ / "secret") {
    s_.info = store.find(s_.info, s_.tokens)->info();
    put(secret_, std::string(4096, 'S'));
  }

  // Puts the file as it is now into the manifest.
  void vouch_for(const std::string& name) {
    Manifest manifest = *read_manifest(directory_, s_.info.key());
    const FileDescriptor file = open_regular(directory_ / name);
    (name == kDocumentName ? manifest.document : manifest.blocks[0]) =
        digest_file(file.get(), name);
    write_manifest(directory_, manifest);
  }

  std::string change(const std::string& name, const std::function<void(hid_t)>& edit) {
    const std::string sound = content(directory_ / name);
    {
      h5::start();
      const h5::PropertyList access = h5::property_list(H5P_FILE_ACCESS);
      check(H5Pset_libver_bounds(access, H5F_LIBVER_V110, H5F_LIBVER_V110), "set format");
      const h5::File file(H5Fopen((directory_ / name).c_str(), H5F_ACC_RDWR, access), "open");
      edit(file);
    }
    vouch_for(name);
    const std::string problem = problem_of(s_);
    EXPECT_NE(content(directory_ / name), sound);
    put(directory_ / name, sound);
    vouch_for(name);
    EXPECT_EQ(problem_of(s_), "");
    return problem;
  }

  void expect_refused(const std::string& what, const std::function<void(hid_t)>& edit,
                      const std::string& name = "block-00000.h5") {
    const std::string problem = change(name, edit);
    EXPECT_NE(problem.find(name), std::string::npos) << what << ": '" << problem << "'";
    EXPECT_NE(problem.find(what), std::string::npos) << what << ": '" << problem << "'";
  }

  using Setting = std::function<void(hid_t creation)>;
  // /layer_01/v anew, of the given type, shape and properties, with the right values where they
  // fit.
  std::function<void(hid_t)> replaced(hid_t type, const h5::Shape& shape, const Setting& set = {},
                                      const h5::Shape& most = {}) {
    return [=, this](hid_t file) {
      check(H5Ldelete(file, "/layer_01/v", H5P_DEFAULT), "delete");
      const h5::PropertyList creation = h5::property_list(H5P_DATASET_CREATE);
      check(H5Pset_obj_track_times(creation, false), "leave out dates");
      if (set) set(creation);
      const h5::Dataspace space(H5Screate_simple(static_cast<int>(shape.size()), shape.data(),
                                                 most.empty() ? nullptr : most.data()),
                                "create space");
      const h5::Dataset dataset(
          H5Dcreate2(file, "/layer_01/v", type, space, H5P_DEFAULT, creation, H5P_DEFAULT),
          "create dataset");
      const Bytes values = values_of(s_.info, 0, 1, KvPart::v);
      const bool fits = H5Tequal(type, H5T_IEEE_F32LE) > 0 && shape == shape_;
      const bool is_here =
          H5Pget_layout(creation) != H5D_VIRTUAL && H5Pget_external_count(creation) == 0;
      if (fits && is_here)
        check(H5Dwrite(dataset, type, H5S_ALL, H5S_ALL, H5P_DEFAULT, values.data()), "write");
    };
  }

  Sample s_;
  fs::path directory_;
  fs::path secret_;
  const h5::Shape shape_ = {4, 2, 4};
};

TEST_F(ForeignFileTest, TheSameStructureByAnotherHandIsAccepted) {
  // Otherwise the refusals below could be for any reason.
  EXPECT_EQ(change("block-00000.h5", replaced(H5T_IEEE_F32LE, shape_)), "");
}

// The values themselves are never written: they would go into the other file.
TEST_F(ForeignFileTest, ExternalStorageIsRefused) {
  const std::string before = content(secret_);
  expect_refused("external files", replaced(H5T_IEEE_F32LE, shape_, [this](hid_t creation) {
                   check(H5Pset_external(creation, secret_.c_str(), 0, 128), "set external");
                 }));
  EXPECT_EQ(content(secret_), before);
}

TEST_F(ForeignFileTest, LinksToElsewhereAreRefused) {
  const auto link = [](const std::function<void(hid_t)>& make) {
    return [make](hid_t file) {
      check(H5Ldelete(file, "/layer_01/v", H5P_DEFAULT), "delete");
      make(file);
    };
  };
  expect_refused("'v' is a soft or external link", link([&](hid_t file) {
                   check(H5Lcreate_external(secret_.c_str(), "/layer_01/v", file, "/layer_01/v",
                                            H5P_DEFAULT, H5P_DEFAULT),
                         "link");
                 }));
  expect_refused(
      "'v' is a soft or external link", link([](hid_t file) {
        check(H5Lcreate_soft("/layer_01/k", file, "/layer_01/v", H5P_DEFAULT, H5P_DEFAULT), "link");
      }));
  expect_refused(
      "layer_01/v: expected a dataset", link([](hid_t file) {
        check(H5Lcreate_hard(file, "/layer_00", file, "/layer_01/v", H5P_DEFAULT, H5P_DEFAULT),
              "link");
      }));
}

TEST_F(ForeignFileTest, OtherStorageIsRefused) {
  const auto chunked = [](hid_t creation) {
    const hsize_t chunk[] = {1, 2, 4};
    check(H5Pset_chunk(creation, 3, chunk), "set chunk");
  };
  expect_refused("layout", replaced(H5T_IEEE_F32LE, shape_, chunked));
  expect_refused("layout", replaced(H5T_IEEE_F32LE, shape_, [&](hid_t creation) {
                   chunked(creation);
                   check(H5Pset_shuffle(creation), "set filter");
                   check(H5Pset_fletcher32(creation), "set filter");
                 }));
  expect_refused("layout", replaced(H5T_IEEE_F32LE, shape_, [](hid_t creation) {
                   check(H5Pset_layout(creation, H5D_COMPACT), "set compact");
                 }));
  expect_refused("layout", replaced(H5T_IEEE_F32LE, shape_, [&](hid_t creation) {
                   const h5::Dataspace space(H5Screate_simple(3, shape_.data(), nullptr), "space");
                   check(H5Pset_virtual(creation, space, secret_.c_str(), "/x", space), "virtual");
                 }));
}

TEST_F(ForeignFileTest, ADatasetWithoutValuesIsRefused) {
  expect_refused("storage", [&](hid_t file) {  // never written: HDF5 would fill in zeros
    check(H5Ldelete(file, "/layer_01/v", H5P_DEFAULT), "delete");
    const h5::Dataspace space(H5Screate_simple(3, shape_.data(), nullptr), "space");
    const h5::Dataset dataset(H5Dcreate2(file, "/layer_01/v", H5T_IEEE_F32LE, space, H5P_DEFAULT,
                                         H5P_DEFAULT, H5P_DEFAULT),
                              "create dataset");
  });
}

TEST_F(ForeignFileTest, OtherTypesAreRefused) {
  for (const hid_t type : {H5T_STD_I32LE, H5T_IEEE_F32BE, H5T_IEEE_F64LE, H5T_STD_U8LE})
    expect_refused("layer_01/v: type", replaced(type, shape_));
  const h5::Datatype bf16 = h5::float_type(Dtype::bf16);
  expect_refused("layer_01/v: type", replaced(bf16, shape_));
  expect_refused("layer_01/v: type", [&](hid_t file) {
    const h5::Datatype named(H5Tcopy(H5T_IEEE_F32LE), "copy");
    check(H5Tcommit2(file, "/layer_01/name", named, H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT), "name");
    replaced(named, shape_)(file);
    check(H5Ldelete(file, "/layer_01/name", H5P_DEFAULT), "delete");
  });
}

TEST_F(ForeignFileTest, OtherShapesAreRefused) {
  for (const h5::Shape& shape :
       {h5::Shape{4, 2, 3}, {5, 2, 4}, {4, 8}, {32}, {4, 2, 4, 1}, {2, 4, 4}})
    expect_refused("layer_01/v: shape", replaced(H5T_IEEE_F32LE, shape));
  expect_refused("shape", replaced(H5T_IEEE_F32LE, shape_,
                                   [](hid_t creation) {
                                     const hsize_t chunk[] = {1, 2, 4};
                                     check(H5Pset_chunk(creation, 3, chunk), "set chunk");
                                   },
                                   {H5S_UNLIMITED, 2, 4}));
}

TEST_F(ForeignFileTest, MissingAndExtraObjectsAreRefused) {
  expect_refused("expected 2 objects",
                 [](hid_t file) { check(H5Ldelete(file, "/layer_01/k", H5P_DEFAULT), "delete"); });
  expect_refused("expected 2 objects",
                 [](hid_t file) { check(H5Ldelete(file, "/layer_00", H5P_DEFAULT), "delete"); });
  expect_refused("expected 2 objects", [](hid_t file) { h5::create_group(file, "/layer_02"); });
  expect_refused("expected 2 objects", [](hid_t file) { h5::create_group(file, "/layer_00/q"); });
  expect_refused("/layer_01: expected a group", [](hid_t file) {
    check(H5Lmove(file, "/layer_01/k", file, "/saved", H5P_DEFAULT, H5P_DEFAULT), "move");
    check(H5Ldelete(file, "/layer_01", H5P_DEFAULT), "delete");
    check(H5Lmove(file, "/saved", file, "/layer_01", H5P_DEFAULT, H5P_DEFAULT), "move");
  });
}

TEST_F(ForeignFileTest, OtherAttributesAreRefused) {
  const auto rewritten = [](const char* name, h5::AttributeValue value) {
    return [=](hid_t file) {
      if (H5Aexists(file, name) > 0) check(H5Adelete(file, name), "delete");
      h5::write_attributes(file, {{name, value}});
    };
  };
  expect_refused("attribute 'block'", rewritten("block", 1));
  expect_refused("attribute 'key'", rewritten("key", digest_of("x").hex()));
  expect_refused("attribute 'kv_dtype'", rewritten("kv_dtype", "bf16"));
  expect_refused("attribute 'n_tokens'", rewritten("n_tokens", "4"));
  expect_refused("attribute 'more'", rewritten("more", 1));
  expect_refused("attribute 'block' is missing",
                 [](hid_t file) { check(H5Adelete(file, "block"), "delete"); });
  expect_refused("attribute 'more'", [](hid_t file) {
    const h5::Dataset dataset(H5Dopen2(file, "/layer_00/k", H5P_DEFAULT), "open");
    h5::write_attributes(dataset, {{"more", 1}});
  });
  expect_refused("attribute 'format': expected a fixed-length", [](hid_t file) {
    check(H5Adelete(file, "format"), "delete");
    const h5::Datatype type(H5Tcopy(H5T_C_S1), "copy");
    check(H5Tset_size(type, H5T_VARIABLE), "set size");
    const h5::Dataspace scalar(H5Screate(H5S_SCALAR), "space");
    const h5::Attribute attribute(
        H5Acreate2(file, "format", type, scalar, H5P_DEFAULT, H5P_DEFAULT), "create");
    const char* text = "starattn kv block";
    check(H5Awrite(attribute, type, &text), "write");
  });
  expect_refused("attribute 'block': expected a single value", [](hid_t file) {
    check(H5Adelete(file, "block"), "delete");
    const hsize_t two = 2;
    const h5::Dataspace list(H5Screate_simple(1, &two, nullptr), "space");
    const h5::Attribute attribute(
        H5Acreate2(file, "block", H5T_STD_I64LE, list, H5P_DEFAULT, H5P_DEFAULT), "create");
    const std::int64_t zeros[] = {0, 0};
    check(H5Awrite(attribute, H5T_STD_I64LE, zeros), "write");
  });
  expect_refused("more than 64 attributes", [](hid_t file) {
    for (int i = 0; i < 70; ++i) h5::write_attributes(file, {{fmt::format("a{}", i), i}});
  });
}

TEST_F(ForeignFileTest, TheDocumentFileIsLookedAtJustAsClosely) {
  expect_refused(
      "external files",
      [&](hid_t file) {
        check(H5Ldelete(file, "/token_ids", H5P_DEFAULT), "delete");
        const h5::PropertyList creation = h5::property_list(H5P_DATASET_CREATE);
        check(H5Pset_external(creation, secret_.c_str(), 0, 16), "set external");
        const hsize_t n = 4;
        const h5::Dataspace space(H5Screate_simple(1, &n, nullptr), "space");
        const h5::Dataset dataset(H5Dcreate2(file, "/token_ids", H5T_STD_I32LE, space, H5P_DEFAULT,
                                             creation, H5P_DEFAULT),
                                  "create dataset");
      },
      "document.h5");
  expect_refused(
      "/token_ids: expected digest",
      [](hid_t file) {
        const h5::Dataset dataset(H5Dopen2(file, "/token_ids", H5P_DEFAULT), "open");
        const std::int32_t others[] = {9, 9, 9, 9};
        check(H5Dwrite(dataset, H5T_STD_I32LE, H5S_ALL, H5S_ALL, H5P_DEFAULT, others), "write");
      },
      "document.h5");
  expect_refused(
      "attribute 'plan'",
      [](hid_t file) {
        check(H5Adelete(file, "plan"), "delete");
        h5::write_attributes(file, {{"plan", "block_size=4 anchor_size=0 reach=0"}});
      },
      "document.h5");
}

TEST_F(ForeignFileTest, WhatIsNotHdf5IsRefused) {
  for (const std::string& text : {std::string(10, 'x'), std::string(100, '\0'),
                                  content(directory_ / "document.h5").substr(0, 4000)}) {
    const std::string sound = content(directory_ / "block-00000.h5");
    put(directory_ / "block-00000.h5", text);
    vouch_for("block-00000.h5");
    const auto error = error_of([&] { read(*store.find(s_.info, s_.tokens), 0); });
    ASSERT_TRUE(error);
    EXPECT_EQ(error->exit(), Exit::bad_data);
    EXPECT_NE(std::string(error->what()).find("block-00000.h5: "), std::string::npos);
    put(directory_ / "block-00000.h5", sound);
  }
}

// A small file that says it holds 32 GiB of tokens: nobody makes room for them. The old format has
// no checksums, so that its size can be changed.
TEST_F(ForeignFileTest, ValuesThatAreNotInTheFileAreRefused) {
  constexpr std::int64_t kTokens = std::int64_t{1} << 33;
  DocumentInfo info = s_.info;
  info.n_tokens = kTokens;
  info.block_size = kTokens;
  const std::string path = directory_ / "document.h5";
  write_document_file(path, info, s_.tokens);
  h5::Attributes attributes;
  {
    const h5::File file(H5Fopen(path.c_str(), H5F_ACC_RDONLY, H5P_DEFAULT), "open");
    attributes = h5::read_attributes(file, path);
  }
  fs::remove(path);
  {
    const h5::PropertyList access = h5::property_list(H5P_FILE_ACCESS);
    check(H5Pset_meta_block_size(access, 32768), "keep HDF5's own structures in front");
    const h5::File file(H5Fcreate(path.c_str(), H5F_ACC_TRUNC, H5P_DEFAULT, access), "create");
    h5::write_attributes(file, attributes);
    h5::create_dataset(file, "/token_ids", H5T_STD_I32LE, {kTokens});
  }
  std::string text(65536, '\0');
  std::ifstream(path, std::ios::binary).read(text.data(), 65536);
  const std::uint64_t end = text.size();
  std::memcpy(text.data() + 40, &end, 8);  // end of file, in the superblock of format 0
  fs::remove(path);
  put(path, text);
  const FileDescriptor fd = open_regular(path);
  VerifiedFile file(path, digest_file(fd.get(), path));
  const auto error = error_of([&] { read_document_file(file, info); });
  ASSERT_TRUE(error);
  // "storage: ..."; HDF5 from 1.14 on says it itself.
  EXPECT_NE(std::string(error->what()).find("/token_ids: "), std::string::npos) << error->what();
}

TEST_F(ForeignFileTest, ManifestsThatAskForOtherFilesAreRefused) {
  Manifest manifest = *read_manifest(directory_, s_.info.key());
  const std::string path = directory_ / "manifest.json";
  for (const std::int64_t block : {1, 99999, 10000000}) {
    Manifest more = manifest;
    more.blocks[block] = more.blocks[0];
    write_manifest(directory_, more);
    EXPECT_NE(problem_of(s_).find("no file of this document has that name"), std::string::npos)
        << problem_of(s_);
  }
  Manifest short_list = manifest;
  short_list.blocks[0].pieces.clear();
  write_manifest(directory_, short_list);
  EXPECT_NE(problem_of(s_).find("key 'digests': expected a list of 1"), std::string::npos);
  Manifest huge = manifest;
  huge.info.n_tokens = std::int64_t{1} << 41;
  EXPECT_THROW(Manifest::from_text(huge.to_text(), path), Error);
}

}  // namespace
}  // namespace starattn
