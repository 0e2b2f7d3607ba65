// SPDX-License-Identifier: Apache-2.0
// --profile, --profile-file and --trace of a command: what is recorded from the start of a run to
// its end, and where it goes.
#pragma once

#include "run/loaded_model.h"
#include "run/profile.h"

namespace starattn {

// By --machine; nothing known without.
Ceilings ceilings_of(const RecordOptions& options);

class Recording {
 public:
  // Begins, before the model is opened. Collective. Throws AgreedError(cannot_create | no_input |
  // bad_data). Options and ranks outlive it.
  Recording(const RecordOptions& options, const Ranks& ranks);
  ~Recording();
  Recording(const Recording&) = delete;
  Recording& operator=(const Recording&) = delete;

  // Says and writes what was asked for, while the backend is there. Collective. Throws
  // AgreedError(cannot_create | io).
  void finish(Backend& backend);
  // The trace alone.
  void write_trace();

 private:
  struct Clock {
    double mine = 0;    // seconds of trace::now()
    double offset = 0;  // that the first rank's shows beyond it
  };
  Clock read_clock() const;

  const RecordOptions& options_;
  const Ranks& ranks_;
  Ceilings ceilings_;
  Clock begin_;
};

}  // namespace starattn
