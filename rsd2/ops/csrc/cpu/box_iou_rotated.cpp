// Rotated IoU on the CPU: matrix, paired, sparse and reduced form. Contract: library.cpp and
// rsd2/ops/box_iou_rotated.py.
#include <ATen/Dispatch.h>
#include <ATen/ops/empty.h>
#include <torch/library.h>

#include "described_boxes.h"

namespace rsd2 {
namespace {

at::Tensor paired_iou_rotated(const at::Tensor& boxes1, const at::Tensor& boxes2) {
  const at::Tensor one = boxes1.contiguous(), two = boxes2.contiguous();
  at::Tensor result = at::empty({one.size(0)}, one.options());
  AT_DISPATCH_FLOATING_TYPES(one.scalar_type(), "paired_iou_rotated", [&] {
    const scalar_t *data1 = one.const_data_ptr<scalar_t>(), *data2 = two.const_data_ptr<scalar_t>();
    scalar_t* iou = result.mutable_data_ptr<scalar_t>();
    const DescribedBoxes<scalar_t> described1(data1, one.size(0)), described2(data2, one.size(0));
    const auto columns1 = described1.columns(), columns2 = described2.columns();
    at::parallel_for(0, one.size(0), kSerialPairs, [&](int64_t begin, int64_t end) {
      pair_kernels<scalar_t>().paired(columns1, columns2, begin, end, iou + begin);
    });
  });
  return result;
}

}  // namespace
}  // namespace rsd2

TORCH_LIBRARY_IMPL(rsd2, CPU, m) { m.impl("paired_iou_rotated", &rsd2::paired_iou_rotated); }
