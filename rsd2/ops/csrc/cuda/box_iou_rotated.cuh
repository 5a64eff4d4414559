// Kernels of the rotated IoU. Each tile of pairs goes to one of three visitors: a matrix is filled,
// pairs above a threshold are listed, or maxima are kept; the last two never see the matrix.
#pragma once

#include "near_pairs.cuh"

namespace rsd2 {
namespace gpu {

// What all visitors of whole sets share. The first row of a tile is set by visit_all_pairs.
template <typename T>
struct AllPairs {
  BoxSet<T> one, two;
  int64_t first_row;

  // In double; what is written is rounded to T.
  RSD2_HOST_DEVICE double iou(int64_t row, int64_t column) const {
    return iou_of<double>(one.boxes[row], two.boxes[column]);
  }
  RSD2_HOST_DEVICE static bool is_over(double iou, double threshold) {
    return iou > greater(threshold, kNoOverlap);
  }
  RSD2_HOST_DEVICE int64_t row(int r) const { return first_row + r; }
  RSD2_HOST_DEVICE bool wanted(int64_t, int64_t) const { return true; }
  RSD2_HOST_DEVICE void apart(int64_t, int64_t) const {}
};

template <typename T>
struct FillMatrix : AllPairs<T> {
  T* out;
  int64_t row_stride, column_stride;

  RSD2_HOST_DEVICE void write(int64_t row, int64_t column, T iou) const {
    out[row * row_stride + column * column_stride] = iou;
  }
  RSD2_HOST_DEVICE void apart(int64_t row, int64_t column) const { write(row, column, T(0)); }
  RSD2_HOST_DEVICE void near(int64_t row, int64_t column) const {
    write(row, column, static_cast<T>(this->iou(row, column)));
  }
};

// Lists pairs in any order; `count` goes on beyond `capacity`, where nothing more is written.
template <typename T>
struct ListPairs : AllPairs<T> {
  double threshold;
  int64_t capacity;
  Word* count;
  int64_t* slots;  // row * columns + column
  T* ious;

  __device__ void near(int64_t row, int64_t column) const {
    const double iou = this->iou(row, column);
    if (!this->is_over(iou, threshold)) return;
    const int64_t place = static_cast<int64_t>(atomicAdd(count, Word(1)));
    if (place >= capacity) return;
    slots[place] = row * this->two.size + column;
    ious[place] = static_cast<T>(iou);
  }
};

// Numbers >= 0 are ordered as their bits are.
__device__ inline void keep_greater(float* best, float value) {
  if (value > *best) atomicMax(reinterpret_cast<int*>(best), *reinterpret_cast<int*>(&value));
}
__device__ inline void keep_greater(double* best, double value) {
  if (value > *best) atomicMax(reinterpret_cast<Word*>(best), *reinterpret_cast<Word*>(&value));
}

// First pass: the greatest IoU of each row and column. Zeros at first.
template <typename T>
struct KeepMaxima : AllPairs<T> {
  T *row_max, *column_max;

  __device__ void near(int64_t row, int64_t column) const {
    const double iou = this->iou(row, column);
    if (!this->is_over(iou, 0.0)) return;
    keep_greater(row_max + row, static_cast<T>(iou));
    keep_greater(column_max + column, static_cast<T>(iou));
  }
};

// Second pass, with the maxima final: the first index that has them. -1 at first, which is greater
// than any index when read without sign.
template <typename T>
struct KeepFirstIndices : AllPairs<T> {
  const T *row_max, *column_max;
  int64_t *row_argmax, *column_argmax;

  __device__ static void keep_first(int64_t* first, int64_t index) {
    atomicMin(reinterpret_cast<Word*>(first), static_cast<Word>(index));
  }
  __device__ void near(int64_t row, int64_t column) const {
    const double iou = this->iou(row, column);
    if (!this->is_over(iou, 0.0)) return;
    if (static_cast<T>(iou) == row_max[row]) keep_first(row_argmax + row, column);
    if (static_cast<T>(iou) == column_max[column]) keep_first(column_argmax + column, row);
  }
};

RSD2_HOST_DEVICE int64_t tiles_of(int64_t rows, int64_t columns) {
  return (rows + kTileRows - 1) / kTileRows * ((columns + kTileColumns - 1) / kTileColumns);
}

// Blocks of kTileColumns threads, in any number.
template <typename T, typename Visitor>
__global__ void __launch_bounds__(kTileColumns, 3) visit_all_pairs(Visitor visitor) {
  __shared__ NearPairs<T> list;
  const BoxSet<T> one = visitor.one, two = visitor.two;
  const int64_t across = (two.size + kTileColumns - 1) / kTileColumns;
  const int64_t tiles = tiles_of(one.size, two.size);
  for (int64_t tile = blockIdx.x; tile < tiles; tile += gridDim.x) {
    visitor.first_row = tile / across * kTileRows;
    const int64_t left = one.size - visitor.first_row;
    const int rows = left < kTileRows ? static_cast<int>(left) : kTileRows;
    visit_tile<T>(one, two, rows, tile % across * kTileColumns, list, visitor);
  }
}

template <typename T>
RSD2_HOST_DEVICE T paired_iou(const T* boxes1, const T* boxes2, int64_t i) {
  const T *a = boxes1 + 5 * i, *b = boxes2 + 5 * i;
  return iou_of<T>(describe(a[0], a[1], a[2], a[3], a[4]), describe(b[0], b[1], b[2], b[3], b[4]));
}

template <typename T>
__global__ void pair_boxes(const T* boxes1, const T* boxes2, int64_t size, T* iou) {
  for (int64_t i = int64_t(blockIdx.x) * blockDim.x + threadIdx.x; i < size;
       i += int64_t(gridDim.x) * blockDim.x) {
    iou[i] = paired_iou(boxes1, boxes2, i);
  }
}

}  // namespace gpu
}  // namespace rsd2
