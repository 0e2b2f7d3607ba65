// SPDX-License-Identifier: Apache-2.0
// An evaluation's cells for a terminal, for a program, and for a browser.
#pragma once

#include <string>
#include <vector>

#include "eval/comparison.h"
#include "report/page.h"

namespace starattn {

// A heading for each task and length, a row for each setting; 80 columns wide, or as much wider as
// the longest setting asks for.
std::string to_terminal(const std::vector<Cell>& cells);

// "x: as fast as ring, on 4 rank(s) each", a line for each such basis; and why speeds are missing.
std::string speed_notes(const std::vector<Cell>& cells);

// JSON Lines, one cell each: shares of 1, tokens a second, milliseconds; unknown is null.
std::string to_json_lines(const std::vector<Cell>& cells);

// Score over length for each task, a line a setting, and speed against accuracy; then every cell.
std::vector<PageSection> accuracy_sections(const std::vector<Cell>& cells);
// The page of these alone. head.about: the model.
std::string to_html(const std::vector<Cell>& cells, ReportHead head);

}  // namespace starattn
