// SPDX-License-Identifier: Apache-2.0
#pragma once

namespace starattn {

int n_usable_cores();  // that this process may run on

}  // namespace starattn
