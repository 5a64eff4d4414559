// Greedy NMS of rotated boxes on CUDA devices; nms_rotated.cuh says how. The host waits once, for
// the number of kept boxes. Contract: library.cpp and rsd2/ops/nms_rotated.py.
#include <ATen/Dispatch.h>
#include <ATen/ops/argsort.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/isnan.h>
#include <ATen/ops/sort.h>
#include <ATen/ops/stack.h>
#include <ATen/ops/zeros.h>
#include <torch/library.h>

#include "described_boxes.h"
#include "nms_rotated.cuh"

namespace rsd2 {
namespace gpu {
namespace {

Word* words(const at::Tensor& tensor) {
  return reinterpret_cast<Word*>(tensor.mutable_data_ptr<int64_t>());
}

// One bit for each candidate, in visiting order: whether it is kept. boxes: of the input; order,
// classes: (N,) of the candidates.
template <typename T>
at::Tensor kept_candidates(const at::Tensor& boxes, const at::Tensor& order,
                           const at::Tensor& classes, double threshold, const OnDeviceOf& device) {
  const DescribedTensor<T> described(boxes, order, device);
  const int64_t size = boxes.size(0), tiles = (size + kTile - 1) / kTile;
  const at::Tensor suppresses = at::zeros({size * kWords}, order.options());
  const at::Tensor states = at::zeros({3, tiles * kWords}, order.options());
  const at::Tensor busy = states[0], dead = states[1], kept = states[2];
  const Candidates<T> all{described.view(), classes.const_data_ptr<int64_t>(),
                          threshold,        words(suppresses),
                          words(busy),      words(dead),
                          words(kept)};
  device.launch(mark_within_tiles<T>, blocks_for(size, kTileRows), kTile, all);
  for (int64_t tile = 0; tile < tiles; ++tile) {
    const auto blocks = static_cast<unsigned>(tiles - tile);
    device.launch(suppress_later<T>, blocks, kTile, all, tile);
  }
  return kept;
}

at::Tensor batched_nms_rotated(const at::Tensor& boxes, const at::Tensor& scores,
                               const at::Tensor& idxs, double iou_threshold) {
  check_boxes(boxes, boxes);
  const int64_t size = boxes.size(0);
  for (const auto& [tensor, name] : {std::pair(scores, "scores"), std::pair(idxs, "idxs")}) {
    TORCH_CHECK_VALUE(
        tensor.dim() == 1 && tensor.size(0) == size && tensor.device() == boxes.device(), name,
        " must be (", size, ",) on ", boxes.device(), ", got ", tensor.sizes(), " on ",
        tensor.device());
  }
  if (size == 0) return at::empty({0}, idxs.options().dtype(at::kLong));
  const OnDeviceOf device(boxes);
  // Adding 0 makes -0 equal to 0 for every way of sorting.
  const at::Tensor by_score = at::argsort(scores.add(0), /*stable=*/true, 0, /*descending=*/true);
  const auto by_class = at::sort(idxs.to(at::kLong).index_select(0, by_score), /*stable=*/true, 0,
                                 /*descending=*/false);
  const at::Tensor classes = std::get<0>(by_class);
  const at::Tensor order = by_score.index_select(0, std::get<1>(by_class));
  at::Tensor kept;
  AT_DISPATCH_FLOATING_TYPES(boxes.scalar_type(), "batched_nms_rotated", [&] {
    kept = kept_candidates<scalar_t>(boxes, order, classes, iou_threshold, device);
  });
  at::Tensor is_kept = at::empty({size}, order.options());
  device.launch(flag_kept, blocks_for(size, kTile), kTile, words(kept),
                order.const_data_ptr<int64_t>(), size, is_kept.mutable_data_ptr<int64_t>());
  const at::Tensor places = is_kept.index_select(0, by_score).cumsum(0);
  at::Tensor result = at::empty({size}, order.options());
  device.launch(write_kept, blocks_for(size, kTile), kTile, by_score.const_data_ptr<int64_t>(),
                is_kept.const_data_ptr<int64_t>(), places.const_data_ptr<int64_t>(), size,
                result.mutable_data_ptr<int64_t>());
  const at::Tensor counts = at::stack({places[size - 1], at::isnan(scores).sum()}).cpu();
  const int64_t num_kept = counts[0].item<int64_t>(), num_nan = counts[1].item<int64_t>();
  TORCH_CHECK_VALUE(num_nan == 0, num_nan, " of ", size,
                    " scores are NaN; drop these boxes before NMS");
  return result.narrow(0, 0, num_kept).clone();
}

}  // namespace
}  // namespace gpu
}  // namespace rsd2

TORCH_LIBRARY_IMPL(rsd2, CUDA, m) {
  m.impl("batched_nms_rotated", &rsd2::gpu::batched_nms_rotated);
}
