// SPDX-License-Identifier: Apache-2.0
// Which benchmark documents: the options that generate and eval share.
#pragma once

#include <CLI/CLI.hpp>
#include <cstdint>
#include <string>
#include <vector>

#include "base/file_purposes.h"
#include "benchmark/sample.h"
#include "benchmark/task.h"

namespace starattn {

struct BenchmarkOptions {
  std::vector<std::string> tasks;
  std::vector<std::string> lengths;
  std::uint64_t seed = 42;
  std::string data;
  std::string haystack;

  // All three throw Error(usage) naming the option; materials also as the files' readers do.
  std::vector<const TaskInfo*> chosen_tasks() const;
  std::vector<std::int64_t> chosen_lengths() const;
  Materials read_materials() const;
  void declare_files(FilePurposes& files) const;
};

// --task and --length may be required by the caller.
struct BenchmarkFlags {
  CLI::Option* task = nullptr;
  CLI::Option* length = nullptr;
};
BenchmarkFlags add_benchmark_options(CLI::App& app, BenchmarkOptions& options);

}  // namespace starattn
