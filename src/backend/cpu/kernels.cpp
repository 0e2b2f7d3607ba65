// SPDX-License-Identifier: Apache-2.0
#include "backend/cpu/kernels.h"

#include <cstdlib>
#include <string_view>

#include "base/error.h"

namespace starattn::cpu {

const Kernels& best_kernels() {
  const char* wish_text = std::getenv("STARATTN_CPU");
  const std::string_view wish = wish_text ? wish_text : "";
  if (!wish.empty() && wish != "portable" && wish != "avx2" && wish != "avx512") {
    fail(Exit::usage, "STARATTN_CPU: expected portable, avx2 or avx512, got '{}'", wish);
  }
#if defined(__x86_64__)
  const bool has_avx512 = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                          __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
  const bool has_avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
  if ((wish == "avx512" && !has_avx512) || (wish == "avx2" && !has_avx2)) {
    fail(Exit::unfit, "STARATTN_CPU={}: this processor does not have it", wish);
  }
  if (wish == "avx512" || (wish.empty() && has_avx512)) return avx512_kernels();
  if (wish == "avx2" || (wish.empty() && has_avx2)) return avx2_kernels();
#else
  if (wish == "avx2" || wish == "avx512")
    fail(Exit::unfit, "STARATTN_CPU={}: not an x86-64 processor", wish);
#endif
  return portable_kernels();
}

}  // namespace starattn::cpu
