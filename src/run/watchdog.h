// SPDX-License-Identifier: Apache-2.0
// Ends a run in which nothing moves any more: a stopped rank or a hung file system leaves all
// others waiting for ever, and a batch job sitting on its nodes. A thread, because the main one is
// waiting.
#pragma once

#include <thread>

namespace starattn {

class Watchdog {
 public:
  // Ends the process, with a message and Exit::unfit, once its main thread has entered or left no
  // trace::Range for this long; the launcher then ends the other ranks. 0: never.
  Watchdog(double minutes, int rank);

 private:
  std::jthread thread_;  // told to end, and waited for, by its destructor
};

}  // namespace starattn
