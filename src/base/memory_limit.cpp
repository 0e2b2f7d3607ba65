// SPDX-License-Identifier: Apache-2.0
#include "base/memory_limit.h"

#include <unistd.h>

#include <algorithm>
#include <fstream>
#include <iterator>
#include <sstream>

namespace starattn {
namespace {

std::optional<std::uint64_t> number_in(const std::string& path) {
  std::ifstream file(path);
  std::uint64_t number = 0;
  if (file >> number) return number;
  return std::nullopt;  // absent, or "max"
}

// The lowest of the files of that name in root/group and in the groups above it.
std::uint64_t lowest_limit(const std::string& root, std::string group, const std::string& name) {
  if (group.find("..") != std::string::npos) group.clear();  // outside of what a container sees
  std::uint64_t lowest = UINT64_MAX;
  for (;;) {
    while (group.ends_with('/')) group.pop_back();
    lowest = std::min(lowest, number_in(root + group + "/" + name).value_or(UINT64_MAX));
    if (group.empty()) return lowest;
    group.resize(group.find('/') == std::string::npos ? 0 : group.rfind('/'));
  }
}

bool names_memory(const std::string& controllers) {
  return ("," + controllers + ",").find(",memory,") != std::string::npos;
}

}  // namespace

std::optional<std::uint64_t> control_group_limit(const std::string& membership,
                                                 const std::string& root) {
  std::uint64_t lowest = UINT64_MAX;
  std::istringstream lines(membership);
  for (std::string line; std::getline(lines, line);) {  // "4:memory:/path"; "0::/path" is version 2
    const std::size_t first = line.find(':');
    const std::size_t second = line.find(':', std::min(first, line.size() - 1) + 1);
    if (second == std::string::npos) continue;
    const std::string controllers = line.substr(first + 1, second - first - 1);
    const std::string group = line.substr(second + 1);
    if (controllers.empty()) {
      lowest = std::min({lowest, lowest_limit(root, group, "memory.max"),
                         lowest_limit(root + "/unified", group, "memory.max")});
    } else if (names_memory(controllers)) {
      lowest = std::min(lowest, lowest_limit(root + "/memory", group, "memory.limit_in_bytes"));
    }
  }
  if (lowest == UINT64_MAX) return std::nullopt;
  return lowest;
}

std::uint64_t memory_of_node() {
  const auto physical = static_cast<std::uint64_t>(::sysconf(_SC_PHYS_PAGES)) *
                        static_cast<std::uint64_t>(::sysconf(_SC_PAGESIZE));
  std::ifstream file("/proc/self/cgroup");
  const std::string membership{std::istreambuf_iterator<char>(file), {}};
  return std::min(physical, control_group_limit(membership, "/sys/fs/cgroup").value_or(physical));
}

}  // namespace starattn
