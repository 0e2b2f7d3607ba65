// SPDX-License-Identifier: Apache-2.0
#include "model/safetensors.h"

#include <algorithm>
#include <cstring>
#include <tuple>

#include "base/error.h"
#include "base/json.h"

namespace starattn {
namespace {

constexpr std::uint64_t kMaxHeaderBytes = 100'000'000;

// Bytes an element of the format's dtypes; 0 for a name that it does not have.
std::uint64_t element_bytes(const std::string& dtype) {
  static const std::map<std::string, std::uint64_t> kSizes = {
      {"BOOL", 1}, {"U8", 1},  {"I8", 1},  {"F8_E4M3", 1}, {"F8_E5M2", 1},
      {"I16", 2},  {"U16", 2}, {"F16", 2}, {"BF16", 2},    {"I32", 4},
      {"U32", 4},  {"F32", 4}, {"F64", 8}, {"I64", 8},     {"U64", 8}};
  const auto it = kSizes.find(dtype);
  return it == kSizes.end() ? 0 : it->second;
}

std::uint64_t offset_at(const JsonObject& entry, std::size_t which, std::uint64_t data_bytes) {
  const Json& offsets = entry.get("data_offsets");
  if (!offsets.is_array() || offsets.size() != 2 || !offsets[which].is_number_unsigned()) {
    fail(Exit::bad_data, "{}: data_offsets: expected two non-negative integers, got {}",
         entry.where(), to_line(offsets));
  }
  const auto offset = offsets[which].get<std::uint64_t>();
  if (offset > data_bytes) {
    fail(Exit::bad_data,
         "{}: data_offsets: {} lies beyond the {} bytes of data; is the file truncated?",
         entry.where(), offset, data_bytes);
  }
  return offset;
}

TensorView read_entry(const JsonObject& entry, std::span<const std::byte> data) {
  TensorView tensor;
  tensor.dtype_name = entry.get_string("dtype");
  std::uint64_t expected = element_bytes(tensor.dtype_name);
  if (expected == 0)
    fail(Exit::bad_data, "{}: unknown dtype '{}'", entry.where(), tensor.dtype_name);
  const Json& shape = entry.get("shape");
  if (!shape.is_array()) fail(Exit::bad_data, "{}: shape: expected an array", entry.where());
  for (const Json& size : shape) {
    if (!size.is_number_unsigned() || size.get<std::uint64_t>() > (std::uint64_t{1} << 40)) {
      fail(Exit::bad_data, "{}: shape: expected non-negative integers, got {}", entry.where(),
           to_line(shape));
    }
    tensor.shape.push_back(size.get<std::int64_t>());
    if (__builtin_mul_overflow(expected, size.get<std::uint64_t>(), &expected)) {
      fail(Exit::bad_data, "{}: shape {} overflows", entry.where(), to_line(shape));
    }
  }
  const std::uint64_t begin = offset_at(entry, 0, data.size());
  const std::uint64_t end = offset_at(entry, 1, data.size());
  if (end < begin || end - begin != expected) {
    fail(Exit::bad_data, "{}: data_offsets {} hold {} bytes, shape {} of {} needs {}",
         entry.where(), to_line(entry.get("data_offsets")), end < begin ? 0 : end - begin,
         to_line(shape), tensor.dtype_name, expected);
  }
  tensor.data = data.data() + begin;
  tensor.n_bytes = expected;
  return tensor;
}

}  // namespace

SafetensorsFile::SafetensorsFile(const std::string& path) : file_(path) {
  const std::span<const std::byte> bytes = file_.bytes();
  if (bytes.size() < 8) {
    fail(Exit::bad_data, "{}: {} bytes are too few for a safetensors file (8-byte header length)",
         path, bytes.size());
  }
  std::uint64_t header_bytes = 0;
  std::memcpy(&header_bytes, bytes.data(), 8);  // little-endian, as are all machines we run on
  if (header_bytes > kMaxHeaderBytes || header_bytes > bytes.size() - 8) {
    fail(Exit::bad_data,
         "{}: header of {} bytes: expected at most {} (the file has {} bytes); is it truncated?",
         path, header_bytes, std::min<std::uint64_t>(kMaxHeaderBytes, bytes.size() - 8),
         bytes.size());
  }
  const std::string_view header(reinterpret_cast<const char*>(bytes.data()) + 8, header_bytes);
  if (header.empty() || header.front() != '{')
    fail(Exit::bad_data, "{}: the header does not start with '{{'", path);
  const Json json = parse_json(header, path + ": header");
  const auto data = bytes.subspan(8 + header_bytes);

  std::vector<std::tuple<const std::byte*, std::uint64_t, std::string>> places;
  for (const auto& [name, value] : json.items()) {
    if (name == "__metadata__") continue;
    TensorView tensor = read_entry(JsonObject(value, path + ": tensor '" + name + "'"), data);
    places.emplace_back(tensor.data, tensor.n_bytes, name);
    tensors_.emplace(name, std::move(tensor));
  }
  // The tensors tile the data: no holes, no overlap, nothing behind the last.
  std::sort(places.begin(), places.end());
  const std::byte* next = data.data();
  for (const auto& [begin, n_bytes, name] : places) {
    if (begin != next) {
      fail(Exit::bad_data,
           "{}: tensor '{}' starts at data byte {}, expected {}: tensors overlap or leave a hole",
           path, name, begin - data.data(), next - data.data());
    }
    next = begin + n_bytes;
  }
  if (next != data.data() + data.size()) {
    fail(Exit::bad_data, "{}: {} bytes of data, but the tensors take {}", path, data.size(),
         next - data.data());
  }
}

const TensorView* SafetensorsFile::find(const std::string& name) const {
  const auto it = tensors_.find(name);
  return it == tensors_.end() ? nullptr : &it->second;
}

}  // namespace starattn
