// Schemas of every operator of rsd2. rsd2/ops/extension.py holds the same list for installations
// without this library, and refuses a library whose list differs.
//
// Kernels register themselves: csrc/cpu/*.cpp by STABLE_TORCH_LIBRARY_IMPL(rsd2, CPU, m),
// csrc/cuda/*.cu by TORCH_LIBRARY_IMPL(rsd2, CUDA, m). A device without a kernel of its own gets
// the PyTorch reference from Python. Python checks shapes before it calls; kernels check what only
// values tell.
//
// Shapes: N, M rotated boxes (cx, cy, w, h, angle in degrees counter-clockwise on screen), P pairs,
// K kept boxes or regions, B images, S positions of all levels, H heads, C channels of a head, Q
// queries, L levels, D points of a level.

#include <torch/csrc/stable/library.h>
#include <torch/headeronly/version.h>

#include <string>

#include "cpu/isa.h"

#ifndef RSD2_VERSION
#define RSD2_VERSION "unknown"
#endif

namespace {

// "<version of rsd2> <version of torch> <instruction set>": what it was built from and for, and
// which of its kernels this processor gets.
std::string build_info() {
  return std::string(RSD2_VERSION) + " " + TORCH_VERSION + " " + rsd2::isa_name(rsd2::best_isa());
}

}  // namespace

STABLE_TORCH_LIBRARY(rsd2, m) {
  m.def("build_info() -> str");

  // (N, 5), (M, 5) of one dtype, float32 or float64 -> (N, M) IoU of that dtype.
  m.def("box_iou_rotated(Tensor boxes1, Tensor boxes2) -> Tensor");
  // The same into `out` (N, M), of any strides.
  m.def("box_iou_rotated.out(Tensor boxes1, Tensor boxes2, *, Tensor(a!) out) -> ()");
  // Gradients in both sets; grad (N, M).
  m.def("box_iou_rotated_backward(Tensor grad, Tensor boxes1, Tensor boxes2) -> (Tensor, Tensor)");
  // (N, 5), (N, 5) of one dtype -> (N,).
  m.def("paired_iou_rotated(Tensor boxes1, Tensor boxes2) -> Tensor");
  // Gradients in both sets; grad (N,).
  m.def(
      "paired_iou_rotated_backward(Tensor grad, Tensor boxes1, Tensor boxes2) -> (Tensor, "
      "Tensor)");
  // Pairs of IoU > threshold, by row, then column: int64 (P,), int64 (P,), IoU (P,).
  m.def(
      "sparse_iou_rotated(Tensor boxes1, Tensor boxes2, float threshold) -> (Tensor rows, Tensor "
      "columns, Tensor iou)");
  // Greatest IoU of each row and column with the first index that has it: (N,), int64 (N,), (M,),
  // int64 (M,). Nothing overlaps: 0 and index -1.
  m.def(
      "max_iou_rotated(Tensor boxes1, Tensor boxes2) -> (Tensor row_max, Tensor row_argmax, Tensor "
      "column_max, Tensor column_argmax)");

  // (N, 5), (N,), int64 (N,) -> int64 (K,), by decreasing score, then index. ValueError: NaN score.
  m.def(
      "batched_nms_rotated(Tensor boxes, Tensor scores, Tensor idxs, float iou_threshold) -> "
      "Tensor");

  // (B, S, H, C), L pairs (height, width) in one list, (B, Q, H, L, D, 2), (B, Q, H, L, D)
  // -> (B, Q, H * C).
  m.def(
      "ms_deform_attn(Tensor value, SymInt[] spatial_shapes, Tensor sampling_locations, Tensor "
      "attention_weights) -> Tensor");
  // Gradients in value, locations and weights; grad (B, Q, H * C).
  m.def(
      "ms_deform_attn_backward(Tensor grad, Tensor value, SymInt[] spatial_shapes, Tensor "
      "sampling_locations, Tensor attention_weights) -> (Tensor, Tensor, Tensor)");

  // (B, C, height, width), (K, 6) -> (K, C, *output_size). A region that does not fit: ValueError,
  // on CUDA NaN.
  m.def(
      "roi_align_rotated(Tensor features, Tensor rois, SymInt[] output_size, float spatial_scale, "
      "int sampling_ratio) -> Tensor");
  // grad (K, C, *output_size) -> (B, C, height, width) = features_shape.
  m.def(
      "roi_align_rotated_backward(Tensor grad, Tensor rois, SymInt[] features_shape, float "
      "spatial_scale, int sampling_ratio) -> Tensor");
}

STABLE_TORCH_LIBRARY_IMPL(rsd2, CompositeExplicitAutograd, m) {
  m.impl("build_info", TORCH_BOX(&build_info));
}
