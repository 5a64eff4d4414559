// Kernels of multi-scale deformable attention. A cell is one head of one query: a group of threads
// (row_sums.cuh) works on it, lanes along its channels. Nothing of the size of the samples is
// stored.
#pragma once

#include "../bilinear.h"
#include "row_sums.cuh"

namespace rsd2 {
namespace gpu {

constexpr int kMaxLevels = 32;

struct Level {
  int height, width;
  int64_t start;
};

// Contiguous but for the values, whose channels alone must be neighbours. V: dtype of the values,
// P: of locations and weights.
template <typename V, typename P>
struct Attention {
  const V* value;
  int64_t image_stride, position_stride, head_stride;
  const P *locations, *weights;
  int64_t positions, heads, channels, queries, cells;
  int points, samples;  // of a level, of a cell
  Level levels[kMaxLevels];

  RSD2_HOST_DEVICE int64_t image_of(int64_t cell) const { return cell / (queries * heads); }
  RSD2_HOST_DEVICE const V* table_of(int64_t cell) const {
    return value + image_of(cell) * image_stride + cell % heads * head_stride;
  }
};

template <typename A, typename V, typename P>
RSD2_HOST_DEVICE BilinearSample<A> sample_at(const Attention<V, P>& a, const Level& level,
                                             int64_t index) {
  const P* location = a.locations + 2 * index;
  return attention_sample(static_cast<A>(location[0]), static_cast<A>(location[1]), level.height,
                          level.width);
}

// The four pixels that a sample of a cell reads, as rows of its head's table.
template <typename A, typename V, typename P>
RSD2_HOST_DEVICE void list_sample(const Attention<V, P>& a, int64_t cell, int sample_index,
                                  Entry<A>* entries) {
  const Level& level = a.levels[sample_index / a.points];
  const int64_t index = cell * a.samples + sample_index;
  const auto sample = sample_at<A>(a, level, index);
  const A weight = static_cast<A>(a.weights[index]);
  for (int corner = 0; corner < kCorners; ++corner) {
    const bool inside = sample.touches && corner_inside(sample, corner, level.height, level.width);
    const int64_t pixel = int64_t(corner_row(sample, corner)) * level.width;
    entries[corner].row = inside ? level.start + pixel + corner_column(sample, corner) : kNowhere;
    entries[corner].weight = weight * corner_weight(sample, corner);
  }
}

template <typename V, typename P, int W>
__global__ void __launch_bounds__(kThreads)
    attend(const __grid_constant__ Attention<V, P> a, int group, V* out) {
  using A = typename Accumulated<V>::Type;
  __shared__ Entry<A> listed[kThreads * kCorners];
  const int lane = threadIdx.x % group, member = threadIdx.x / group;
  Entry<A>* entries = listed + member * group * kCorners;
  const int at_a_time = kThreads / group;
  for (int64_t first = int64_t(blockIdx.x) * at_a_time; first < a.cells;
       first += int64_t(gridDim.x) * at_a_time) {
    const int64_t cell = first + member;
    const bool is_cell = cell < a.cells;
    const V* table = a.table_of(is_cell ? cell : 0);
    for (int64_t start = 0; start < a.channels; start += int64_t(group) * W) {
      const int64_t channel = start + int64_t(lane) * W;
      A sum[W] = {};
      for (int s = 0; s < a.samples; s += group) {
        const int count = a.samples - s < group ? a.samples - s : group;
        if (is_cell && lane < count) list_sample(a, cell, s + lane, entries + lane * kCorners);
        __syncwarp();
        if (is_cell && channel < a.channels) {
          add_rows<W>(entries, count * kCorners, table + channel, a.position_stride, sum);
        }
        __syncwarp();
      }
      if (is_cell && channel < a.channels) store<W>(out + cell * a.channels + channel, sum);
    }
  }
}

// Gradients of one call: `out` (cells, C) in the dtype of the values; `value` (B, S, H, C), zeros
// at first, null to leave it out.
template <typename V, typename P>
struct AttentionGradients {
  const V* out;
  typename Accumulated<V>::Type* value;
  P *locations, *weights;
};

// From the products of the gradient with the rows of a sample's corners to those of its location
// and weight.
template <typename A, typename V, typename P>
RSD2_HOST_DEVICE void fold_products(const Attention<V, P>& a, int64_t cell, int sample_index,
                                    const A (&products)[kCorners],
                                    const AttentionGradients<V, P>& grad) {
  const Level& level = a.levels[sample_index / a.points];
  const int64_t index = cell * a.samples + sample_index;
  const auto sample = sample_at<A>(a, level, index);
  A in_weight = 0, in_x = 0, in_y = 0;
  if (sample.touches) {
    for (int corner = 0; corner < kCorners; ++corner) {
      in_weight += corner_weight(sample, corner) * products[corner];
      in_x += corner_slope_x(sample, corner) * products[corner];
      in_y += corner_slope_y(sample, corner) * products[corner];
    }
  }
  const A weight = static_cast<A>(a.weights[index]);
  grad.weights[index] = static_cast<P>(in_weight);
  grad.locations[2 * index] = static_cast<P>(in_x * weight * A(level.width));
  grad.locations[2 * index + 1] = static_cast<P>(in_y * weight * A(level.height));
}

// Product of W channels of the gradient with each corner's row, 0 for a corner outside; the
// gradient also goes to these rows of the table, unless that is null.
template <int W, typename V, typename A>
__device__ void visit_corners(const Entry<A>* entries, const V* table, int64_t stride,
                              const A (&grad)[W], A* grad_table, int64_t grad_stride,
                              A (&products)[kCorners]) {
  for (int corner = 0; corner < kCorners; ++corner) {
    const Entry<A> entry = entries[corner];
    products[corner] = 0;
    if (entry.row == kNowhere) continue;
    A row[W], share[W];
    load<W>(table + entry.row * stride, row);
    for (int k = 0; k < W; ++k) {
      products[corner] += grad[k] * row[k];
      share[k] = entry.weight * grad[k];
    }
    if (grad_table != nullptr) add_atomically<W>(grad_table + entry.row * grad_stride, share);
  }
}

// Of the samples listed at a time, each lane keeps the products of its own.
template <typename V, typename P, int W>
__global__ void __launch_bounds__(kThreads)
    attend_backward(const __grid_constant__ Attention<V, P> a, int group,
                    AttentionGradients<V, P> grad) {
  using A = typename Accumulated<V>::Type;
  __shared__ Entry<A> listed[kThreads * kCorners];
  const int lane = threadIdx.x % group, member = threadIdx.x / group;
  Entry<A>* entries = listed + member * group * kCorners;
  const int at_a_time = kThreads / group;
  const int64_t grad_stride = a.heads * a.channels;
  for (int64_t first = int64_t(blockIdx.x) * at_a_time; first < a.cells;
       first += int64_t(gridDim.x) * at_a_time) {
    const bool is_cell = first + member < a.cells;
    const int64_t cell = is_cell ? first + member : 0;
    const V* table = a.table_of(cell);
    A* grad_table = grad.value == nullptr
                        ? nullptr
                        : grad.value + a.image_of(cell) * a.positions * grad_stride +
                              cell % a.heads * a.channels;
    for (int s = 0; s < a.samples; s += group) {
      const int count = a.samples - s < group ? a.samples - s : group;
      if (is_cell && lane < count) list_sample(a, cell, s + lane, entries + lane * kCorners);
      __syncwarp();
      A own[kCorners] = {};
      for (int64_t start = 0; start < a.channels; start += int64_t(group) * W) {
        const int64_t channel = start + int64_t(lane) * W;
        const bool is_channel = is_cell && channel < a.channels;
        A from[W] = {};
        if (is_channel) load<W>(grad.out + cell * a.channels + channel, from);
        for (int i = 0; i < count; ++i) {
          A products[kCorners] = {};
          if (is_channel) {
            visit_corners<W>(entries + i * kCorners, table + channel, a.position_stride, from,
                             grad_table == nullptr ? nullptr : grad_table + channel, grad_stride,
                             products);
          }
          for (int corner = 0; corner < kCorners; ++corner) {
            const A product = sum_of_group(products[corner], group);
            if (i == lane) own[corner] += product;
          }
        }
      }
      if (is_cell && lane < count) fold_products(a, cell, s + lane, own, grad);
      __syncwarp();
    }
  }
}

// The samples of `size` cells from `first_cell` on, for add_runs: rows of the gradient (B, S, H).
template <typename A, typename V, typename P>
RSD2_HOST_DEVICE void list_for_sorting(const Attention<V, P>& a, int64_t first_cell, int64_t i,
                                       int64_t* rows, A* weights, int64_t* sources) {
  const int64_t cell = first_cell + i / a.samples;
  Entry<A> entries[kCorners];
  list_sample(a, cell, static_cast<int>(i % a.samples), entries);
  for (int corner = 0; corner < kCorners; ++corner) {
    const Entry<A>& entry = entries[corner];
    int64_t row = kNowhere;
    if (entry.row != kNowhere) {
      row = (a.image_of(cell) * a.positions + entry.row) * a.heads + cell % a.heads;
    }
    rows[kCorners * i + corner] = row;
    weights[kCorners * i + corner] = entry.weight;
  }
  sources[i] = cell;
}

template <typename A, typename V, typename P>
__global__ void list_attention(const __grid_constant__ Attention<V, P> a, int64_t first_cell,
                               int64_t samples, int64_t* rows, A* weights, int64_t* sources) {
  for (int64_t i = int64_t(blockIdx.x) * blockDim.x + threadIdx.x; i < samples;
       i += int64_t(gridDim.x) * blockDim.x) {
    list_for_sorting(a, first_cell, i, rows, weights, sources);
  }
}

}  // namespace gpu
}  // namespace rsd2
