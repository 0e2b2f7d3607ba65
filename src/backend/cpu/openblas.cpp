// SPDX-License-Identifier: Apache-2.0
// What OpenBLAS is on this machine: its kernels, and its rate.
#include <cblas.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <string_view>
#include <vector>

#include "backend/backend.h"
#include "base/clock.h"

namespace starattn {

double measure_sgemm_rate(int n_threads) {
  constexpr int kSize = 2048;
  constexpr int kRepeats = 5;
  std::vector<float> a(std::size_t{kSize} * kSize);
  std::vector<float> b(a.size());
  std::vector<float> c(a.size());
  for (std::size_t i = 0; i < a.size(); ++i) {
    a[i] = static_cast<float>(i % 97) * 0.01F - 0.5F;
    b[i] = static_cast<float>(i % 89) * 0.01F - 0.4F;
  }
  openblas_set_num_threads(n_threads);
  double best = 1e9;
  for (int i = 0; i < kRepeats; ++i) {
    const Stopwatch clock;
    cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, kSize, kSize, kSize, 1.0F, a.data(), kSize,
                b.data(), kSize, 0.0F, c.data(), kSize);
    best = std::min(best, clock.seconds());
  }
  openblas_set_num_threads(1);
  return 2.0 * kSize * kSize * kSize / best;
}

// OpenBLAS picks its kernels by the processor's model number while it is loaded, and takes the
// oldest ones (SSE3, "Prescott") for a model that it does not know: a fourth of the speed on
// Emerald Rapids with OpenBLAS 0.3.21. Only the environment can tell it otherwise, and only before
// it is loaded.
void use_fitting_openblas_kernels(char** argv) {
#if defined(__x86_64__)
  const std::string_view chosen = openblas_get_corename();
  if (std::getenv("OPENBLAS_CORETYPE") ||
      (chosen != "Prescott" && chosen != "Core2" && chosen != "Nehalem"))
    return;
  const char* fitting =
      __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") ? "SkylakeX"
      : __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")       ? "Haswell"
                                                                              : nullptr;
  if (!fitting) return;
  ::setenv("OPENBLAS_CORETYPE", fitting, 1);
  ::execv("/proc/self/exe", argv);  // returns only when it fails: then we go on, slower
#else
  (void)argv;
#endif
}

}  // namespace starattn
