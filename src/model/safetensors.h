// SPDX-License-Identifier: Apache-2.0
// One safetensors file: an 8-byte header length, a JSON header, the tensors' bytes. The header is
// believed only after it has been checked against the file.
#pragma once

#include <cstdint>
#include <string>
#include <unordered_map>
#include <vector>

#include "base/mapped_file.h"

namespace starattn {

struct TensorView {
  std::string dtype_name;  // as in the file: "BF16"
  std::vector<std::int64_t> shape;
  const std::byte* data = nullptr;  // in the mapping; may be unaligned
  std::uint64_t n_bytes = 0;
};

class SafetensorsFile {
 public:
  // Maps the file and checks its whole header; no tensor is read.
  // Throws Error(no_input | bad_data) naming file, tensor, expected and got.
  explicit SafetensorsFile(const std::string& path);

  const TensorView* find(const std::string& name) const;  // null when there is none
  std::size_t n_tensors() const { return tensors_.size(); }
  const std::string& path() const { return file_.path(); }
  MappedFile& file() { return file_; }
  const MappedFile& file() const { return file_; }
  const std::unordered_map<std::string, TensorView>& tensors() const { return tensors_; }

 private:
  MappedFile file_;
  std::unordered_map<std::string, TensorView> tensors_;
};

}  // namespace starattn
