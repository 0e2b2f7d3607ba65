// SPDX-License-Identifier: Apache-2.0
#include "eval/audit.h"

#include <memory>

#include "eval/audit_coordinator.h"
#include "eval/audit_document.h"
#include "run/recording.h"
#include "run/watchdog.h"

namespace starattn {
namespace {

Exit audit(const AuditOptions& options, const Ranks& ranks, Recording& recording,
           Progress& progress) {
  const std::unique_ptr<LoadedModel> model = open_model(options.run, ranks);
  progress.watch_energy([&] { return model->backend->energy_joules(); });
  print_banner(options.run, ranks, *model);

  std::unique_ptr<AuditCoordinator> coordinator;
  collectively(ranks.world, [&] {
    options.run.plan_request();
    if (ranks.is_first())
      coordinator = std::make_unique<AuditCoordinator>(options, *model, progress);
  });
  AuditQueue queue(ranks.world, ranks.group, ranks.n_groups, coordinator.get());
  DocumentAuditor auditor(
      options, ranks, *model, [&queue] { queue.poll(); }, progress);
  queue.run([&](const AuditTask* task) {
    std::vector<AuditLine> lines = auditor.audit(task ? &task->document : nullptr);
    if (task) queue.send({task->number, std::move(lines)});
  });
  Exit result = Exit::ok;
  collectively(ranks.world, [&] {
    if (coordinator) result = coordinator->finish();
  });
  recording.finish(*model->backend);
  progress.finish(result);
  return static_cast<Exit>(ranks.world.bcast_value(static_cast<int>(result), 0));
}

}  // namespace

Exit run_audit(const AuditOptions& options) {
  const Ranks ranks = arrange_ranks(options.run);
  const Watchdog watchdog(options.run.timeout, ranks.world.rank());
  Recording recording(options.run, ranks);
  Progress progress(!ranks.is_first(), ranks.world.size(),
                    {options.run.progress_file, options.run.metrics_file});
  return progress.run([&] { return audit(options, ranks, recording, progress); });
}

}  // namespace starattn
