// Boxes of a tensor, described by a kernel. Host code only.
#pragma once

#include <ATen/ops/empty.h>

#include "launch.h"
#include "near_pairs.cuh"

namespace rsd2 {
namespace gpu {

// Refuse what cannot be boxes of this dtype on this device.
inline void check_boxes(const at::Tensor& boxes, const at::Tensor& like) {
  TORCH_CHECK_VALUE(boxes.dim() == 2 && boxes.size(1) == 5,
                    "boxes must be (N, 5) (cx, cy, w, h, angle), got ", boxes.sizes());
  TORCH_CHECK_VALUE(boxes.scalar_type() == like.scalar_type() && boxes.device() == like.device(),
                    "boxes must have one dtype and device, got ", boxes.scalar_type(), " on ",
                    boxes.device(), " and ", like.scalar_type(), " on ", like.device());
}

// `order` (N,) int64, contiguous: take box order[i] as the i-th; undefined: as they are.
template <typename T>
class DescribedTensor {
 public:
  DescribedTensor(const at::Tensor& boxes, const at::Tensor& order, const OnDeviceOf& device)
      : size_(boxes.size(0)),
        full_(at::empty({size_, int64_t(sizeof(RotatedBox))}, boxes.options().dtype(at::kByte))),
        circles_(at::empty({3, size_}, boxes.options())) {
    if (size_ == 0) return;
    const at::Tensor dense = boxes.contiguous();
    device.launch(describe_boxes<T>, blocks_for(size_, kTileColumns), kTileColumns,
                  dense.const_data_ptr<T>(),
                  order.defined() ? order.const_data_ptr<int64_t>() : nullptr, size_,
                  reinterpret_cast<RotatedBox*>(full_.mutable_data_ptr<uint8_t>()),
                  circles_.mutable_data_ptr<T>());
  }

  BoxSet<T> view() const {
    const T* circles = circles_.const_data_ptr<T>();
    const auto* full = reinterpret_cast<const RotatedBox*>(full_.const_data_ptr<uint8_t>());
    return {full, circles, circles + size_, circles + 2 * size_, size_};
  }

 private:
  int64_t size_;
  at::Tensor full_, circles_;
};

}  // namespace gpu
}  // namespace rsd2
