// SPDX-License-Identifier: Apache-2.0
#include "eval/audit.h"

#include <memory>

#include "eval/audit_coordinator.h"
#include "eval/audit_document.h"
#include "run/main_job.h"

namespace starattn {

Exit run_audit(const AuditOptions& options) {
  return run_main_job(options.run, [&](const Ranks& ranks, LoadedModel& model, Progress& progress) {
    std::unique_ptr<AuditCoordinator> coordinator;
    collectively(ranks.world, [&] {
      options.run.plan_request();
      if (ranks.is_first())
        coordinator = std::make_unique<AuditCoordinator>(options, model, progress);
    });
    AuditQueue queue(ranks.world, ranks.group, ranks.n_groups, coordinator.get());
    DocumentAuditor auditor(
        options, ranks, model, [&queue] { queue.poll(); }, progress);
    queue.run([&](const AuditTask* task) {
      std::vector<AuditLine> lines = auditor.audit(task ? &task->document : nullptr);
      if (task) queue.send({task->number, std::move(lines)});
    });
    Exit result = Exit::ok;
    collectively(ranks.world, [&] {
      if (coordinator) result = coordinator->finish();
    });
    return result;
  });
}

}  // namespace starattn
