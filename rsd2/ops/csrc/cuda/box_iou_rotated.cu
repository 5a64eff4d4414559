// Rotated IoU on CUDA devices: matrix, pairs, overlaps above a threshold, maxima. Contract:
// library.cpp and rsd2/ops/box_iou_rotated.py.
#include <ATen/Dispatch.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/full.h>
#include <ATen/ops/sort.h>
#include <ATen/ops/zeros.h>
#include <torch/library.h>

#include <tuple>

#include "box_iou_rotated.cuh"
#include "described_boxes.h"

namespace rsd2 {
namespace gpu {
namespace {

// Both sets described, and the visit of all their pairs.
template <typename T>
class Pairs {
 public:
  Pairs(const at::Tensor& boxes1, const at::Tensor& boxes2, const OnDeviceOf& device)
      : device_(device), one_(boxes1, {}, device), two_(boxes2, {}, device) {}

  AllPairs<T> all() const { return {one_.view(), two_.view(), 0}; }

  template <typename Visitor>
  void visit(const Visitor& visitor) const {
    const int64_t tiles = tiles_of(visitor.one.size, visitor.two.size);
    if (tiles == 0) return;
    device_.launch(visit_all_pairs<T, Visitor>, blocks_for(tiles, 1), kTileColumns, visitor);
  }

 private:
  const OnDeviceOf& device_;
  DescribedTensor<T> one_, two_;
};

void box_iou_rotated_out(const at::Tensor& boxes1, const at::Tensor& boxes2, at::Tensor& out) {
  check_boxes(boxes1, boxes1);
  check_boxes(boxes2, boxes1);
  TORCH_CHECK_VALUE(
      out.dim() == 2 && out.size(0) == boxes1.size(0) && out.size(1) == boxes2.size(0) &&
          out.scalar_type() == boxes1.scalar_type() && out.device() == boxes1.device(),
      "out must be (", boxes1.size(0), ", ", boxes2.size(0), "), ", boxes1.scalar_type(), ", on ",
      boxes1.device(), "; got ", out.sizes(), ", ", out.scalar_type(), ", on ", out.device());
  const OnDeviceOf device(boxes1);
  AT_DISPATCH_FLOATING_TYPES(boxes1.scalar_type(), "box_iou_rotated", [&] {
    const Pairs<scalar_t> pairs(boxes1, boxes2, device);
    pairs.visit(FillMatrix<scalar_t>{pairs.all(), out.mutable_data_ptr<scalar_t>(), out.stride(0),
                                     out.stride(1)});
  });
}

at::Tensor box_iou_rotated(const at::Tensor& boxes1, const at::Tensor& boxes2) {
  check_boxes(boxes1, boxes1);
  check_boxes(boxes2, boxes1);
  at::Tensor out = at::empty({boxes1.size(0), boxes2.size(0)}, boxes1.options());
  box_iou_rotated_out(boxes1, boxes2, out);
  return out;
}

at::Tensor paired_iou_rotated(const at::Tensor& boxes1, const at::Tensor& boxes2) {
  check_boxes(boxes1, boxes1);
  check_boxes(boxes2, boxes1);
  const int64_t size = boxes1.size(0);
  TORCH_CHECK_VALUE(size == boxes2.size(0), "paired boxes must be as many, got ", size, " and ",
                    boxes2.size(0));
  const OnDeviceOf device(boxes1);
  const at::Tensor one = boxes1.contiguous(), two = boxes2.contiguous();
  at::Tensor result = at::empty({size}, boxes1.options());
  if (size == 0) return result;
  AT_DISPATCH_FLOATING_TYPES(boxes1.scalar_type(), "paired_iou_rotated", [&] {
    device.launch(pair_boxes<scalar_t>, blocks_for(size, kTileColumns), kTileColumns,
                  one.const_data_ptr<scalar_t>(), two.const_data_ptr<scalar_t>(), size,
                  result.mutable_data_ptr<scalar_t>());
  });
  return result;
}

// Places for the pairs of a first attempt; a denser scene takes a second one that knows how many.
int64_t expected_pairs(int64_t rows, int64_t columns) {
  return std::min(rows * columns, 1024 + 8 * (rows + columns));
}

std::tuple<at::Tensor, at::Tensor, at::Tensor> sparse_iou_rotated(const at::Tensor& boxes1,
                                                                  const at::Tensor& boxes2,
                                                                  double threshold) {
  check_boxes(boxes1, boxes1);
  check_boxes(boxes2, boxes1);
  const OnDeviceOf device(boxes1);
  const auto index = boxes1.options().dtype(at::kLong);
  at::Tensor slots = at::empty({expected_pairs(boxes1.size(0), boxes2.size(0))}, index);
  at::Tensor ious = at::empty(slots.sizes(), boxes1.options());
  AT_DISPATCH_FLOATING_TYPES(boxes1.scalar_type(), "sparse_iou_rotated", [&] {
    const Pairs<scalar_t> pairs(boxes1, boxes2, device);
    for (;;) {
      at::Tensor count = at::zeros({1}, index);
      pairs.visit(ListPairs<scalar_t>{pairs.all(), threshold, slots.size(0),
                                      reinterpret_cast<Word*>(count.mutable_data_ptr<int64_t>()),
                                      slots.mutable_data_ptr<int64_t>(),
                                      ious.mutable_data_ptr<scalar_t>()});
      const int64_t found = count.item<int64_t>();
      const bool fits = found <= slots.size(0);
      slots = fits ? slots.narrow(0, 0, found) : at::empty({found}, index);
      ious = fits ? ious.narrow(0, 0, found) : at::empty({found}, boxes1.options());
      if (fits) break;
    }
  });
  // The order in which threads came is forgotten here.
  const auto sorted = at::sort(slots);
  const int64_t columns = std::max<int64_t>(1, boxes2.size(0));
  const at::Tensor rows = std::get<0>(sorted).div(columns, "floor");
  return {rows, std::get<0>(sorted).remainder(columns), ious.index_select(0, std::get<1>(sorted))};
}

std::tuple<at::Tensor, at::Tensor, at::Tensor, at::Tensor> max_iou_rotated(
    const at::Tensor& boxes1, const at::Tensor& boxes2) {
  check_boxes(boxes1, boxes1);
  check_boxes(boxes2, boxes1);
  const OnDeviceOf device(boxes1);
  at::Tensor row_max = at::zeros({boxes1.size(0)}, boxes1.options());
  at::Tensor column_max = at::zeros({boxes2.size(0)}, boxes1.options());
  at::Tensor row_argmax = at::full({boxes1.size(0)}, -1, boxes1.options().dtype(at::kLong));
  at::Tensor column_argmax = at::full({boxes2.size(0)}, -1, row_argmax.options());
  AT_DISPATCH_FLOATING_TYPES(boxes1.scalar_type(), "max_iou_rotated", [&] {
    const Pairs<scalar_t> pairs(boxes1, boxes2, device);
    scalar_t* rows = row_max.mutable_data_ptr<scalar_t>();
    scalar_t* columns = column_max.mutable_data_ptr<scalar_t>();
    pairs.visit(KeepMaxima<scalar_t>{pairs.all(), rows, columns});
    pairs.visit(KeepFirstIndices<scalar_t>{pairs.all(), rows, columns,
                                           row_argmax.mutable_data_ptr<int64_t>(),
                                           column_argmax.mutable_data_ptr<int64_t>()});
  });
  return {row_max, row_argmax, column_max, column_argmax};
}

}  // namespace
}  // namespace gpu
}  // namespace rsd2

TORCH_LIBRARY_IMPL(rsd2, CUDA, m) {
  m.impl("box_iou_rotated", &rsd2::gpu::box_iou_rotated);
  m.impl("box_iou_rotated.out", &rsd2::gpu::box_iou_rotated_out);
  m.impl("paired_iou_rotated", &rsd2::gpu::paired_iou_rotated);
  m.impl("sparse_iou_rotated", &rsd2::gpu::sparse_iou_rotated);
  m.impl("max_iou_rotated", &rsd2::gpu::max_iou_rotated);
}
