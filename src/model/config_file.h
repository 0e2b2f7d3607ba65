// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

#include "base/json.h"

namespace starattn {

// config.json or one of those beside it. Python's json writes NaN, Infinity and -Infinity, which
// are no JSON: here they are texts, so whoever wants a number there refuses them by the key's name,
// and nobody minds them elsewhere. Throws as read_json_file().
Json read_config_file(const std::string& path);

}  // namespace starattn
