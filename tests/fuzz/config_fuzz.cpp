// SPDX-License-Identifier: Apache-2.0
// config.json, and behind a byte 0xff generation_config.json: what is accepted can be computed
// with.
#include "fuzz.h"
#include "model/config.h"
#include "model/rope.h"

using namespace starattn;

STARATTN_FUZZ_TARGET {
  static const fuzz::Folder folder;
  const std::size_t cut = input.find('\xff');
  folder.write("config.json", input.substr(0, cut));
  folder.write("generation_config.json",
               cut == std::string_view::npos ? "{}" : input.substr(cut + 1));
  fuzz::only_refuses([&] {
    const ModelConfig config = read_model_config(folder.path());
    fuzz::require(config.n_layers > 0 && config.head_dim > 0 && config.n_kv_heads > 0,
                  "sizes are positive");
    fuzz::require(config.n_heads % config.n_kv_heads == 0, "heads come in whole groups");
    n_parameters(config);
    describe(config);
    canonical_text(config);
  });
}
