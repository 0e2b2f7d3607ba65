// SPDX-License-Identifier: Apache-2.0
// GPT-2's byte alphabet: every byte is written as one printable character, so that a vocabulary of
// byte strings can live in a JSON file. " the" is written "Ġthe".
#pragma once

#include <optional>
#include <string>
#include <string_view>

namespace starattn {

std::string to_byte_alphabet(std::string_view bytes);

// nullopt when a character stands for no byte.
std::optional<std::string> from_byte_alphabet(std::string_view text);

}  // namespace starattn
