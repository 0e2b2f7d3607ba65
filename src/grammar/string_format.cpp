// SPDX-License-Identifier: Apache-2.0
#include "grammar/string_format.h"

namespace starattn {

std::optional<std::string> regex_of_format(std::string_view name) {
  const std::string leap = "(\\d\\d(0[48]|[2468][048]|[13579][26])|([02468][048]|[13579][26])00)";
  const std::string date =
      "(\\d{4}-((0[13578]|1[02])-(0[1-9]|[12]\\d|3[01])|(0[469]|11)-(0[1-9]|[12]\\d|30)|"
      "02-(0[1-9]|1\\d|2[0-8]))|" +
      leap + "-02-29)";
  const std::string hours = "([01]\\d|2[0-3]):[0-5]\\d";
  const std::string time = hours + ":[0-5]\\d(\\.\\d{1,6})?(Z|[+-]" + hours + ")";
  const std::string octet = "(25[0-5]|2[0-4]\\d|1\\d\\d|[1-9]?\\d)";
  if (name == "date") return "^" + date + "$";
  if (name == "time") return "^" + time + "$";
  if (name == "date-time") return "^" + date + "T" + time + "$";
  if (name == "ipv4") return "^(" + octet + "\\.){3}" + octet + "$";
  if (name == "uuid") return "^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$";
  if (name == "email")
    return "^[A-Za-z0-9_+-]+(\\.[A-Za-z0-9_+-]+)*@[A-Za-z0-9]+(-[A-Za-z0-9]+)*"
           "(\\.[A-Za-z0-9]+(-[A-Za-z0-9]+)*)+$";
  return std::nullopt;
}

}  // namespace starattn
