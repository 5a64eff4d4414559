// Kernels over many rotated boxes at once: which circles meet, and the IoU of those pairs. Compiled
// once for each instruction set (isa.h) from rotated_pairs_kernels.h; nothing of torch in here.
#pragma once

#include <cstdint>

#include "isa.h"

namespace rsd2 {

// Boxes as columns, see RotatedBox in rotated_geometry.h. T is the precision of the pair formula;
// centres and angles are exact in it.
template <typename T>
struct BoxColumns {
  const T *cx, *cy, *half_w, *half_h, *rest, *radius;
  const double *sine, *cosine;
};

template <typename T>
struct PairKernels {
  // Boxes of [first, last) of `two` whose circle may meet that of box `row` of `one`, as offsets
  // from `first` in increasing order; returns their number. `found` has room for all, and eight
  // more.
  int64_t (*near)(const BoxColumns<T>& one, int64_t row, const BoxColumns<T>& two, int64_t first,
                  int64_t last, int32_t* found);
  // IoU of box `row` of `one` with the `count` found ones.
  void (*ious)(const BoxColumns<T>& one, int64_t row, const BoxColumns<T>& two, int64_t first,
               const int32_t* found, int64_t count, T* iou);
  // IoU of box i of `one` with box i of `two`, for i in [first, last), into iou[i - first].
  void (*paired)(const BoxColumns<T>& one, const BoxColumns<T>& two, int64_t first, int64_t last,
                 T* iou);
};

// The kernels for this processor.
template <typename T>
const PairKernels<T>& pair_kernels();

// What each instruction set's file provides.
namespace isa_default {
template <typename T>
PairKernels<T> kernels();
}
namespace isa_avx2 {
template <typename T>
PairKernels<T> kernels();
}
namespace isa_avx512 {
template <typename T>
PairKernels<T> kernels();
}

}  // namespace rsd2
