// SPDX-License-Identifier: Apache-2.0
#include "run/seen_ids.h"

#include "base/error.h"

namespace starattn {

void SeenIds::add(const Document& document, const std::string& where) {
  for (const Query& query : document.queries) {
    const Digest key = digest_of(fmt::format("{}:{}{}", document.id.size(), document.id, query.id));
    const auto [first, is_new] = line_of_.emplace(key, document.line);
    if (is_new) continue;
    if (document.is_of_requests()) {
      fail(Exit::bad_data,
           "{}: key 'custom_id': '{}' was there before, in line {}: answers could not be told "
           "apart. Give each request an id of its own",
           where, document.id, first->second);
    }
    fail(Exit::bad_data,
         "{}: document '{}', query '{}' was there before, in line {}: answers could not be told "
         "apart. Give each document an id of its own",
         where, document.id, query.id, first->second);
  }
}

}  // namespace starattn
