// SPDX-License-Identifier: Apache-2.0
#include "model/safetensors.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <map>

#include "base/error.h"
#include "base/foreign_file.h"
#include "base/json.h"

namespace starattn {
namespace {

static_assert(std::endian::native == std::endian::little, "safetensors files are little-endian");

constexpr std::uint64_t kMaxHeaderBytes = 100'000'000;
// Depth: header, tensor, shape. A tensor takes about eight values: enough for 100,000 of them.
constexpr JsonLimits kHeaderLimits{kMaxHeaderBytes, 4, 1'000'000};
constexpr std::size_t kMaxDims = 8;
constexpr std::uint64_t kLengthBytes = 8;

// Bytes an element of the format's dtypes; 0 for a name that it does not have. Dtypes that no model
// here uses must be known too, or the tensors around them could not be checked.
std::uint64_t element_bytes(const std::string& dtype) {
  static const std::map<std::string, std::uint64_t> kSizes = {
      {"BOOL", 1}, {"U8", 1},  {"I8", 1},  {"F8_E4M3", 1}, {"F8_E5M2", 1}, {"F8_E8M0", 1},
      {"I16", 2},  {"U16", 2}, {"F16", 2}, {"BF16", 2},    {"I32", 4},     {"U32", 4},
      {"F32", 4},  {"F64", 8}, {"I64", 8}, {"U64", 8},     {"C64", 8}};
  const auto it = kSizes.find(dtype);
  return it == kSizes.end() ? 0 : it->second;
}

std::string_view header_of(std::span<const std::byte> file, const std::string& path) {
  const std::string what =
      what_else_it_is({reinterpret_cast<const char*>(file.data()), file.size()});
  if (!what.empty()) fail(Exit::bad_data, "{} {}", path, what);
  if (file.size() < kLengthBytes) {
    fail(Exit::bad_data, "{}: expected a safetensors file of at least {} bytes, got {}", path,
         kLengthBytes, file.size());
  }
  std::uint64_t n_bytes = 0;
  std::memcpy(&n_bytes, file.data(), kLengthBytes);
  const auto at_most = std::min<std::uint64_t>(kMaxHeaderBytes, file.size() - kLengthBytes);
  if (n_bytes > at_most) {
    fail(Exit::bad_data,
         "{}: byte 0: expected a header of at most {} bytes (the file has {}), got {}; is the file "
         "truncated?",
         path, at_most, file.size(), n_bytes);
  }
  const std::string_view header(reinterpret_cast<const char*>(file.data()) + kLengthBytes, n_bytes);
  if (header.empty() || header.front() != '{')
    fail(Exit::bad_data, "{}: byte {}: expected a header that starts with '{{'", path,
         kLengthBytes);
  return header;
}

// Reads "shape" and returns the bytes it takes.
std::uint64_t read_shape(const JsonObject& entry, TensorView& tensor) {
  std::uint64_t n_bytes = element_bytes(tensor.dtype_name);
  const Json& shape = entry.get("shape");
  const auto refuse = [&](const std::string& expected) {
    fail(Exit::bad_data, "{}: key 'shape': expected {}, got {}", entry.where(), expected,
         to_line(shape).substr(0, 80));
  };
  if (!shape.is_array() || shape.size() > kMaxDims)
    refuse(fmt::format("a list of at most {} sizes", kMaxDims));
  for (const Json& size : shape) {
    if (!size.is_number_unsigned() || size.get<std::uint64_t>() > std::uint64_t{INT64_MAX})
      refuse("sizes that are not negative");
    if (__builtin_mul_overflow(n_bytes, size.get<std::uint64_t>(), &n_bytes))
      refuse("sizes whose product is below 2^64 bytes");
    tensor.shape.push_back(size.get<std::int64_t>());
  }
  return n_bytes;
}

TensorView read_entry(const JsonObject& entry, std::span<const std::byte> data) {
  TensorView tensor;
  tensor.dtype_name = entry.get_string("dtype");
  if (element_bytes(tensor.dtype_name) == 0) {
    fail(Exit::bad_data, "{}: key 'dtype': unknown dtype '{}'", entry.where(), tensor.dtype_name);
  }
  tensor.n_bytes = read_shape(entry, tensor);

  const Json& offsets = entry.get("data_offsets");
  if (!offsets.is_array() || offsets.size() != 2 || !offsets[0].is_number_unsigned() ||
      !offsets[1].is_number_unsigned()) {
    fail(Exit::bad_data, "{}: key 'data_offsets': expected [begin, end], got {}", entry.where(),
         to_line(offsets).substr(0, 80));
  }
  const auto begin = offsets[0].get<std::uint64_t>();
  const auto end = offsets[1].get<std::uint64_t>();
  if (begin > end || end > data.size()) {
    fail(Exit::bad_data,
         "{}: key 'data_offsets': expected begin <= end <= {}, the bytes of data, got [{}, {}]; is "
         "the file truncated?",
         entry.where(), data.size(), begin, end);
  }
  if (end - begin != tensor.n_bytes) {
    fail(Exit::bad_data,
         "{}: key 'data_offsets': expected {} bytes for shape [{}] of {}, got {} in [{}, {}]",
         entry.where(), tensor.n_bytes, fmt::join(tensor.shape, ", "), tensor.dtype_name,
         end - begin, begin, end);
  }
  tensor.data = data.data() + begin;
  return tensor;
}

struct Place {
  const std::byte* begin;
  std::uint64_t n_bytes;
  const std::string* name;
};

// The tensors tile the data: no holes, no overlap, nothing behind the last.
void check_tiling(std::vector<Place> places, std::span<const std::byte> data,
                  const std::string& path) {
  std::sort(places.begin(), places.end(), [](const Place& a, const Place& b) {
    return a.begin != b.begin ? a.begin < b.begin : a.n_bytes < b.n_bytes;
  });
  std::uint64_t next = 0;
  for (const Place& place : places) {
    const auto begin = static_cast<std::uint64_t>(place.begin - data.data());
    if (begin != next) {
      fail(Exit::bad_data,
           "{}: tensor '{}': expected its data at byte {} of the data, got byte {}: tensors {}",
           path, *place.name, next, begin, begin < next ? "overlap" : "leave a hole");
    }
    next += place.n_bytes;
  }
  if (next != data.size()) {
    fail(Exit::bad_data, "{}: expected {} bytes of data, as the tensors take, got {}", path, next,
         data.size());
  }
}

}  // namespace

SafetensorsFile::SafetensorsFile(const std::string& path) : file_(path) {
  const std::string_view header = header_of(file_.bytes(), path);
  const Json json = parse_json(header, path + ": header", kHeaderLimits);
  const auto data = file_.bytes().subspan(kLengthBytes + header.size());

  std::vector<Place> places;
  for (const auto& [name, value] : json.items()) {
    const JsonObject entry(value, fmt::format("{}: tensor '{}'", path, name));
    if (name == "__metadata__") continue;
    const auto& [at, is_new] = tensors_.emplace(name, read_entry(entry, data));
    places.push_back({at->second.data, at->second.n_bytes, &at->first});
  }
  check_tiling(std::move(places), data, path);
}

const TensorView* SafetensorsFile::find(const std::string& name) const {
  const auto it = tensors_.find(name);
  return it == tensors_.end() ? nullptr : &it->second;
}

}  // namespace starattn
