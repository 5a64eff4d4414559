// Weighted sums of rows of channels that lie anywhere in a table: what attention and RoIAlign do
// for most of their time, forward and backward.
//
// A group of 1 to 32 neighbouring threads (a power of two) makes one sum. Its lanes first list the
// rows of one sample each, then each lane adds up W channels of all of them, W numbers at a time.
#pragma once

#include <cstdint>
#include <type_traits>

#include "../host_device.h"

namespace rsd2 {
namespace gpu {

constexpr int kThreads = 256, kWarp = 32, kCorners = 4;
constexpr int64_t kNowhere = INT64_MAX;  // sorts behind every row

// Sums of half-precision numbers are taken in float.
template <typename T>
struct Accumulated {
  using Type = float;
};
template <>
struct Accumulated<double> {
  using Type = double;
};

// A row of a table and its weight.
template <typename A>
struct Entry {
  int64_t row;
  A weight;
};

template <typename T, int W>
struct alignas(sizeof(T) * W) Pack {
  T values[W];
};

// W numbers in one access; the address is a multiple of their size.
template <int W, typename T, typename A>
RSD2_HOST_DEVICE void load(const T* from, A (&to)[W]) {
  const Pack<T, W> pack = *reinterpret_cast<const Pack<T, W>*>(from);
  for (int k = 0; k < W; ++k) to[k] = static_cast<A>(pack.values[k]);
}

template <int W, typename T, typename A>
RSD2_HOST_DEVICE void store(T* to, const A (&from)[W]) {
  Pack<T, W> pack;
  for (int k = 0; k < W; ++k) pack.values[k] = static_cast<T>(from[k]);
  *reinterpret_cast<Pack<T, W>*>(to) = pack;
}

// sum += weight * W channels of each row; `table` begins at the first of them, rows are `stride`
// apart.
template <int W, typename T, typename A>
RSD2_HOST_DEVICE void add_rows(const Entry<A>* entries, int count, const T* table, int64_t stride,
                               A (&sum)[W]) {
  for (int e = 0; e < count; ++e) {
    const Entry<A> entry = entries[e];
    if (entry.row == kNowhere) continue;
    A row[W];
    load<W>(table + entry.row * stride, row);
    for (int k = 0; k < W; ++k) sum[k] += entry.weight * row[k];
  }
}

// Four neighbours, aligned to 16 bytes: one access from Hopper on.
__device__ inline void add_four(float* to, float a, float b, float c, float d) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
  atomicAdd(reinterpret_cast<float4*>(to), make_float4(a, b, c, d));
#else
  atomicAdd(to, a);
  atomicAdd(to + 1, b);
  atomicAdd(to + 2, c);
  atomicAdd(to + 3, d);
#endif
}

template <int W>
__device__ void add_atomically(double* to, const double (&values)[W]) {
  for (int k = 0; k < W; ++k) atomicAdd(to + k, values[k]);
}

template <int W>
__device__ void add_atomically(float* to, const float (&values)[W]) {
  constexpr int kWhole = W / 4 * 4;
  for (int k = 0; k < kWhole; k += 4) {
    add_four(to + k, values[k], values[k + 1], values[k + 2], values[k + 3]);
  }
  for (int k = kWhole; k < W; ++k) atomicAdd(to + k, values[k]);
}

// Sum of the lanes of a group, in each of them. The whole warp calls it.
template <typename A>
__device__ A sum_of_group(A value, int group) {
  for (int offset = group / 2; offset > 0; offset /= 2) {
    value += __shfl_xor_sync(0xffffffffu, value, offset, group);
  }
  return value;
}

// The deterministic way to scatter: entries sorted by row, each row's summed in the order in which
// they were listed, by one thread for each channel. Entry e belongs to sample e / kCorners.
template <typename A>
struct SortedEntries {
  const int64_t* rows;     // sorted, kNowhere at the end
  const int64_t* order;    // place of each in the list
  const A* weights;        // of the list
  const int64_t* sources;  // row of `from` for each sample
  int64_t count, channels;
  A* table;
};

template <typename A, typename T>
RSD2_HOST_DEVICE void add_run(const SortedEntries<A>& sorted, const T* from, int64_t first,
                              int64_t channel) {
  const int64_t row = sorted.rows[first];
  if (row == kNowhere || (first > 0 && sorted.rows[first - 1] == row)) return;
  A sum = 0;
  for (int64_t e = first; e < sorted.count && sorted.rows[e] == row; ++e) {
    const int64_t place = sorted.order[e];
    const T* source = from + sorted.sources[place / kCorners] * sorted.channels;
    sum += sorted.weights[place] * static_cast<A>(source[channel]);
  }
  sorted.table[row * sorted.channels + channel] += sum;
}

template <typename A, typename T>
__global__ void add_runs(SortedEntries<A> sorted, const T* from) {
  const int64_t tasks = sorted.count * sorted.channels;
  for (int64_t i = int64_t(blockIdx.x) * blockDim.x + threadIdx.x; i < tasks;
       i += int64_t(gridDim.x) * blockDim.x) {
    add_run(sorted, from, i / sorted.channels, i % sorted.channels);
  }
}

}  // namespace gpu
}  // namespace rsd2
