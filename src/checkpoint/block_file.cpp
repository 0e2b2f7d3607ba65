// SPDX-License-Identifier: Apache-2.0
#include "checkpoint/block_file.h"

#include <algorithm>
#include <array>

#include "base/error.h"
#include "checkpoint/hdf5_attributes.h"
#include "checkpoint/hdf5_structure.h"
#include "checkpoint/hdf5_verified.h"

namespace starattn {
namespace {

constexpr std::array kParts{KvPart::k, KvPart::v};

std::string group_name(std::int64_t layer) {
  return fmt::format("layer_{:02d}", layer);
}

std::string part_name(std::int64_t layer, KvPart part) {
  return fmt::format("/{}/{}", group_name(layer), part == KvPart::k ? "k" : "v");
}

h5::Attributes attributes_of(const DocumentInfo& info, std::int64_t block) {
  return {{"format", "starattn kv block"},
          {"format_version", 1},
          {"key", info.key().hex()},
          {"block", block},
          {"first_token", info.first_token(block)},
          {"n_tokens", info.n_tokens_of(block)},
          {"kv_dtype", std::string(name_of(info.kv_dtype))},
          {"n_layers", info.n_layers},
          {"n_kv_heads", info.n_kv_heads},
          {"head_dim", info.head_dim}};
}

// FP8 rows are bytes: numbers, then the exponents of their scales.
h5::Shape shape_of(const DocumentInfo& info, std::int64_t block) {
  const auto n_tokens = static_cast<hsize_t>(info.n_tokens_of(block));
  if (info.kv_dtype == Dtype::f8) return {n_tokens, info.part_bytes(1)};
  return {n_tokens, static_cast<hsize_t>(info.n_kv_heads), static_cast<hsize_t>(info.head_dim)};
}

h5::Datatype type_of(const DocumentInfo& info) {
  if (info.kv_dtype == Dtype::f8) return {H5Tcopy(H5T_STD_U8LE), "copy an integer type"};
  return h5::float_type(info.kv_dtype);
}

// Calls visit(layer, part) in the order of the file.
template <typename Visit>
void for_each_part(const DocumentInfo& info, const Visit& visit) {
  for (std::int64_t layer = 0; layer < info.n_layers; ++layer) {
    for (const KvPart part : kParts) visit(layer, part);
  }
}

void create_structure(hid_t file, const DocumentInfo& info, std::int64_t block) {
  h5::write_attributes(file, attributes_of(info, block));
  const h5::Datatype type = type_of(info);
  for (std::int64_t layer = 0; layer < info.n_layers; ++layer) {
    h5::create_group(file, group_name(layer));
    for (const KvPart part : kParts) {
      h5::create_dataset(file, part_name(layer, part), type, shape_of(info, block));
    }
  }
}

void check_structure(hid_t file, const DocumentInfo& info, std::int64_t block,
                     const std::string& path) {
  h5::expect_equal(h5::read_attributes(file, path), attributes_of(info, block), path);
  std::vector<std::string> groups;
  for (std::int64_t layer = 0; layer < info.n_layers; ++layer) groups.push_back(group_name(layer));
  h5::expect_links(file, groups, path);
  const h5::Datatype type = type_of(info);
  for (const std::string& name : groups) {
    const h5::Group group = h5::open_group(file, name, path);
    h5::expect_links(group, {"k", "v"}, path + ": /" + name);
    for (const char* part : {"k", "v"}) {
      h5::open_dataset(group, part, type, shape_of(info, block),
                       fmt::format("{}: /{}/{}", path, name, part));
    }
  }
}

// Reads rows [first, first + n) of a dataset of the given shape, then hands over to the digest.
class RowReader {
 public:
  RowReader(const DocumentInfo& info, std::int64_t block)
      : shape_(shape_of(info, block)),
        row_bytes_(info.part_bytes(1)),
        n_rows_at_once_(std::clamp<hsize_t>(kPieceBytes / row_bytes_, 1, shape_[0])),
        rows_(n_rows_at_once_ * row_bytes_) {}

  Digest digest(hid_t dataset, hid_t type, const std::string& where) {
    StreamDigest digest;
    for (hsize_t first = 0; first < shape_[0]; first += n_rows_at_once_) {
      const hsize_t n = std::min(n_rows_at_once_, shape_[0] - first);
      const h5::Dataspace wanted(H5Dget_space(dataset), "get the space of " + where);
      h5::Shape start(shape_.size(), 0);
      h5::Shape count = shape_;
      start[0] = first;
      count[0] = n;
      h5::check(
          H5Sselect_hyperslab(wanted, H5S_SELECT_SET, start.data(), nullptr, count.data(), nullptr),
          "select rows of " + where);
      const h5::Dataspace memory(
          H5Screate_simple(static_cast<int>(count.size()), count.data(), nullptr),
          "create a space");
      h5::check(H5Dread(dataset, type, memory, wanted, H5P_DEFAULT, rows_.data()), "read " + where);
      digest.add(std::span(rows_).first(n * row_bytes_));
    }
    return digest.value();
  }

 private:
  h5::Shape shape_;
  std::size_t row_bytes_;
  hsize_t n_rows_at_once_;
  std::vector<std::byte> rows_;
};

}  // namespace

std::vector<Digest> write_block_file(const std::string& path, const DocumentInfo& info,
                                     std::int64_t block, const KvSource& source) {
  // All of HDF5's own structures at the front, in the first piece: 4 KiB a layer is plenty.
  h5::File file = h5::create_file(path, 65536 + 4096 * static_cast<std::size_t>(info.n_layers));
  create_structure(file, info, block);
  const h5::Datatype type = type_of(info);
  const std::size_t n_bytes = info.part_bytes(info.n_tokens_of(block));
  std::vector<Digest> digests;
  for_each_part(info, [&](std::int64_t layer, KvPart part) {
    const std::string name = part_name(layer, part);
    const std::span<const std::byte> values = source(layer, part);
    STARATTN_CHECK(values.size() == n_bytes);
    digests.push_back(digest_of(values));
    h5::Dataset dataset(H5Dopen2(file, name.c_str(), H5P_DEFAULT), "open " + name + " of " + path);
    h5::check(H5Dwrite(dataset, type, H5S_ALL, H5S_ALL, H5P_DEFAULT, values.data()),
              "write " + name + " of " + path);
    dataset.close("close " + name + " of " + path);
  });
  h5::check(H5Fflush(file, H5F_SCOPE_GLOBAL), "flush " + path);
  file.close("close " + path);
  return digests;
}

void read_block_file(VerifiedFile& file, const DocumentInfo& info, std::int64_t block,
                     const KvSink& sink) {
  h5::with_verified_file(file, [&](hid_t opened) {
    check_structure(opened, info, block, file.path());
    const h5::Datatype type = type_of(info);
    const std::size_t n_bytes = info.part_bytes(info.n_tokens_of(block));
    for_each_part(info, [&](std::int64_t layer, KvPart part) {
      const std::string name = part_name(layer, part);
      const h5::Dataset dataset(H5Dopen2(opened, name.c_str(), H5P_DEFAULT), "open " + name);
      const std::span<std::byte> place = sink.place(layer, part);
      STARATTN_CHECK(place.size() == n_bytes);
      h5::check(H5Dread(dataset, type, H5S_ALL, H5S_ALL, H5P_DEFAULT, place.data()),
                "read " + name);
      if (sink.filled) sink.filled(layer, part);
    });
  });
}

std::vector<Digest> digest_block_file(VerifiedFile& file, const DocumentInfo& info,
                                      std::int64_t block) {
  std::vector<Digest> digests;
  h5::with_verified_file(file, [&](hid_t opened) {
    check_structure(opened, info, block, file.path());
    const h5::Datatype type = type_of(info);
    RowReader rows(info, block);
    for_each_part(info, [&](std::int64_t layer, KvPart part) {
      const std::string name = part_name(layer, part);
      const h5::Dataset dataset(H5Dopen2(opened, name.c_str(), H5P_DEFAULT), "open " + name);
      digests.push_back(rows.digest(dataset, type, name));
    });
  });
  return digests;
}

}  // namespace starattn
