// SPDX-License-Identifier: Apache-2.0
// The files that an input names as contexts: none of them may be one that the command writes.
#pragma once

#include <string>

#include "base/file_purposes.h"

namespace starattn {

// To be called when all files that are written have been declared. Reads the input once, but only
// where it is a regular file and something that is written is there already. Throws Error(usage);
// lines that are no documents are left to who reads them.
void declare_context_files(const std::string& input_path, const FilePurposes& files);

}  // namespace starattn
