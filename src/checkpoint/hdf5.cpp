// SPDX-License-Identifier: Apache-2.0
#include "checkpoint/hdf5.h"

#include <mutex>

#include "checkpoint/hdf5_version.h"

namespace starattn::h5 {
namespace {

void start_library() {
  check(H5dont_atexit(), "switch off HDF5's work at exit");
  check(H5open(), "start HDF5");
  check(H5PLset_loading_state(0), "switch off HDF5 plugins");
  unsigned n_paths = 0;  // HDF5_PLUGIN_PATH and the built-in one
  check(H5PLsize(&n_paths), "count HDF5 plugin paths");
  while (n_paths > 0) check(H5PLremove(--n_paths), "clear an HDF5 plugin path");
}

// What the system said, where HDF5 repeats it among addresses and times; else all of it.
std::string_view reason_in(std::string_view description) {
  constexpr std::string_view kBefore = "error message = '";
  const std::size_t begin = description.find(kBefore);
  if (begin == std::string_view::npos) return description;
  const std::string_view rest = description.substr(begin + kBefore.size());
  return rest.substr(0, rest.find('\''));
}

// Called from the innermost entry outwards.
herr_t keep_innermost(unsigned n, const H5E_error2_t* entry, void* text) {
  if (n == 0 && entry->desc && entry->func_name) {
    *static_cast<std::string*>(text) =
        fmt::format("{} ({})", reason_in(entry->desc), entry->func_name);
  }
  return 0;
}

void set_float_fields(hid_t type, std::size_t exponent_bits, std::size_t mantissa_bits,
                      std::size_t bias) {
  check(H5Tset_fields(type, 15, mantissa_bits, exponent_bits, 0, mantissa_bits),
        "set float fields");
  check(H5Tset_precision(type, 16), "set float precision");
  check(H5Tset_size(type, 2), "set float size");
  check(H5Tset_ebias(type, bias), "set float bias");
}

}  // namespace

void start() {
  static std::once_flag once;
  std::call_once(once, start_library);
  thread_local const bool silenced = [] {  // each thread has its own error stack
    check(H5Eset_auto2(H5E_DEFAULT, nullptr, nullptr), "silence HDF5");
    return true;
  }();
  (void)silenced;
}

void fail_with_stack(std::string_view doing, std::source_location where) {
  std::string reason = "no reason given";
  H5Ewalk2(H5E_DEFAULT, H5E_WALK_UPWARD, keep_innermost, &reason);
  H5Eclear2(H5E_DEFAULT);
  const std::string_view file = where.file_name();
  throw StatusError(Exit::io, fmt::format("cannot {}: HDF5 says: {} [{}:{}]", doing, reason,
                                          file.substr(file.find_last_of('/') + 1), where.line()));
}

PropertyList property_list(hid_t cls) {
  return {H5Pcreate(cls), "create a property list"};
}

Datatype float_type(Dtype dtype) {
  Datatype type(H5Tcopy(H5T_IEEE_F32LE), "copy a float type");
  if (dtype == Dtype::bf16) set_float_fields(type, 8, 7, 127);
  if (dtype == Dtype::f16) set_float_fields(type, 5, 10, 15);
  return type;
}

File create_file(const std::string& path, std::size_t meta_block_bytes) {
  start();
  const PropertyList creation = property_list(H5P_FILE_CREATE);
  // Links and attributes stay inside object headers, dates stay out: equal contents give equal
  // bytes.
  check(H5Pset_link_phase_change(creation, 65535, 0), "keep links compact");
  check(H5Pset_attr_phase_change(creation, 64, 0), "keep attributes compact");
  check(H5Pset_obj_track_times(creation, false), "leave out dates");
  const PropertyList access = property_list(H5P_FILE_ACCESS);
  check(H5Pset_fapl_sec2(access), "choose the POSIX driver");
  check(H5Pset_libver_bounds(access, H5F_LIBVER_V110, H5F_LIBVER_V110), "choose the 1.10 format");
  check(H5Pset_fclose_degree(access, H5F_CLOSE_SEMI), "refuse to close over open objects");
  check(H5Pset_meta_block_size(access, meta_block_bytes), "set the metadata block size");
#if H5_VERSION_GE(1, 10, 7)
  // The name is ours alone; some parallel file systems have no locks to give.
  check(H5Pset_file_locking(access, false, true), "switch off HDF5's file locks");
#endif
  return {H5Fcreate(path.c_str(), H5F_ACC_TRUNC, creation, access), "create " + path};
}

}  // namespace starattn::h5

namespace starattn {

std::string hdf5_version() {
  h5::start();
  unsigned major = 0;
  unsigned minor = 0;
  unsigned release = 0;
  h5::check(H5get_libversion(&major, &minor, &release), "ask for HDF5's version");
  return fmt::format("{}.{}.{}", major, minor, release);
}

}  // namespace starattn
