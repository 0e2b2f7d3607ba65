// SPDX-License-Identifier: Apache-2.0
// Golden models' folders whose tensors and configs tests change.
#pragma once

#include <functional>

#include "base/file.h"
#include "model/weights.h"
#include "safetensors_bytes.h"
#include "small_config.h"

namespace starattn {

inline const std::string kFile = "model.safetensors";

inline ModelWeights open_model(const std::string& folder) {
  return ModelWeights::open(folder, read_model_config(folder));
}

class TamperedModel : public TemporaryFolder {
 public:
  explicit TamperedModel(const std::string& golden) {
    std::filesystem::copy(kGoldenModels + golden, path());
    const std::string bytes = read_file(file(kFile), 1 << 24);
    std::uint64_t n_header = 0;
    std::memcpy(&n_header, bytes.data(), sizeof(n_header));
    header_ = Json::parse(bytes.substr(8, n_header));
    data_ = bytes.substr(8 + n_header);
    config_ = read_json_file(file("config.json"));
  }
  Json& entry_of(const std::string& tensor) { return header_[tensor]; }
  Json& config() { return config_; }
  // A tensor's numbers, anew and behind all others; the old place must not be left, so the tensor
  // that took it is one that nobody asks for.
  void replace(const std::string& tensor, const char* dtype, const Json& shape,
               const std::string& bytes) {
    header_["unused." + tensor] = header_[tensor];
    append(tensor, dtype, shape, bytes);
  }
  void append(const std::string& tensor, const char* dtype, const Json& shape,
              const std::string& bytes) {
    header_[tensor] = entry(dtype, shape, {data_.size(), data_.size() + bytes.size()});
    data_ += bytes;
  }
  void rename(const std::string& tensor, const std::string& name) {
    header_[name] = header_[tensor];
    header_.erase(tensor);
  }
  ModelWeights open_it() {
    write(kFile, file_of(to_line(header_), data_));
    write("config.json", to_line(config_));
    return open_model(path());
  }
  void expect_refused(std::initializer_list<std::string_view> words) {
    starattn::expect_refused([&] { open_it(); }, Exit::bad_data, words);
  }

 private:
  Json header_, config_;
  std::string data_;
};

inline std::string bytes_of(const std::vector<float>& numbers) {
  return {reinterpret_cast<const char*>(numbers.data()), numbers.size() * sizeof(float)};
}

}  // namespace starattn
