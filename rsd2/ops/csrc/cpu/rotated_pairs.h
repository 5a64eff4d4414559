// Kernels over many rotated boxes at once: which circles meet, and the IoU of those pairs. Compiled
// once for each instruction set (isa.h) from rotated_pairs_kernels.h; nothing of torch in here.
#pragma once

#include <cstdint>

#if defined(__SSE2__)
#include <emmintrin.h>
#endif

#include "../rotated_geometry.h"
#include "isa.h"

namespace rsd2 {

// Circumscribed circles as columns. An endless one is near to all, one of NaN to none.
template <typename T>
struct Circles {
  const T *cx, *cy, *radius;
};

template <typename T>
struct PairKernels {
  // Circles of [first, last) of `two` that circle `row` of `one` may meet, as offsets from `first`
  // in increasing order; returns their number. `found` has room for all.
  int64_t (*near)(const Circles<T>& one, int64_t row, const Circles<T>& two, int64_t first,
                  int64_t last, int32_t* found);
  // IoU of a box with the `count` found ones of others. Rounding depends on which of two boxes is
  // the first: `box` in ious, each of the others in ious_of_others.
  void (*ious)(const RotatedBox& box, const RotatedBox* others, const int32_t* found, int64_t count,
               double* iou);
  void (*ious_of_others)(const RotatedBox& box, const RotatedBox* others, const int32_t* found,
                         int64_t count, double* iou);
  // IoU of box i of `one` with box i of `two`, for each of `count`.
  void (*paired)(const RotatedBox* one, const RotatedBox* two, int64_t count, double* iou);
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
