// SPDX-License-Identifier: Apache-2.0
// What the fuzz targets have in common. A target gives hostile bytes to one parser: whatever they
// are, it returns or throws our Error about the input, naming it in valid UTF-8. Anything else is a
// crash.
#pragma once

#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <string>
#include <string_view>

#include "base/error.h"
#include "base/log.h"
#include "base/text.h"

namespace starattn::fuzz {

inline void require(bool condition, const char* what) {
  if (condition) return;
  std::fprintf(stderr, "not so: %s\n", what);
  std::abort();
}

template <typename Action>
void only_refuses(const Action& action) {
  try {
    action();
  } catch (const Error& error) {
    require(error.exit() == Exit::bad_data || error.exit() == Exit::no_input ||
                error.exit() == Exit::usage,
            "an error about the input has an exit code about the input");
    require(is_utf8(error.what()), "a message is UTF-8");
    require(error.what()[0] != '\0', "a message says something");
  }
}

// A folder in memory, and a file of it that each input replaces. Warnings of parsers are not shown.
class Folder {
 public:
  Folder() {
    spdlog::set_level(spdlog::level::off);
    std::string path =
        std::filesystem::exists("/dev/shm") ? "/dev/shm/fuzz-XXXXXX" : "/tmp/fuzz-XXXXXX";
    require(::mkdtemp(path.data()) != nullptr, "a temporary folder can be made");
    path_ = path;
  }
  ~Folder() { std::filesystem::remove_all(path_); }
  Folder(const Folder&) = delete;
  Folder& operator=(const Folder&) = delete;

  const std::string& path() const { return path_; }
  std::string file(const char* name) const { return path_ + "/" + name; }
  void write(const char* name, std::string_view bytes) const {
    const int fd = ::open(file(name).c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    require(
        fd >= 0 && ::write(fd, bytes.data(), bytes.size()) == static_cast<ssize_t>(bytes.size()),
        "a file of the temporary folder can be written");
    ::close(fd);
  }

 private:
  std::string path_;
};

inline std::string_view text_of(const unsigned char* data, std::size_t size) {
  return {reinterpret_cast<const char*>(data), size};
}

}  // namespace starattn::fuzz

// The body of a target; `input` is a std::string_view.
#define STARATTN_FUZZ_TARGET                                                        \
  static void fuzz_one(std::string_view input);                                     \
  extern "C" int LLVMFuzzerTestOneInput(const unsigned char* data, std::size_t n);  \
  extern "C" int LLVMFuzzerTestOneInput(const unsigned char* data, std::size_t n) { \
    fuzz_one(starattn::fuzz::text_of(data, n));                                     \
    return 0;                                                                       \
  }                                                                                 \
  static void fuzz_one(std::string_view input)
