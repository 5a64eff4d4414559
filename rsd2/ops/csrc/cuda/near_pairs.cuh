// Rotated boxes on a GPU, and the pairs of them that may overlap: what the kernels for IoU and NMS
// have in common. Kernels live in headers without anything of torch or of a launch, so that
// tests/ops/cuda/cuda_on_host.h runs them, barriers and all, where there is no GPU.
#pragma once

#include <cmath>
#include <cstdint>

#include "../rotated_geometry.h"

namespace rsd2 {
namespace gpu {

using Word = unsigned long long;  // what CUDA's 64-bit atomics take

// Boxes described in full, and their circles as columns in the precision of the tensor.
template <typename T>
struct BoxSet {
  const RotatedBox* boxes;
  const T *cx, *cy, *radius;
  int64_t size;
};

// Describes box `from` of a contiguous (N, 5) array as number `to` of `size`. A box too large or
// too small for float gets an endless circle: it is never culled in float, only in double.
template <typename T>
RSD2_HOST_DEVICE void describe_into(const T* boxes, int64_t from, int64_t to, int64_t size,
                                    RotatedBox* described, T* circles) {
  const T* box = boxes + 5 * from;
  const RotatedBox full = describe(box[0], box[1], box[2], box[3], box[4]);
  const bool in_float = std::is_same<T, float>::value;
  described[to] = full;
  circles[to] = static_cast<T>(full.cx);
  circles[size + to] = static_cast<T>(full.cy);
  circles[2 * size + to] = in_float && !full.fits_float ? T(INFINITY) : static_cast<T>(full.radius);
}

// `order`: take box order[i] as the i-th; null: as they are. circles: (3, size).
template <typename T>
__global__ void describe_boxes(const T* boxes, const int64_t* order, int64_t size,
                               RotatedBox* described, T* circles) {
  for (int64_t i = int64_t(blockIdx.x) * blockDim.x + threadIdx.x; i < size;
       i += int64_t(gridDim.x) * blockDim.x) {
    describe_into(boxes, order == nullptr ? i : order[i], i, size, described, circles);
  }
}

// A tile of pairs is the work of a block of kTileColumns threads. Circles are tested first, one
// column for each thread; the few pairs that may overlap are listed and shared out anew, because a
// thread that computes an IoU holds up the others of its warp.
constexpr int kTileRows = 32, kTileColumns = 256;

template <typename T>
struct Circle {
  T cx, cy, radius;
};

template <typename T>
RSD2_HOST_DEVICE Circle<T> circle_of(const BoxSet<T>& set, int64_t i) {
  return {set.cx[i], set.cy[i], set.radius[i]};
}

// What the threads of a block share.
template <typename T>
struct NearPairs {
  Circle<T> rows[kTileRows];
  uint16_t pairs[kTileRows * kTileColumns];  // row * kTileColumns + column, in any order
  int count;
};

// Visitor: row(r) is the box of `one` in row r of the tile; wanted(row, column); apart(row, column)
// for pairs that are not wanted or do not meet; near(row, column) for the others, from any thread.
// All threads of the block call this; what row() and wanted() read is written and seen by all
// before.
template <typename T, typename Visitor>
__device__ void visit_tile(const BoxSet<T>& one, const BoxSet<T>& two, int rows,
                           int64_t first_column, NearPairs<T>& list, const Visitor& visitor) {
  const int thread = static_cast<int>(threadIdx.x);
  const int64_t column = first_column + thread;
  if (thread == 0) list.count = 0;
  if (thread < rows) list.rows[thread] = circle_of(one, visitor.row(thread));
  __syncthreads();
  if (column < two.size) {
    const Circle<T> own = circle_of(two, column);
    for (int r = 0; r < rows; ++r) {
      const int64_t row = visitor.row(r);
      const Circle<T> other = list.rows[r];
      if (visitor.wanted(row, column) &&
          circles_meet<T>(own.cx - other.cx, own.cy - other.cy, other.radius, own.radius)) {
        list.pairs[atomicAdd(&list.count, 1)] = static_cast<uint16_t>(r * kTileColumns + thread);
      } else {
        visitor.apart(row, column);
      }
    }
  }
  __syncthreads();
  for (int k = thread; k < list.count; k += kTileColumns) {
    const int pair = list.pairs[k];
    visitor.near(visitor.row(pair / kTileColumns), first_column + pair % kTileColumns);
  }
  __syncthreads();
}

}  // namespace gpu
}  // namespace rsd2
