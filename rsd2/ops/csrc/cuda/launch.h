// What every launch of a kernel needs. Host code only; where kernels are run without a GPU,
// tests/ops/cuda/cuda_on_host.h stands in for this file.
#pragma once

#include <ATen/core/Tensor.h>
#include <c10/cuda/CUDAException.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>

#include <algorithm>
#include <cstdint>

namespace rsd2 {
namespace gpu {

// Blocks for some tasks of which a block does `at_a_time`. Kernels loop over what the grid does not
// cover; the most that are asked for fill any GPU.
inline unsigned blocks_for(int64_t tasks, int64_t at_a_time) {
  constexpr int64_t kMost = int64_t(1) << 16;
  return static_cast<unsigned>(std::min((tasks + at_a_time - 1) / at_a_time, kMost));
}

// Everything of one call runs on the device of its tensors, in the current stream of that device.
class OnDeviceOf {
 public:
  explicit OnDeviceOf(const at::Tensor& tensor)
      : guard_(tensor.device()), stream_(c10::cuda::getCurrentCUDAStream()) {}

  template <typename... Parameters, typename... Arguments>
  void launch(void (*kernel)(Parameters...), unsigned blocks, int threads,
              const Arguments&... arguments) const {
    kernel<<<blocks, threads, 0, stream_.stream()>>>(arguments...);
    C10_CUDA_KERNEL_LAUNCH_CHECK();
  }

 private:
  c10::cuda::CUDAGuard guard_;
  c10::cuda::CUDAStream stream_;
};

}  // namespace gpu
}  // namespace rsd2
