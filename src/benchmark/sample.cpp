// SPDX-License-Identifier: Apache-2.0
#include "benchmark/sample.h"

#include "base/error.h"

namespace starattn {

std::vector<SampleMaker> sample_makers(const TaskInfo& task, std::int64_t length,
                                       const Materials& materials) {
  switch (task.family) {
    case TaskFamily::needles:
      return {needle_maker(task, materials)};
    case TaskFamily::variable_tracking:
      return {variable_tracking_maker()};
    case TaskFamily::common_words:
      if (length < 4096) return {common_words_maker(true)};
      return {common_words_maker(false), common_words_maker(true)};
    case TaskFamily::frequent_words:
      return {frequent_words_maker(length)};
    case TaskFamily::reading:
      return {reading_maker(materials)};
    case TaskFamily::facts:
      return {facts_maker(task, materials)};
  }
  STARATTN_CHECK(false);
  return {};
}

}  // namespace starattn
