// SPDX-License-Identifier: Apache-2.0
// The few shapes that our HDF5 files have: groups of hard links, and datasets of one type, fixed
// dimensions and contiguous layout. What is read must be exactly that; external files, filters,
// virtual datasets and links to elsewhere could read any file or make up values, and are refused.
#pragma once

#include <string>
#include <vector>

#include "checkpoint/hdf5.h"

namespace starattn::h5 {

using Shape = std::vector<hsize_t>;

void create_group(hid_t file, const std::string& name);

// Its space in the file is taken at once and never filled in advance.
void create_dataset(hid_t file, const std::string& name, hid_t type, const Shape& shape);

// Every function below throws Error(bad_data) naming `where` and what differs.

// Hard links of exactly these names.
void expect_links(hid_t group, const std::vector<std::string>& names, const std::string& where);

Group open_group(hid_t parent, const std::string& name, const std::string& where);
Dataset open_dataset(hid_t parent, const std::string& name, hid_t type, const Shape& shape,
                     const std::string& where);

}  // namespace starattn::h5
