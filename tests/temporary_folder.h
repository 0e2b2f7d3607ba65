// SPDX-License-Identifier: Apache-2.0
// A folder that lives as long as a test, and what tests of refusals ask.
#pragma once

#include <gtest/gtest.h>
#include <stdlib.h>

#include <filesystem>
#include <fstream>
#include <initializer_list>
#include <string>
#include <string_view>

#include "base/error.h"

namespace starattn {

class TemporaryFolder {
 public:
  TemporaryFolder() {
    std::string path = std::filesystem::temp_directory_path() / "starattn-test-XXXXXX";
    if (!::mkdtemp(path.data())) fail(Exit::cannot_create, "{}: no temporary folder", path);
    path_ = path;
  }
  ~TemporaryFolder() { std::filesystem::remove_all(path_); }
  TemporaryFolder(const TemporaryFolder&) = delete;
  TemporaryFolder& operator=(const TemporaryFolder&) = delete;

  const std::string& path() const { return path_; }
  std::string file(const std::string& name) const { return path_ + "/" + name; }
  void write(const std::string& name, std::string_view bytes) const {
    std::ofstream(file(name), std::ios::binary) << bytes;
  }

 private:
  std::string path_;
};

// The action must end in an Error with this exit code, whose message holds every one of the words.
template <typename Action>
void expect_refused(Action action, Exit exit, std::initializer_list<std::string_view> words) {
  try {
    action();
    ADD_FAILURE() << "accepted; expected an error about "
                  << fmt::format("{}", fmt::join(words, ", "));
  } catch (const Error& error) {
    const std::string message = error.what();
    EXPECT_EQ(static_cast<int>(error.exit()), static_cast<int>(exit)) << message;
    for (const std::string_view word : words)
      EXPECT_NE(message.find(word), std::string::npos) << "no '" << word << "' in: " << message;
    EXPECT_LE(message.size(), 2004U) << "too long for a person";
  }
}

}  // namespace starattn
