// SPDX-License-Identifier: Apache-2.0
// An HDF5 file driver over VerifiedFile: the library parses only bytes whose digest has just been
// checked. HDF5 is not safe on hostile bytes, and a path checked first and opened later could be
// another file by then.
#pragma once

#include <functional>

#include "checkpoint/hdf5.h"
#include "checkpoint/verified_file.h"

namespace starattn::h5 {

// Checks every digest, then lets `body` read the HDF5 file (read-only). What the body or HDF5 finds
// wrong comes out as Error(bad_data) that names the file; a failed read as Error(io).
void with_verified_file(VerifiedFile& file, const std::function<void(hid_t file)>& body);

}  // namespace starattn::h5
