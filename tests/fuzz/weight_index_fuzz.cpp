// SPDX-License-Identifier: Apache-2.0
// model.safetensors.index.json: which file has which tensor. No name in it leaves the folder.
#include "fuzz.h"
#include "model/weight_files.h"

using namespace starattn;

STARATTN_FUZZ_TARGET {
  static const fuzz::Folder folder;
  static const bool once = [] {
    folder.write("one.safetensors", std::string("\x02\0\0\0\0\0\0\0{}", 10));
    return true;
  }();
  (void)once;
  folder.write("model.safetensors.index.json", input);
  fuzz::only_refuses([&] { const WeightFiles files(folder.path()); });
}
