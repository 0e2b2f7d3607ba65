// SPDX-License-Identifier: Apache-2.0
#include "checkpoint/hdf5_verified.h"

#if H5_VERSION_GE(1, 13, 0)
#include <H5FDdevelop.h>
#endif

#include <cstdint>
#include <memory>

#include "base/error.h"

namespace starattn::h5 {
namespace {

struct DriverInfo {
  VerifiedFile* file;
};

// HDF5 casts between its own H5FD_t and the driver's structure that begins with one.
struct DriverFile {
  H5FD_t base{};
  VerifiedFile* file = nullptr;
  haddr_t end_of_allocation = 0;
};

DriverFile* self(H5FD_t* file) {
  return reinterpret_cast<DriverFile*>(file);
}
const DriverFile* self(const H5FD_t* file) {
  return reinterpret_cast<const DriverFile*>(file);
}

H5FD_t* open_file(const char*, unsigned flags, hid_t access, haddr_t) {
  const auto* info = static_cast<const DriverInfo*>(H5Pget_driver_info(access));
  if (!info || flags != H5F_ACC_RDONLY) return nullptr;
  auto file = std::make_unique<DriverFile>();
  file->file = info->file;
  return &file.release()->base;
}

herr_t close_file(H5FD_t* file) {
  delete self(file);
  return 0;
}

herr_t no_features(const H5FD_t*, unsigned long* flags) {
  *flags = 0;
  return 0;
}

haddr_t get_eoa(const H5FD_t* file, H5FD_mem_t) {
  return self(file)->end_of_allocation;
}

herr_t set_eoa(H5FD_t* file, H5FD_mem_t, haddr_t address) {
  self(file)->end_of_allocation = address;
  return 0;
}

haddr_t get_eof(const H5FD_t* file, H5FD_mem_t) {
  return self(file)->file->n_bytes();
}

herr_t read_bytes(H5FD_t* file, H5FD_mem_t, hid_t, haddr_t address, std::size_t size,
                  void* buffer) {
  VerifiedFile& source = *self(file)->file;
  try {
    source.read(address, {static_cast<std::byte*>(buffer), size});
    return 0;
  } catch (...) {
    source.pending_error = std::current_exception();
    return -1;
  }
}

herr_t write_bytes(H5FD_t*, H5FD_mem_t, hid_t, haddr_t, std::size_t, const void*) {
  return -1;  // read-only
}

hid_t driver() {
  static const hid_t id = [] {
    static H5FD_class_t cls{};
#if H5_VERSION_GE(1, 13, 0)
    cls.version = H5FD_CLASS_VERSION;
    cls.value = static_cast<H5FD_class_value_t>(600);  // the range for drivers of one's own
#endif
    cls.name = "starattn-verified";
    cls.maxaddr = static_cast<haddr_t>(INT64_MAX);
    cls.fc_degree = H5F_CLOSE_STRONG;
    cls.fapl_size = sizeof(DriverInfo);
    cls.open = open_file;
    cls.close = close_file;
    cls.query = no_features;
    cls.get_eoa = get_eoa;
    cls.set_eoa = set_eoa;
    cls.get_eof = get_eof;
    cls.read = read_bytes;
    cls.write = write_bytes;
    for (H5FD_mem_t& type : cls.fl_map) type = H5FD_MEM_DEFAULT;
    return check(H5FDregister(&cls), "register the verifying driver");
  }();
  return id;
}

}  // namespace

void with_verified_file(VerifiedFile& file, const std::function<void(hid_t file)>& body) {
  file.pending_error = nullptr;
  file.check_all();
  start();
  try {
    const PropertyList access = property_list(H5P_FILE_ACCESS);
    const DriverInfo info{&file};
    check(H5Pset_driver(access, driver(), &info), "choose the verifying driver");
    check(H5Pset_fclose_degree(access, H5F_CLOSE_STRONG), "close objects with their file");
    const File opened(H5Fopen(file.path().c_str(), H5F_ACC_RDONLY, access), "open " + file.path());
    body(opened);
  } catch (const StatusError& error) {
    if (file.pending_error) std::rethrow_exception(std::exchange(file.pending_error, nullptr));
    // The bytes are those that the manifest promises, so what HDF5 cannot do with them is their
    // fault.
    throw Error(Exit::bad_data, error.what()).within(file.path());
  }
}

}  // namespace starattn::h5
