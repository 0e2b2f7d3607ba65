// SPDX-License-Identifier: Apache-2.0
#include "calibrate/calibrate.h"

#include <ctime>

#include "base/clock.h"
#include "base/file.h"
#include "base/log.h"
#include "calibrate/chunk_operations.h"
#include "calibrate/groups.h"
#include "calibrate/inputs.h"
#include "calibrate/layers.h"
#include "calibrate/messages.h"
#include "calibrate/thin_operations.h"
#include "calibrate/timer.h"
#include "star/machine.h"
#include "study/machine.h"

namespace starattn {
namespace {

std::string date_of_today() {
  char date[16] = {};
  const std::time_t now = std::time(nullptr);
  std::tm utc{};
  std::strftime(date, sizeof(date), "%Y-%m-%d", gmtime_r(&now, &utc));
  return date;
}

// The clock of a GPU falls under load, and documents take long.
void warm_up(const CalibrationInputs& inputs) {
  Backend& backend = inputs.backend();
  if (backend.is_host_memory()) return;
  const RowBuffer x = inputs.rows(inputs.chunk(), kWidth);
  const RowBuffer y(backend, inputs.chunk(), kWidth);
  for (const Stopwatch clock; clock.seconds() < 3; backend.synchronize())
    for (int i = 0; i < 100; ++i)
      backend.linear(x.rows(inputs.chunk()),
                     {inputs.weight(kWidth, kWidth, i), WeightView{}, y.rows(inputs.chunk())},
                     Product::chunk);
}

double bus_rate(Backend& backend, const CalibrationTimer& timer) {
  constexpr std::size_t kBytes = std::size_t{256} << 20;
  const Buffer host = backend.allocate_pinned(kBytes);
  const Buffer device = backend.allocate(kBytes);
  const double seconds = timer([&](std::int64_t) {
    backend.upload({host.data(), kBytes}, device.data());
  });
  return static_cast<double>(kBytes) / seconds;
}

// f8_kv: the same device, keeping keys and values in FP8. Collective.
Machine measure(const Communicator& world, Backend& backend, Backend& f8_kv) {
  const CalibrationInputs inputs(backend);
  const CalibrationTimer timer(backend, world);
  Machine m;
  m.name = backend.describe();
  m.date = date_of_today();
  m.dtype = backend.activation_dtype();
  m.chunk_rows = backend.chunk_rows();
  m.n_ranks = world.size();
  warm_up(inputs);
  ChunkOperations(inputs, timer).measure(m);
  ThinOperations(inputs, timer).measure(m);
  LayerCalibration layers(backend, f8_kv, world.split(world.rank()), timer);
  layers.measure(m);
  if (world.size() > 1) {
    m.message = time_messages(world, backend);
    m.step = time_query_exchange(world, inputs);
  }
  if (!backend.is_host_memory()) m.bus_bytes_per_s = bus_rate(backend, timer);
  return m;
}

}  // namespace

Exit calibrate_to(const std::string& path, const DeviceOptions& options, const Ranks& ranks) {
  collectively(ranks.world, [&] {
    if (ranks.is_first()) require_creatable(path);
  });
  const std::unique_ptr<Backend> backend = make_backend(options, ranks);
  DeviceOptions with_f8_kv = options;
  with_f8_kv.kv_dtype = "fp8";
  const std::unique_ptr<Backend> f8_kv = make_backend(with_f8_kv, ranks);
  const double reference = product_rate(ranks, *backend) / ranks.world.size();
  Machine machine = measure(ranks.world, *backend, *f8_kv);
  machine.reference_flops_per_s = reference;
  const auto write = [&] {
    collectively(ranks.world, [&] {
      if (ranks.is_first()) write_file_durably(path, to_text(machine));
    });
  };
  write();  // whatever happens to the ranks together
  measure_groups(machine, options, ranks);
  const double swing = swing_of({reference, product_rate(ranks, *backend) / ranks.world.size()});
  if (ranks.is_first() && swing > kBusySwing) {
    log::warn(
        "the machine's own products swung by {:.0f} % during the calibration: something else is at "
        "work on it, or its clocks move. Times by this file will be wrong; make it again",
        100 * swing);
  }
  write();
  return Exit::ok;
}

}  // namespace starattn
