// SPDX-License-Identifier: Apache-2.0
// The library is opened while the program runs: the CUDA toolkit need not have its header, and a
// machine without a driver has none. Its functions keep their names and types (NVML API reference).
#include "backend/cuda/energy.h"

#include <cuda_runtime.h>
#include <dlfcn.h>

namespace starattn::cuda {

struct Energy::Library {
  using Status = int;    // nvmlReturn_t; 0: success
  using Handle = void*;  // nvmlDevice_t

  ~Library() {
    if (shutdown) shutdown();
    if (handle) ::dlclose(handle);
  }
  template <typename Function>
  bool find(const char* name, Function*& to) {
    to = reinterpret_cast<Function*>(::dlsym(handle, name));
    return to != nullptr;
  }

  void* handle = nullptr;
  Status (*shutdown)() = nullptr;
  Status (*total_energy)(Handle, unsigned long long* millijoules) = nullptr;
  Handle device = nullptr;
};

Energy::Energy(int device) : library_(std::make_unique<Library>()) {
  Library& nvml = *library_;
  Library::Status (*init)() = nullptr;
  Library::Status (*find_device)(const char* pci_bus_id, Library::Handle*) = nullptr;
  Library::Status (*shutdown)() = nullptr;
  char bus_id[32] = {};
  nvml.handle = ::dlopen("libnvidia-ml.so.1", RTLD_NOW | RTLD_LOCAL);
  const bool is_there =
      nvml.handle && nvml.find("nvmlInit_v2", init) && nvml.find("nvmlShutdown", shutdown) &&
      nvml.find("nvmlDeviceGetHandleByPciBusId_v2", find_device) &&
      cudaDeviceGetPCIBusId(bus_id, sizeof bus_id, device) == cudaSuccess && init() == 0;
  if (!is_there) return;
  nvml.shutdown = shutdown;
  if (find_device(bus_id, &nvml.device) == 0)
    nvml.find("nvmlDeviceGetTotalEnergyConsumption", nvml.total_energy);
}

Energy::~Energy() = default;

std::optional<double> Energy::joules() const {
  unsigned long long millijoules = 0;
  if (!library_->total_energy || library_->total_energy(library_->device, &millijoules) != 0)
    return std::nullopt;
  return static_cast<double>(millijoules) * 1e-3;
}

}  // namespace starattn::cuda
