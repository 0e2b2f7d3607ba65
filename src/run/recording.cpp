// SPDX-License-Identifier: Apache-2.0
#include "run/recording.h"

#include <algorithm>

#include "base/file.h"
#include "mpi/clock_offset.h"
#include "star/machine.h"
#include "trace/range.h"

namespace starattn {

Ceilings ceilings_of(const RecordOptions& options) {
  if (options.machine.empty()) return {};
  const Machine machine = read_machine(options.machine);
  return {machine.reference_flops_per_s, machine.row_bytes_per_s, machine.name};
}

Recording::Recording(const RecordOptions& options, const Ranks& ranks)
    : options_(options), ranks_(ranks) {
  collectively(ranks.world, [&] {
    if (!ranks.is_first()) return;
    ceilings_ = ceilings_of(options);
    for (const std::string& path : {options.trace, options.profile_file})
      if (!path.empty()) require_creatable(path);
  });
  trace::recorder().start(options.profiles(), !options.trace.empty());
  if (!options.trace.empty()) begin_ = read_clock();
}

Recording::~Recording() {
  trace::recorder().stop();
}

Recording::Clock Recording::read_clock() const {
  const double offset = clock_offset(ranks_.world, trace::now);
  return {trace::now(), offset};
}

void Recording::finish(Backend& backend) {
  backend.synchronize();
  if (options_.profiles()) {
    const Profile profile = gather_profile(ranks_.world, !backend.is_host_memory());
    collectively(ranks_.world, [&] {
      if (!ranks_.is_first()) return;
      if (!ceilings_.of.empty() && ceilings_.of != backend.describe())
        log::warn(
            "--machine {}: measured of {}, and rank 0 is {}: shares of its ceilings mean little",
            options_.machine, ceilings_.of, backend.describe());
      for (const std::string& line : to_table(profile, ceilings_)) log::info("{}", line);
      if (!options_.profile_file.empty())
        write_file_durably(options_.profile_file, to_line(to_json(profile, ceilings_)) + "\n");
    });
  }
  write_trace();
}

void Recording::write_trace() {
  if (options_.trace.empty()) return;
  const Clock end = read_clock();
  // Clocks drift apart evenly. Second 0 is the first rank's at the beginning.
  const double first = ranks_.world.bcast_value(begin_.mine, 0);
  const double drift = (end.offset - begin_.offset) / std::max(1e-9, end.mine - begin_.mine);
  const auto to_common = [&](double time) {
    return time + begin_.offset + (time - begin_.mine) * drift - first;
  };
  const std::vector<std::string> events =
      ranks_.world.gather_texts(trace::recorder().trace_events(ranks_.world.rank(), to_common), 0);
  const std::vector<std::uint64_t> lost = ranks_.world.allgather(trace::recorder().n_lost_events());
  collectively(ranks_.world, [&] {
    if (!ranks_.is_first()) return;
    if (std::ranges::any_of(lost, [](std::uint64_t n) { return n > 0; }))
      log::warn("trace: it has the first {} events of a rank; up to {} came later",
                trace::Recorder::kMostEvents, std::ranges::max(lost));
    DurableFile file(options_.trace);
    file.append("[\n");
    for (std::size_t rank = 0; rank < events.size(); ++rank) {
      std::string_view text = events[rank];
      if (rank + 1 == events.size()) text.remove_suffix(2);  // the last comma
      file.append(text);
    }
    file.append("\n]\n");
    file.commit();
    log::info("trace: {} (open it in ui.perfetto.dev or chrome://tracing)", options_.trace);
  });
}

}  // namespace starattn
