// SPDX-License-Identifier: Apache-2.0
// What run and eval have around their work: ranks, watchdog, recording, progress and the model.
#pragma once

#include "base/error.h"
#include "base/function_ref.h"
#include "run/loaded_model.h"
#include "run/options.h"
#include "run/progress.h"

namespace starattn {

using JobWork = FunctionRef<Exit(const Ranks& ranks, LoadedModel& model, Progress& progress)>;

// Opens the model, says so, and does the work. What it returns on the first rank is every rank's
// result. Collective over the job. Throws AgreedError.
Exit run_main_job(const Options& options, JobWork work);

}  // namespace starattn
