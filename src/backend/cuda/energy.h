// SPDX-License-Identifier: Apache-2.0
// The energy that a GPU has taken, from NVIDIA's management library, which comes with the driver.
#pragma once

#include <memory>
#include <optional>

namespace starattn::cuda {

class Energy {
 public:
  explicit Energy(int device);  // as CUDA numbers them
  ~Energy();
  // Since the driver was loaded; nothing without that library, or of a GPU that does not count.
  std::optional<double> joules() const;

 private:
  struct Library;
  std::unique_ptr<Library> library_;
};

}  // namespace starattn::cuda
