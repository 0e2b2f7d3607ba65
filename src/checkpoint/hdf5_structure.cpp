// SPDX-License-Identifier: Apache-2.0
#include "checkpoint/hdf5_structure.h"

#include <algorithm>

#include "base/error.h"
#include "checkpoint/hdf5_attributes.h"

namespace starattn::h5 {
namespace {

struct LinkList {
  std::size_t limit;
  std::vector<std::string> names{};
  std::string not_hard{};
};

herr_t collect_link(hid_t, const char* name, const H5L_info_t* info, void* out) {
  auto& list = *static_cast<LinkList*>(out);
  list.names.emplace_back(name);
  if (info->type != H5L_TYPE_HARD) list.not_hard = name;
  return list.names.size() > list.limit;  // non-zero stops
}

std::string text_of(const Shape& shape) {
  return fmt::format("[{}]", fmt::join(shape, ", "));
}

void expect_shape(hid_t dataset, const Shape& shape, const std::string& where) {
  const Dataspace space(H5Dget_space(dataset), "get the space of " + where);
  const bool simple = H5Sget_simple_extent_type(space) == H5S_SIMPLE;
  const int rank = simple ? H5Sget_simple_extent_ndims(space) : 0;
  if (rank != static_cast<int>(shape.size())) {
    fail(Exit::bad_data, "{}: shape: expected {}, got {} dimensions", where, text_of(shape), rank);
  }
  Shape found(shape.size());
  Shape most(shape.size());
  check(H5Sget_simple_extent_dims(space, found.data(), most.data()), "get the shape of " + where);
  if (found != shape || most != shape) {
    fail(Exit::bad_data, "{}: shape: expected {} fixed, got {} growing to {}", where,
         text_of(shape), text_of(found), text_of(most));
  }
}

void expect_type(hid_t dataset, hid_t type, const std::string& where) {
  const Datatype found(H5Dget_type(dataset), "get the type of " + where);
  const bool same = check(H5Tequal(found, type), "compare types") > 0 &&
                    check(H5Tcommitted(found), "ask whether a type is named") == 0;
  if (!same) {
    fail(Exit::bad_data, "{}: type: not the one that kv_dtype says ({} bytes)", where,
         H5Tget_size(type));
  }
}

void expect_plain_storage(hid_t dataset, hid_t type, const Shape& shape, const std::string& where) {
  const PropertyList creation(H5Dget_create_plist(dataset), "get the properties of " + where);
  if (H5Pget_layout(creation) != H5D_CONTIGUOUS) {
    fail(Exit::bad_data, "{}: layout: expected contiguous, got another", where);
  }
  if (check(H5Pget_nfilters(creation), "count filters") != 0) {
    fail(Exit::bad_data, "{}: filters: expected none", where);
  }
  if (check(H5Pget_external_count(creation), "count external files") != 0) {
    fail(Exit::bad_data, "{}: external files: expected none", where);
  }
  hsize_t n_bytes = H5Tget_size(type);
  for (const hsize_t n : shape) n_bytes *= n;  // the caller has checked the product
  const hsize_t stored = H5Dget_storage_size(dataset);
  const haddr_t offset = H5Dget_offset(dataset);
  hsize_t file_bytes = 0;
  const File file(H5Iget_file_id(dataset), "get the file of " + where);
  check(H5Fget_filesize(file, &file_bytes), "get the size of the file of " + where);
  // Before anybody makes room for so many values: they are really there.
  if (stored != n_bytes || offset > file_bytes || n_bytes > file_bytes - offset) {
    fail(Exit::bad_data, "{}: storage: expected {} bytes in this file, got {}", where, n_bytes,
         stored);
  }
}

Object open_object(hid_t parent, const std::string& name, H5I_type_t kind, const char* kind_name,
                   const std::string& where) {
  Object object(H5Oopen(parent, name.c_str(), H5P_DEFAULT), "open " + where);
  if (H5Iget_type(object) != kind) fail(Exit::bad_data, "{}: expected a {}", where, kind_name);
  expect_equal(read_attributes(object, where), {}, where);
  return object;
}

}  // namespace

void create_group(hid_t file, const std::string& name) {
  const PropertyList creation = property_list(H5P_GROUP_CREATE);
  check(H5Pset_obj_track_times(creation, false), "leave out dates");
  Group group(H5Gcreate2(file, name.c_str(), H5P_DEFAULT, creation, H5P_DEFAULT),
              "create group " + name);
  group.close("close group " + name);
}

void create_dataset(hid_t file, const std::string& name, hid_t type, const Shape& shape) {
  const PropertyList creation = property_list(H5P_DATASET_CREATE);
  check(H5Pset_layout(creation, H5D_CONTIGUOUS), "choose the contiguous layout");
  check(H5Pset_alloc_time(creation, H5D_ALLOC_TIME_EARLY), "allocate early");
  check(H5Pset_fill_time(creation, H5D_FILL_TIME_NEVER), "leave out fill values");
  check(H5Pset_obj_track_times(creation, false), "leave out dates");
  const Dataspace space(H5Screate_simple(static_cast<int>(shape.size()), shape.data(), nullptr),
                        "create a space");
  Dataset dataset(H5Dcreate2(file, name.c_str(), type, space, H5P_DEFAULT, creation, H5P_DEFAULT),
                  "create dataset " + name);
  dataset.close("close dataset " + name);
}

void expect_links(hid_t group, const std::vector<std::string>& names, const std::string& where) {
  LinkList found{names.size()};
  hsize_t position = 0;
  check(H5Literate(group, H5_INDEX_NAME, H5_ITER_INC, &position, collect_link, &found),
        "list the links of " + where);
  if (!found.not_hard.empty()) {
    fail(Exit::bad_data, "{}: '{}' is a soft or external link, which is never followed", where,
         found.not_hard);
  }
  std::vector<std::string> wanted = names;
  std::sort(wanted.begin(), wanted.end());
  std::sort(found.names.begin(), found.names.end());
  if (found.names != wanted) {
    const auto [w, f] =
        std::mismatch(wanted.begin(), wanted.end(), found.names.begin(), found.names.end());
    fail(Exit::bad_data, "{}: expected {} objects, the next being '{}', got '{}'", where,
         wanted.size(), w == wanted.end() ? "none" : *w,
         f == found.names.end() ? "none" : f->substr(0, 80));
  }
}

Group open_group(hid_t parent, const std::string& name, const std::string& where) {
  open_object(parent, name, H5I_GROUP, "group", where + ": /" + name);
  return {H5Gopen2(parent, name.c_str(), H5P_DEFAULT), "open group " + name};
}

Dataset open_dataset(hid_t parent, const std::string& name, hid_t type, const Shape& shape,
                     const std::string& where) {
  open_object(parent, name, H5I_DATASET, "dataset", where);
  Dataset dataset(H5Dopen2(parent, name.c_str(), H5P_DEFAULT), "open " + where);
  expect_type(dataset, type, where);
  expect_shape(dataset, shape, where);
  expect_plain_storage(dataset, type, shape, where);
  return dataset;
}

}  // namespace starattn::h5
