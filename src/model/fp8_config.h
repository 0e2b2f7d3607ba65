// SPDX-License-Identifier: Apache-2.0
// The quantization_config of a config.json: FP8 weights in the spellings that people publish.
#pragma once

#include "base/json.h"
#include "model/config.h"

namespace starattn {

// The key under which a config.json says how its weights are quantised, or null. The first versions
// of compressed-tensors called it compression_config.
const char* key_of_quantization(const JsonObject& config);
// Methods fp8 (Qwen, DeepSeek), compressed-tensors, fbgemm_fp8, modelopt and quark. Throws
// Error(bad_data), by name, on other methods and on numbers that are not FP8.
Fp8Config read_fp8_config(const JsonObject& config);
// The hf_quant_config.json that ModelOpt leaves beside a config.json; older ones say it there
// alone.
Fp8Config read_hf_quant_config(const JsonObject& file);

}  // namespace starattn
