// SPDX-License-Identifier: Apache-2.0
// The bytes of a text that somebody brings: a file, a pipe, or standard input ("-"). gzip is
// unpacked on the way; what is no text (UTF-16, zip, PDF, ...) is refused by its first bytes.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>

#include "base/file.h"

struct z_stream_s;  // zlib's

namespace starattn {

// Asked some times a second while a pipe gives nothing: true ends the wait with Error(stopped).
using StopWaiting = std::function<bool()>;

// "standard input" for "-".
std::string name_of_input(const std::string& path);

class TextSource {
 public:
  // as_it_is: a file of our own, of which offsets count. Reads the first bytes. Throws
  // Error(no_input | bad_data | io | stopped).
  enum class Kind { as_it_is, brought };
  TextSource(const std::string& path, Kind kind, StopWaiting stop = {});
  ~TextSource();
  TextSource(const TextSource&) = delete;
  TextSource& operator=(const TextSource&) = delete;

  // Up to n bytes; 0 at the end only. Throws Error(io | bad_data | stopped).
  std::size_t read(char* to, std::size_t n);

  bool is_packed() const { return gzip_ != nullptr; }  // so that offsets are not the file's
  const std::string& name() const { return name_; }
  // The first bytes, eight at most, before any is read; none of a file of our own.
  std::string_view beginning() const { return ahead_; }

 private:
  std::size_t read_raw(char* to, std::size_t n);
  std::size_t unpack(char* to, std::size_t n);
  void wait() const;

  std::string name_;
  StopWaiting stop_;
  FileDescriptor file_;
  bool is_pipe_ = false;
  std::string ahead_;  // read already, to look at
  std::unique_ptr<z_stream_s> gzip_;
  std::string packed_;  // what gzip_ has for input
  bool is_in_member_ = false;
};

// A whole text, as UTF-8 without the byte order mark that it may begin with. Throws as TextSource
// does; bad_data beyond max_bytes and for what is not UTF-8.
std::string read_text(const std::string& path, std::size_t max_bytes);
std::string read_text(TextSource& source, std::size_t max_bytes);

}  // namespace starattn
