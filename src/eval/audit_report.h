// SPDX-License-Identifier: Apache-2.0
// What an audit found, for a browser; audit_sheet.h has the terminal's side.
#pragma once

#include <vector>

#include "eval/audit_sheet.h"
#include "report/page.h"

namespace starattn {

PageSection audit_section(const std::vector<AuditRow>& documents);  // one at least

}  // namespace starattn
