// SPDX-License-Identifier: Apache-2.0
#include "run/main_job.h"

#include "run/recording.h"
#include "run/watchdog.h"

namespace starattn {

Exit run_main_job(const Options& options, JobWork work) {
  const Ranks ranks = arrange_ranks(options);
  const Watchdog watchdog(options.timeout, ranks.world.rank());
  Recording recording(options, ranks);
  Progress progress(!ranks.is_first() || options.dry_run, ranks.world.size(),
                    {options.progress_file, options.metrics_file});
  progress.share_out(ranks.group.size());
  return progress.run([&] {
    const std::unique_ptr<LoadedModel> model = open_model(options, ranks);
    progress.watch_energy([&] { return model->backend->energy_joules(); });
    print_banner(ranks, *model);
    const Exit result = work(ranks, *model, progress);
    if (!options.dry_run) {
      recording.finish(*model->backend);
      progress.finish(result);
    }
    return static_cast<Exit>(ranks.world.bcast_value(static_cast<int>(result), 0));
  });
}

}  // namespace starattn
