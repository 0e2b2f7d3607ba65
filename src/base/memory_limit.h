// SPDX-License-Identifier: Apache-2.0
// How much of the node's memory this process may use.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

namespace starattn {

// Bytes: the node's physical memory, or the limit of this process's control groups if that is
// lower.
std::uint64_t memory_of_node();

// The lowest limit in bytes of the control groups that `membership` names, in the form of
// /proc/self/cgroup (versions 1 and 2), and of the groups above them; none where nothing limits.
// root: where control groups are mounted, /sys/fs/cgroup.
std::optional<std::uint64_t> control_group_limit(const std::string& membership,
                                                 const std::string& root);

}  // namespace starattn
