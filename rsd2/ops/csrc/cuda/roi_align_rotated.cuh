// Kernels of RoIAlign for rotated regions. Features and gradients are laid out with the channels of
// a pixel or a bin side by side; a warp (row_sums.cuh) works on one bin of one region.
#pragma once

#include "../bilinear.h"
#include "row_sums.cuh"

namespace rsd2 {
namespace gpu {

// Positions are computed in double, as in the reference.
using GpuRegion = Region<double>;

// A batch of regions; image -1 marks one that cannot be pooled.
struct Pooling {
  const GpuRegion* regions;
  int64_t size, channels;
  int pooled_height, pooled_width, height, width;

  RSD2_HOST_DEVICE int64_t bins() const { return int64_t(pooled_height) * pooled_width; }
  RSD2_HOST_DEVICE static int64_t samples_of(const GpuRegion& region) {
    return region.image < 0 ? 0 : region.grid_w * region.grid_h;
  }
};

template <typename R>
RSD2_HOST_DEVICE GpuRegion region_at(const R* rois, int64_t k, int64_t images,
                                     const Pooling& pooling, double spatial_scale,
                                     int64_t sampling_ratio) {
  GpuRegion region{};
  const RegionFault fault =
      read_region(rois + 6 * k, 1, images, pooling.pooled_height, pooling.pooled_width,
                  spatial_scale, sampling_ratio, region);
  if (fault != RegionFault::kNone) region.image = -1;
  if (pooling.height == 0 || pooling.width == 0) region.grid_w = 0;  // no pixel to sample
  return region;
}

// rois: contiguous (K, 6); samples: of all bins of each region.
template <typename R>
__global__ void describe_regions(const R* rois, int64_t images, Pooling pooling,
                                 double spatial_scale, int64_t sampling_ratio, GpuRegion* regions,
                                 int64_t* samples) {
  for (int64_t k = int64_t(blockIdx.x) * blockDim.x + threadIdx.x; k < pooling.size;
       k += int64_t(gridDim.x) * blockDim.x) {
    regions[k] = region_at(rois, k, images, pooling, spatial_scale, sampling_ratio);
    samples[k] = Pooling::samples_of(regions[k]) * pooling.bins();
  }
}

// The four pixels that a sample of a bin reads, as rows of the feature table.
template <typename A>
RSD2_HOST_DEVICE void list_region_sample(const Pooling& p, const GpuRegion& region, int64_t bin,
                                         int64_t sample_index, Entry<A>* entries) {
  const auto sample =
      region_sample(region, p.pooled_height, p.pooled_width, static_cast<int>(bin / p.pooled_width),
                    static_cast<int>(bin % p.pooled_width), sample_index / region.grid_w,
                    sample_index % region.grid_w, p.height, p.width);
  const double share = 1.0 / (double(region.grid_h) * double(region.grid_w));
  for (int corner = 0; corner < kCorners; ++corner) {
    const int64_t line = region.image * p.height + corner_row(sample, corner);
    entries[corner].row =
        sample.touches ? line * p.width + corner_column(sample, corner) : kNowhere;
    entries[corner].weight = static_cast<A>(share * corner_weight(sample, corner));
  }
}

// W numbers in registers.
template <typename A, int W>
struct Channels {
  A values[W];
};

template <typename V, int W>
struct PoolBins {
  using A = typename Accumulated<V>::Type;
  const V* features;  // (B, H, W, C)
  V* out;             // (K, bins, C)
  int64_t channels;

  RSD2_HOST_DEVICE Channels<A, W> begin(int64_t, int64_t, bool is_valid) const {
    Channels<A, W> sum{};
    for (int k = 0; k < W; ++k) sum.values[k] = is_valid ? A(0) : A(NAN);
    return sum;
  }
  RSD2_HOST_DEVICE void add(const Entry<A>* entries, int count, int64_t channel,
                            Channels<A, W>& sum) const {
    add_rows<W>(entries, count, features + channel, channels, sum.values);
  }
  RSD2_HOST_DEVICE void end(int64_t task, int64_t channel, const Channels<A, W>& sum) const {
    store<W>(out + task * channels + channel, sum.values);
  }
};

template <typename V, int W>
struct SpreadBins {
  using A = typename Accumulated<V>::Type;
  const V* grad;  // (K, bins, C)
  A* table;       // (B, H, W, C)
  int64_t channels;

  RSD2_HOST_DEVICE Channels<A, W> begin(int64_t task, int64_t channel, bool) const {
    Channels<A, W> from{};
    if (channel < channels) load<W>(grad + task * channels + channel, from.values);
    return from;
  }
  __device__ void add(const Entry<A>* entries, int count, int64_t channel,
                      const Channels<A, W>& from) const {
    for (int e = 0; e < count; ++e) {
      const Entry<A> entry = entries[e];
      if (entry.row == kNowhere) continue;
      A share[W];
      for (int k = 0; k < W; ++k) share[k] = entry.weight * from.values[k];
      add_atomically<W>(table + entry.row * channels + channel, share);
    }
  }
  RSD2_HOST_DEVICE void end(int64_t, int64_t, const Channels<A, W>&) const {}
};

// Warps take the bins of all regions in turn, W channels of each lane at a time: state =
// work.begin(bin, channel, whether it can be pooled), work.add(entries, count, channel, state) for
// what the samples list, work.end(bin, channel, state).
template <int W, typename Work>
__global__ void __launch_bounds__(kThreads, 2) visit_bins(Pooling p, Work work) {
  using A = typename Work::A;
  __shared__ Entry<A> listed[kThreads * kCorners];
  Entry<A>* entries = listed + threadIdx.x / kWarp * kWarp * kCorners;
  const int lane = threadIdx.x % kWarp;
  const int64_t warps = int64_t(gridDim.x) * (blockDim.x / kWarp), tasks = p.size * p.bins();
  for (int64_t task = (int64_t(blockIdx.x) * blockDim.x + threadIdx.x) / kWarp; task < tasks;
       task += warps) {
    const GpuRegion region = p.regions[task / p.bins()];
    const int64_t samples = Pooling::samples_of(region);
    for (int64_t start = 0; start < p.channels; start += kWarp * W) {
      const int64_t channel = start + lane * W;
      auto state = work.begin(task, channel, region.image >= 0);
      for (int64_t s = 0; s < samples; s += kWarp) {
        const int count = samples - s < kWarp ? static_cast<int>(samples - s) : kWarp;
        if (lane < count) {
          list_region_sample(p, region, task % p.bins(), s + lane, entries + lane * kCorners);
        }
        __syncwarp();
        if (channel < p.channels) work.add(entries, count * kCorners, channel, state);
        __syncwarp();
      }
      if (channel < p.channels) work.end(task, channel, state);
    }
  }
}

// The last k with ends[k - 1] <= number, where ends (K,) never decreases and its last one is
// greater than `number`.
RSD2_HOST_DEVICE int64_t region_of(const int64_t* ends, int64_t size, int64_t number) {
  int64_t low = 0, high = size - 1;
  while (low < high) {
    const int64_t middle = (low + high) / 2;
    if (ends[middle] > number) {
      high = middle;
    } else {
      low = middle + 1;
    }
  }
  return low;
}

// Sample `first + i` of all, for add_runs. ends: samples up to and with each region.
template <typename A>
RSD2_HOST_DEVICE void list_for_sorting(const Pooling& p, const int64_t* ends, int64_t first,
                                       int64_t i, int64_t* rows, A* weights, int64_t* sources) {
  const int64_t k = region_of(ends, p.size, first + i);
  const GpuRegion region = p.regions[k];
  const int64_t number = first + i - (k > 0 ? ends[k - 1] : 0),
                samples = Pooling::samples_of(region);
  Entry<A> entries[kCorners];
  list_region_sample(p, region, number / samples, number % samples, entries);
  for (int corner = 0; corner < kCorners; ++corner) {
    rows[kCorners * i + corner] = entries[corner].row;
    weights[kCorners * i + corner] = entries[corner].weight;
  }
  sources[i] = k * p.bins() + number / samples;
}

template <typename A>
__global__ void list_regions(Pooling pooling, const int64_t* ends, int64_t first, int64_t count,
                             int64_t* rows, A* weights, int64_t* sources) {
  for (int64_t i = int64_t(blockIdx.x) * blockDim.x + threadIdx.x; i < count;
       i += int64_t(gridDim.x) * blockDim.x) {
    list_for_sorting(pooling, ends, first, i, rows, weights, sources);
  }
}

}  // namespace gpu
}  // namespace rsd2
