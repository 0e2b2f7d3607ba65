// SPDX-License-Identifier: Apache-2.0
// The HDF5 C library behind RAII: every id is closed, every status is checked, and what the library
// would print on its own becomes part of our message. Serial HDF5: a file belongs to one process.
#pragma once

#include <hdf5.h>

#include <source_location>
#include <string>
#include <string_view>
#include <utility>

#include "base/dtype.h"
#include "base/error.h"

namespace starattn::h5 {

// To be called before any other function of HDF5, on every thread that uses it; repeats cost
// nothing. No work at process exit (the library crashes there after a full disk), no printing, no
// plugins.
void start();

// A function of HDF5 reported failure.
class StatusError : public Error {
 public:
  using Error::Error;
};

// Throws StatusError(io): what we were doing, HDF5's innermost complaint, and where in our source.
[[noreturn]] void fail_with_stack(std::string_view doing, std::source_location where);

// Passes a good status on. HDF5's failures are negative.
template <typename Status>
Status check(Status status, std::string_view doing,
             std::source_location where = std::source_location::current()) {
  if (status < 0) fail_with_stack(doing, where);
  return status;
}

// An HDF5 id, closed at the end. Where the outcome of closing matters (it can carry the only news
// of a failed write), call close().
template <herr_t (*Close)(hid_t)>
class Id {
 public:
  Id(hid_t id, std::string_view doing, std::source_location where = std::source_location::current())
      : id_(check(id, doing, where)) {}
  ~Id() {
    if (id_ >= 0) Close(id_);
  }
  Id(Id&& other) noexcept : id_(std::exchange(other.id_, -1)) {}
  Id& operator=(Id&& other) noexcept {
    std::swap(id_, other.id_);
    return *this;
  }

  operator hid_t() const { return id_; }

  void close(std::string_view doing, std::source_location where = std::source_location::current()) {
    check(Close(std::exchange(id_, -1)), doing, where);
  }

 private:
  hid_t id_;
};

using File = Id<H5Fclose>;
using Group = Id<H5Gclose>;
using Dataset = Id<H5Dclose>;
using Dataspace = Id<H5Sclose>;
using Datatype = Id<H5Tclose>;
using Attribute = Id<H5Aclose>;
using PropertyList = Id<H5Pclose>;
using Object = Id<H5Oclose>;  // of a kind not yet known

PropertyList property_list(hid_t cls);

// The type of K and V in file and memory alike, so that HDF5 never converts (its conversion to
// 16-bit floats is wrong). Little-endian; h5py reads bf16 as float32.
Datatype float_type(Dtype dtype);

// A new file of the 1.10 format under the plain POSIX driver. `path` is truncated.
// meta_block_bytes: room reserved at the front for the library's own structures.
File create_file(const std::string& path, std::size_t meta_block_bytes);

}  // namespace starattn::h5
