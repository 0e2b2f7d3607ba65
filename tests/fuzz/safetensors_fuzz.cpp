// SPDX-License-Identifier: Apache-2.0
// A weight file: whatever its header says, every byte that is handed out lies in the file.
#include "fuzz.h"
#include "model/safetensors.h"

using namespace starattn;

STARATTN_FUZZ_TARGET {
  static const fuzz::Folder folder;
  folder.write("model.safetensors", input);
  fuzz::only_refuses([&] {
    const SafetensorsFile file(folder.file("model.safetensors"));
    for (const char* name : {"a", "b", "model.norm.weight"}) {
      const TensorView* tensor = file.find(name);
      if (!tensor) continue;
      volatile std::byte sum{};  // read it all: the sanitizer watches
      for (std::uint64_t i = 0; i < tensor->n_bytes; ++i) sum = sum ^ tensor->data[i];
    }
  });
}
