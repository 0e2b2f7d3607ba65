// SPDX-License-Identifier: Apache-2.0
// A study for people, in the form of nccl-tests: comments of the head, a row of plain numbers for
// each point and operation as it is measured, and comments that sum up. docs/metrics.md defines the
// columns.
#pragma once

#include <span>
#include <string>
#include <vector>

#include "study/measurement.h"

namespace starattn {

class StudyTable {
 public:
  // settings: all that rows will have; the widest makes the column.
  explicit StudyTable(const std::vector<std::string>& settings);

  // head: of describe_machine, with what bench adds. compared_with: what `wrong` counts against.
  std::string head(const Json& head, const std::string& compared_with) const;
  // The repeats of one operation at one point, one at least.
  std::string row(std::span<const Measurement> repeats) const;

 private:
  std::size_t width_;  // of the settings
};

}  // namespace starattn
