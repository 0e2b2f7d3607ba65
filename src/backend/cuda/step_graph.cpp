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
    const std::unique_ptr<CUgraph_st, Destroy> graph(device_->record(operations));
    if (!takes_over(graph.get())) make_of(graph.get());
    check(cudaGraphLaunch(executable_, device_->stream()), "starting a CUDA graph");
  }

 private:
  struct Destroy {
    void operator()(cudaGraph_t graph) const { cudaGraphDestroy(graph); }
  };
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
