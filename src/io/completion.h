// SPDX-License-Identifier: Apache-2.0
// One line of output of an OpenAI batch: the answer to a request, or why there is none.
//
//   {"id": "batch_req_...", "custom_id": "a", "response": {"status_code": 200, "request_id": "...",
//    "body": {"object": "chat.completion", ...}}, "error": null}
#pragma once

#include <string>

#include "io/answer.h"
#include "io/document.h"

namespace starattn {

// kind: chat or completion. created: seconds since 1970, which the format wants.
std::string to_completion_line(const Answer& answer, DocumentKind kind,
                               const RequestFields& request, std::int64_t created);
// Status 400, with the message where each of the format's readers looks for it. custom_id: empty
// where the line has none that can be read.
std::string to_completion_error(const std::string& custom_id, const std::string& message);

// AnswerWriter::KeyOfLine and LineCheck of these lines.
AnswerKey key_of_completion(const Json& line, const std::string& where);
void check_completion_line(const Json& line, const std::string& where);

}  // namespace starattn
