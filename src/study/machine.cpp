// SPDX-License-Identifier: Apache-2.0
#include "study/machine.h"

#include <fmt/chrono.h>
#include <sched.h>

#include <algorithm>
#include <ctime>
#include <fstream>

#include "base/clock.h"
#include "mpi/runtime.h"
#include "version.h"

namespace starattn {
namespace {

// The value of the first "name : value" line of /proc/cpuinfo; empty where it has none.
std::string from_cpuinfo(std::string_view name) {
  std::ifstream info("/proc/cpuinfo");
  for (std::string line; std::getline(info, line);) {
    const std::size_t colon = line.find(':');
    if (line.starts_with(name) && colon + 2 < line.size()) return line.substr(colon + 2);
  }
  return "";
}

// "0-3,8": those this process is bound to.
std::string bound_cores() {
  cpu_set_t cores;
  if (::sched_getaffinity(0, sizeof cores, &cores) != 0) return "";
  std::string text;
  for (int i = 0; i < CPU_SETSIZE; ++i) {
    if (!CPU_ISSET(i, &cores)) continue;
    const int first = i;
    while (i + 1 < CPU_SETSIZE && CPU_ISSET(i + 1, &cores)) ++i;
    text += text.empty() ? "" : ",";
    text += first == i ? fmt::format("{}", i) : fmt::format("{}-{}", first, i);
  }
  return text;
}

double bf16_seconds(Backend& backend, std::int64_t size) {
  std::vector<std::uint16_t> numbers(static_cast<std::size_t>(size * size));
  for (std::size_t i = 0; i < numbers.size(); ++i)
    numbers[i] = static_cast<std::uint16_t>(0x3c00 + i * 40503 % 768 + (i * 7 % 2 << 15));
  const WeightView w{reinterpret_cast<const std::byte*>(numbers.data()), Dtype::bf16, size, size};
  const RowBuffer x(backend, size, size);
  const RowBuffer y(backend, size, size);
  backend.upload(std::as_bytes(std::span(numbers)), x.rows(size).data);
  double best = 1e9;
  for (int i = 0; i < 10; ++i) {
    backend.synchronize();
    const Stopwatch clock;
    backend.linear(x.rows(size), {w, WeightView{}, y.rows(size)}, Product::chunk);
    backend.synchronize();
    best = std::min(best, clock.seconds());
  }
  return best;
}

}  // namespace

Json describe_machine(const Ranks& ranks, const Backend& backend) {
  const Json mine = {{"host", host_name()},
                     {"processor", from_cpuinfo("model name")},
                     {"clock_mhz", from_cpuinfo("cpu MHz")},
                     {"cores", bound_cores()},
                     {"threads", ranks.n_threads},
                     {"device", backend.describe()}};
  Json all = Json::array();
  for (const std::string& text : ranks.world.gather_texts(to_line(mine), 0))
    all.push_back(parse_json(text, "what a rank says of its machine"));
  Json head;
  head["date"] = fmt::format("{:%Y-%m-%dT%H:%M:%SZ}", fmt::gmtime(std::time(nullptr)));
  head["version"] = STARATTN_VERSION;
  head["command"] = command_line();
  head["mpi"] = mpi_library_version();
  head["device"] = backend.is_host_memory() ? from_cpuinfo("model name") : backend.describe();
  const bool has_f8_kv = backend.kv_dtype() == Dtype::f8;
  head["dtype"] = fmt::format("{}{}{}", name_of(backend.activation_dtype()),
                              backend.rounds_rows() ? ", rounded to f8 in phase 1" : "",
                              has_f8_kv ? ", KV f8" : "");
  head["ranks"] = std::move(all);
  return head;
}

double product_rate(const Ranks& ranks, Backend& backend) {
  constexpr std::int64_t kSize = 8192;
  ranks.world.barrier();
  const double mine = backend.is_host_memory()
                          ? measure_sgemm_rate(ranks.n_threads)
                          : 2.0 * kSize * kSize * kSize / bf16_seconds(backend, kSize);
  double sum = 0;
  for (const double rate : ranks.world.allgather(mine)) sum += rate;
  return sum;
}

double swing_of(const std::vector<double>& rates) {
  if (rates.empty()) return 0;
  const auto [least, greatest] = std::ranges::minmax(rates);
  return 1 - least / greatest;
}

}  // namespace starattn
