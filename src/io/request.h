// SPDX-License-Identifier: Apache-2.0
// One line of an OpenAI batch file: a chat completion or a completion that somebody asks for.
//
//   {"custom_id": "a", "method": "POST", "url": "/v1/chat/completions", "body": {"messages":
//   [...]}}
//
// docs/batch-files.md says which keys of the body are heeded, and where a request's context ends
// and its question begins. That is decided by the request alone.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "io/document.h"

namespace starattn {

// Whether the line, or what can be read of a broken one, is such a request.
bool is_request(std::string_view text);

// Whether a file begins with such a request. False for what is no regular file: requests are read
// twice. Throws as LineReader, and bad_data for requests in a file that gzip has packed.
bool is_request_file(const std::string& path);

// A document with one query, both named by the custom_id. where: "in.jsonl:17". question_marker:
// the question begins where this stands last; empty: by the rule in docs/batch-files.md. Throws
// Error(bad_data) that names key, expected and got.
Document parse_request(std::string_view text, std::int64_t line, const std::string& where,
                       const std::string& question_marker);

// The custom_id of a line that is bad otherwise; empty where it cannot be read.
std::string readable_custom_id(std::string_view text);

}  // namespace starattn
