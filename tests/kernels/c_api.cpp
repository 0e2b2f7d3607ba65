// SPDX-License-Identifier: Apache-2.0
// The attention kernels behind C names, for scripts/gpu_bench.py (ctypes). Returns 0, or 1 with the
// message in starattn_last_error().
#include <cstring>
#include <exception>
#include <string>

#include "attention.h"

namespace {

std::string last_error;

template <typename Call>
int guarded(Call call) {
  try {
    call();
    return 0;
  } catch (const std::exception& error) {
    last_error = error.what();
    return 1;
  }
}

}  // namespace

extern "C" {

using namespace starattn::kernels;

const char* starattn_last_error() {
  return last_error.c_str();
}

int starattn_prefill_attention(const AttentionInput* input, const AttentionOutput* output,
                               void* stream) {
  return guarded([&] { prefill_attention(*input, *output, static_cast<Stream>(stream)); });
}

int starattn_partial_workspace(const AttentionInput* input, std::size_t* n_bytes) {
  return guarded([&] { *n_bytes = partial_attention_workspace(*input); });
}

int starattn_partial_attention(const AttentionInput* input, const Partial* result, void* workspace,
                               void* stream) {
  return guarded(
      [&] { partial_attention(*input, *result, workspace, static_cast<Stream>(stream)); });
}

int starattn_finish_partial(const Partial* partial, std::int64_t n_rows,
                            const AttentionShape* shape, void* out, void* stream) {
  return guarded(
      [&] { finish_partial(*partial, n_rows, *shape, out, static_cast<Stream>(stream)); });
}

int starattn_merge_partials(const Partial* into, const Partial* from, std::int64_t n_rows,
                            const AttentionShape* shape, void* stream) {
  return guarded(
      [&] { merge_partials(*into, *from, n_rows, *shape, static_cast<Stream>(stream)); });
}

}  // extern "C"
