// SPDX-License-Identifier: Apache-2.0
#pragma once

namespace starattn {

using Rank = int;  // of a process among those of its group, from 0

}  // namespace starattn
