// All kernels of csrc/cuda as torch.ops.rsd2_on_host.*, for tensors of the CPU. The include path
// begins with a copy of csrc in which cuda/launch.h is cuda_on_host.h; Python defines the schemas.
#include <ATen/Context.h>
#include <ATen/Dispatch.h>
#include <ATen/ops/argsort.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/full.h>
#include <ATen/ops/isnan.h>
#include <ATen/ops/sort.h>
#include <ATen/ops/stack.h>
#include <ATen/ops/zeros.h>
#include <torch/library.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <tuple>
#include <type_traits>
#include <vector>

// Another library, so that the real one can be loaded beside it.
#define rsd2 rsd2_on_host
#define CUDA CPU

// clang-format off: the first says what __global__ is
#include "cuda/launch.h"
// clang-format on

#include "cuda/box_iou_rotated.cu"
#include "cuda/ms_deform_attn.cu"
#include "cuda/nms_rotated.cu"
#include "cuda/roi_align_rotated.cu"

namespace {

// Kernels that show whether the machine of cuda_on_host.h notices mistakes.
enum Mistake { kNoMistake, kNoBarrier, kOtherBarrier, kLeftEarly };

__global__ void reverse(int64_t mistake, int64_t* out) {
  __shared__ int64_t numbers[64];
  const int64_t own = threadIdx.x;
  numbers[own] = -1;
  __syncthreads();
  numbers[own] = own;
  if (mistake == kLeftEarly && own == 5) return;
  if (mistake == kOtherBarrier && own % 2 == 1) __syncwarp();
  if (mistake != kNoBarrier) __syncthreads();
  out[own] = numbers[63 - own];
}

at::Tensor reversed(int64_t mistake) {
  at::Tensor out = at::zeros({64}, at::kLong);
  const rsd2::gpu::OnDeviceOf device(out);
  device.launch(reverse, 1, 64, mistake, out.mutable_data_ptr<int64_t>());
  return out;
}

}  // namespace

TORCH_LIBRARY_FRAGMENT(rsd2_on_host, m) {
  m.def("seed(int seed) -> ()", [](int64_t seed) { on_host::machine.random.seed(seed); });
  m.def("reversed(int mistake) -> Tensor", &reversed);
}
