// SPDX-License-Identifier: Apache-2.0
// Folders that are no model in the format of Hugging Face, and what they are instead.
#pragma once

#include <string>

namespace starattn {

// To go behind what was expected of the folder; empty where nothing is known in it. ", got a LoRA
// adapter (adapter_config.json): merge it into its model ..."
std::string what_is_there_instead(const std::string& folder);

}  // namespace starattn
