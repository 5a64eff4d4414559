// Rotated boxes of a tensor, described once per box and laid out as columns.
#pragma once

#include <algorithm>
#include <limits>
#include <type_traits>
#include <vector>

#include "rotated_pairs.h"
#include "tensors.h"

namespace rsd2 {

// Pairs and boxes below which threads cost more than they save.
constexpr int64_t kSerialPairs = 20000, kSerialBoxes = 2000;

// One box of a contiguous (N, 5) array.
template <typename T>
RotatedBox describe_row(const T* boxes, int64_t row) {
  const T* box = boxes + 5 * row;
  return describe(box[0], box[1], box[2], box[3], box[4]);
}

// N boxes, and their circles in the precision T of the tensor.
template <typename T>
class DescribedBoxes {
 public:
  // Room for `size` boxes, which set() fills in.
  explicit DescribedBoxes(int64_t size) : boxes_(size), circles_(3 * size) {}

  // Boxes of a contiguous (N, 5) array.
  DescribedBoxes(const T* boxes, int64_t size) : DescribedBoxes(size) {
    torch::stable::parallel_for(0, size, kSerialBoxes, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) set(i, describe_row(boxes, i));
    });
  }

  // A box too large or too small for float gets an endless circle: the pair formula looks again.
  void set(int64_t i, const RotatedBox& box) {
    const bool is_comparable = std::is_same_v<T, double> || box.fits_float || !(box.radius > 0);
    boxes_[i] = box;
    circles_[i] = static_cast<T>(box.cx);
    circles_[size() + i] = static_cast<T>(box.cy);
    circles_[2 * size() + i] =
        is_comparable ? static_cast<T>(box.radius) : std::numeric_limits<T>::infinity();
  }

  int64_t size() const { return boxes_.size(); }
  const RotatedBox* boxes() const { return boxes_.data(); }
  Circles<T> circles() const {
    return {circles_.data(), circles_.data() + size(), circles_.data() + 2 * size()};
  }

 private:
  std::vector<RotatedBox> boxes_;
  std::vector<T> circles_;
};

// Refuse what the schema does not tell; Python says it better, but not every caller comes that way.
inline void check_boxes(const Tensor& boxes, const Tensor& like) {
  RSD2_CHECK_VALUE(boxes.dim() == 2 && boxes.size(1) == 5, "rotated boxes must be (N, 5), got ",
                   boxes.sizes());
  RSD2_CHECK_VALUE(boxes.scalar_type() == like.scalar_type(),
                   "rotated boxes must be of one dtype, ", "got ", boxes.scalar_type(), " and ",
                   like.scalar_type());
}

// Calls visit(row, first, found, count, iou) with the boxes of `two`, first + found[k], that are
// near box `row` of `one`, for rows of [begin, end): by tiles of `two`, which stay in the cache,
// and by row within a tile.
template <typename T, typename Visit>
void for_near_pairs(const DescribedBoxes<T>& one, int64_t begin, int64_t end,
                    const DescribedBoxes<T>& two, int64_t two_begin, int64_t two_end,
                    const Visit& visit) {
  constexpr int64_t kTile = 2048;
  const PairKernels<T>& kernels = pair_kernels<T>();
  const Circles<T> circles1 = one.circles(), circles2 = two.circles();
  std::vector<int32_t> found(kTile);
  std::vector<double> iou(kTile);
  for (int64_t first = two_begin; first < two_end; first += kTile) {
    const int64_t last = std::min(first + kTile, two_end);
    for (int64_t row = begin; row < end; ++row) {
      const int64_t count = kernels.near(circles1, row, circles2, first, last, found.data());
      if (count == 0) continue;
      kernels.ious(one.boxes()[row], two.boxes() + first, found.data(), count, iou.data());
      visit(row, first, found.data(), count, iou.data());
    }
  }
}

}  // namespace rsd2
