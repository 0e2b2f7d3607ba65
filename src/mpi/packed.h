// SPDX-License-Identifier: Apache-2.0
// Values as bytes and back, for messages between the ranks of a job, which all run one program:
// numbers as they lie in memory, texts and vectors behind their count. A struct says what it is
// made of:
//
//   struct Job {
//     std::int64_t number = 0;
//     std::vector<std::int64_t> todo;
//
//     static void fields(auto& job, auto& archive) {
//       auto& [number, todo] = job;  // a member that is forgotten here does not compile
//       archive(number, todo);
//     }
//   };
#pragma once

#include <cstring>
#include <optional>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

#include "base/error.h"
#include "base/json.h"
#include "mpi/communicator.h"

namespace starattn {

template <typename T>
constexpr bool is_packed_raw = std::is_arithmetic_v<T> || std::is_enum_v<T>;

class Packer {
 public:
  template <typename... T>
  void operator()(const T&... values) {
    (put(values), ...);
  }

  std::string bytes() && { return std::move(bytes_); }

 private:
  template <typename T>
  void put(const T& value) {
    if constexpr (is_packed_raw<T>) {
      bytes_.append(reinterpret_cast<const char*>(&value), sizeof value);
    } else {
      T::fields(value, *this);
    }
  }
  void put(const std::string& text) {
    put(text.size());
    bytes_ += text;
  }
  void put(const Json& json) { put(to_line(json)); }
  template <typename T>
  void put(const std::optional<T>& value) {
    put(value.has_value());
    if (value) put(*value);
  }
  template <typename T>
  void put(const std::vector<T>& values) {
    put(values.size());
    if constexpr (is_packed_raw<T>) {
      bytes_.append(reinterpret_cast<const char*>(values.data()), values.size() * sizeof(T));
    } else {
      for (const T& value : values) put(value);
    }
  }

  std::string bytes_;
};

// Bytes that end too early are a bug: no file is read by this.
class Unpacker {
 public:
  explicit Unpacker(std::string_view bytes) : rest_(bytes) {}  // bytes outlive this

  template <typename... T>
  void operator()(T&... values) {
    (get(values), ...);
  }

  bool at_end() const { return rest_.empty(); }

 private:
  std::string_view take(std::size_t n) {
    STARATTN_CHECK(n <= rest_.size());
    const std::string_view taken = rest_.substr(0, n);
    rest_.remove_prefix(n);
    return taken;
  }
  template <typename T>
  void get(T& value) {
    if constexpr (is_packed_raw<T>) {
      std::memcpy(&value, take(sizeof value).data(), sizeof value);
    } else {
      T::fields(value, *this);
    }
  }
  void get(std::string& text) {
    std::size_t n = 0;
    get(n);
    text = take(n);
  }
  void get(Json& json) {
    std::string text;
    get(text);
    json = parse_json(text, "a message between ranks", {SIZE_MAX});
  }
  template <typename T>
  void get(std::optional<T>& value) {
    bool has_value = false;
    get(has_value);
    value.reset();
    if (has_value) get(value.emplace());
  }
  template <typename T>
  void get(std::vector<T>& values) {
    std::size_t n = 0;
    get(n);
    STARATTN_CHECK(n <= rest_.size());  // no value takes less than a byte
    values.resize(n);
    if constexpr (is_packed_raw<T>) {
      const std::string_view bytes = take(n * sizeof(T));
      if (n > 0) std::memcpy(values.data(), bytes.data(), bytes.size());
    } else {
      for (T& value : values) get(value);
    }
  }

  std::string_view rest_;
};

template <typename... T>
std::string pack(const T&... values) {
  Packer packer;
  packer(values...);
  return std::move(packer).bytes();
}

template <typename T>
T unpack(std::string_view bytes) {
  Unpacker unpacker(bytes);
  T value{};
  unpacker(value);
  STARATTN_CHECK(unpacker.at_end());
  return value;
}

// The root's value, on every rank. Collective.
template <typename T>
T bcast_packed(const Communicator& comm, T value, Rank root) {
  if (comm.size() == 1) return value;
  const std::string bytes = comm.bcast_text(comm.rank() == root ? pack(value) : "", root);
  return comm.rank() == root ? std::move(value) : unpack<T>(bytes);
}

}  // namespace starattn
