// Rotated boxes of a tensor, described once per box and laid out as columns.
#pragma once

#include <ATen/Parallel.h>
#include <ATen/core/Tensor.h>

#include <vector>

#include "../rotated_geometry.h"
#include "rotated_pairs.h"

namespace rsd2 {

// Pairs and boxes below which threads cost more than they save.
constexpr int64_t kSerialPairs = 20000, kSerialBoxes = 2000;

// One box of a contiguous (N, 5) array.
template <typename In>
RotatedBox describe_row(const In* boxes, int64_t row) {
  const In* box = boxes + 5 * row;
  return describe(box[0], box[1], box[2], box[3], box[4]);
}

template <typename T>
class DescribedBoxes {
 public:
  // `order`: take box order[i] as the i-th; null: as they are.
  template <typename In>
  DescribedBoxes(const In* boxes, int64_t size, const int64_t* order = nullptr)
      : size_(size), narrow_(6 * size), wide_(2 * size) {
    at::parallel_for(0, size, kSerialBoxes, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) {
        const RotatedBox box = describe_row(boxes, order == nullptr ? i : order[i]);
        set(i, box);
      }
    });
  }

  int64_t size() const { return size_; }

  BoxColumns<T> columns() const {
    const T* start = narrow_.data();
    return {start,
            start + size_,
            start + 2 * size_,
            start + 3 * size_,
            start + 4 * size_,
            start + 5 * size_,
            wide_.data(),
            wide_.data() + size_};
  }

 private:
  void set(int64_t i, const RotatedBox& box) {
    const double values[6] = {box.cx, box.cy, box.half_w, box.half_h, box.rest, box.radius};
    for (int64_t k = 0; k < 6; ++k) narrow_[k * size_ + i] = static_cast<T>(values[k]);
    wide_[i] = box.sine;
    wide_[size_ + i] = box.cosine;
  }

  int64_t size_;
  std::vector<T> narrow_;
  std::vector<double> wide_;
};

// Tell whether the pair formula may run in float for all these boxes.
template <typename In>
bool fit_float(const In* boxes, int64_t size) {
  if (!std::is_same<In, float>::value) return false;
  for (int64_t i = 0; i < 5 * size; i += 5) {
    const double w = boxes[i + 2], h = boxes[i + 3];
    const bool is_far = std::fabs(boxes[i]) >= kFloatLargest ||
                        std::fabs(boxes[i + 1]) >= kFloatLargest || w >= kFloatLargest ||
                        h >= kFloatLargest;
    // Sides that are not positive make a box invalid, in either precision.
    const bool is_thin = (w > 0 && w <= kFloatSmallest) || (h > 0 && h <= kFloatSmallest);
    if (is_far || is_thin) return false;
  }
  return true;
}

}  // namespace rsd2
