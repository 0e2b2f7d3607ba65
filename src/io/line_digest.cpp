// SPDX-License-Identifier: Apache-2.0
#include "io/line_digest.h"

#include <xxhash.h>

#include "base/error.h"

namespace starattn {
namespace {

constexpr std::string_view kKey = ",\"digest\":\"";
constexpr std::size_t kDigits = 16;
constexpr std::size_t kEnd = kKey.size() + kDigits + 2;  // with the last quote and brace

std::string digest_of_text(std::string_view text) {
  return fmt::format("{:016x}", XXH3_64bits(text.data(), text.size()));
}

}  // namespace

std::string with_digest(std::string_view object) {
  STARATTN_CHECK(object.ends_with('}'));
  object.remove_suffix(1);
  return fmt::format("{}{}{}\"}}", object, kKey, digest_of_text(object));
}

LineDigest check_digest(std::string_view line) {
  if (line.size() < kEnd || !line.ends_with("\"}")) return LineDigest::none;
  const std::string_view end = line.substr(line.size() - kEnd);
  if (!end.starts_with(kKey)) return LineDigest::none;
  const std::string expected = digest_of_text(line.substr(0, line.size() - kEnd));
  return end.substr(kKey.size(), kDigits) == expected ? LineDigest::right : LineDigest::wrong;
}

void refuse_changed(std::string_view line, const std::string& where) {
  if (check_digest(line) == LineDigest::wrong)
    fail(Exit::bad_data, "{}: the line was changed since it was written (its digest is another)",
         where);
}

}  // namespace starattn
