// SPDX-License-Identifier: Apache-2.0
#include "backend/cuda/step_graph.h"

namespace starattn::cuda {
namespace {

class StepGraph : public Repeated {
 public:
  explicit StepGraph(Device& device) : device_(&device) {}
  ~StepGraph() override { forget(); }
  StepGraph(const StepGraph&) = delete;
  StepGraph& operator=(const StepGraph&) = delete;

  void run(const std::function<void()>& operations) override {
    const cudaGraph_t graph = device_->record(operations);
    try {
      if (!takes_over(graph)) make_of(graph);
      check(cudaGraphLaunch(executable_, device_->stream()), "starting a CUDA graph");
    } catch (...) {
      cudaGraphDestroy(graph);
      throw;
    }
    cudaGraphDestroy(graph);
  }

 private:
  // Not where other kernels follow each other than before.
  bool takes_over(cudaGraph_t graph) {
    if (!executable_) return false;
    cudaGraphExecUpdateResultInfo result{};
    if (cudaGraphExecUpdate(executable_, graph, &result) == cudaSuccess) return true;
    cudaGetLastError();  // not sticky
    return false;
  }
  void make_of(cudaGraph_t graph) {
    forget();
    check(cudaGraphInstantiate(&executable_, graph, 0), "making a CUDA graph");
  }
  void forget() {
    if (executable_) cudaGraphExecDestroy(executable_);  // once it has finished
    executable_ = nullptr;
  }

  Device* device_;
  cudaGraphExec_t executable_ = nullptr;
};

}  // namespace

std::unique_ptr<Repeated> make_step_graph(Device& device) {
  return std::make_unique<StepGraph>(device);
}

}  // namespace starattn::cuda
