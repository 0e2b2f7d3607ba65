// SPDX-License-Identifier: Apache-2.0
// Safetensors files made by hand.
#pragma once

#include <cstring>

#include "../temporary_folder.h"
#include "base/json.h"
#include "model/safetensors.h"

namespace starattn {

inline std::string with_length(std::uint64_t length, const std::string& rest) {
  std::string bytes(sizeof(length), '\0');
  std::memcpy(bytes.data(), &length, sizeof(length));
  return bytes + rest;
}

inline std::string file_of(const std::string& header, const std::string& data) {
  return with_length(header.size(), header + data);
}

inline Json entry(const char* dtype, const Json& shape, const Json& offsets) {
  return {{"dtype", dtype}, {"shape", shape}, {"data_offsets", offsets}};
}

// 24 bytes of data: a 2 x 3 BF16, b 2 F32, c nothing, d one U8, e three U8. No tensor is aligned.
inline Json good_header() {
  return {{"__metadata__", {{"format", "pt"}}},  {"d", entry("U8", Json::array(), {0, 1})},
          {"b", entry("F32", {2}, {13, 21})},    {"a", entry("BF16", {2, 3}, {1, 13})},
          {"c", entry("F32", {0, 7}, {21, 21})}, {"e", entry("U8", {3}, {21, 24})}};
}
inline const std::string kData = "0123456789abcdefghijklmn";

inline std::string bytes_of(const TensorView& tensor) {
  return {reinterpret_cast<const char*>(tensor.data), tensor.n_bytes};
}

}  // namespace starattn
