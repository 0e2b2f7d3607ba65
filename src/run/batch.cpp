// SPDX-License-Identifier: Apache-2.0
#include "run/batch.h"

#include <memory>
#include <numeric>

#include "base/clock.h"
#include "base/log.h"
#include "base/text.h"
#include "run/coordinator.h"
#include "run/dry_run.h"
#include "run/group_run.h"
#include "run/main_job.h"

namespace starattn {
namespace {

// What the whole input would do, and nothing of it done. Collective.
Exit try_input(const Options& options, const Ranks& ranks, const LoadedModel& model) {
  Exit result = Exit::ok;
  collectively(ranks.world, [&] {
    if (!ranks.is_first()) return;
    options.check_thinking();
    check_form(model, options);
    result = dry_run(options, ranks, model);
  });
  return result;
}

// Collective.
void warn_of_dropped_bytes(const Ranks& ranks, std::int64_t mine) {
  const std::vector<std::int64_t> all = ranks.world.allgather(mine);
  const std::int64_t n = std::accumulate(all.begin(), all.end(), std::int64_t{0});
  if (n > 0 && ranks.is_first()) {
    log::warn(
        "{} byte(s) of the input have no token in the model's vocabulary: left out, as Hugging "
        "Face's tokenizers library does",
        with_commas(n));
  }
}

}  // namespace

Exit run_batch(const Options& options, Work work) {
  const Stopwatch clock;
  return run_main_job(options, [&](const Ranks& ranks, LoadedModel& model, Progress& progress) {
    if (options.dry_run) return try_input(options, ranks, model);

    std::unique_ptr<Coordinator> coordinator;
    collectively(ranks.world, [&] {
      options.plan_request();
      options.check_thinking();
      if (!ranks.is_first()) return;
      check_form(model, options);
      coordinator = std::make_unique<Coordinator>(options, model, work != Work::encode, progress);
    });
    JobQueue queue(ranks.world, ranks.group, ranks.n_groups, coordinator.get());
    GroupRun group(options, ranks, model, queue, work, progress);
    queue.run([&](const Job* job) { group.work_on(job); });
    ranks.world.barrier();

    print_phase_table(ranks, clock.seconds(), group.n_context_tokens());
    warn_of_dropped_bytes(ranks, group.n_dropped_bytes());
    return coordinator ? coordinator->finish() : Exit::ok;
  });
}

}  // namespace starattn
