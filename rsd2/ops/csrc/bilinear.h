// Where the samples of multi-scale deformable attention and of rotated RoIAlign lie, and which
// pixels they read with which weights. For host and device; the kernels only add up.
//
// Corners of a sample are numbered 0 top left, 1 top right, 2 bottom left, 3 bottom right.
#pragma once

#include <cmath>
#include <cstdint>

#include "host_device.h"
#include "trigonometry.h"

namespace rsd2 {

// A bilinear sample between the pixel (left, top) and its right and lower neighbours.
template <typename T>
struct BilinearSample {
  bool touches;   // false: no pixel of the map takes part, and nothing else here means anything
  int left, top;  // may be -1, where the first column or row lies outside
  int right, bottom;
  T dx, dy;  // in [0, 1]: how far the sample lies from left towards right, from top towards bottom
};

template <typename T>
RSD2_HOST_DEVICE int corner_column(const BilinearSample<T>& sample, int corner) {
  return corner & 1 ? sample.right : sample.left;
}

template <typename T>
RSD2_HOST_DEVICE int corner_row(const BilinearSample<T>& sample, int corner) {
  return corner & 2 ? sample.bottom : sample.top;
}

template <typename T>
RSD2_HOST_DEVICE bool corner_inside(const BilinearSample<T>& sample, int corner, int height,
                                    int width) {
  // No branches: whether a corner is inside cannot be foreseen.
  const int row = corner_row(sample, corner), column = corner_column(sample, corner);
  return (row >= 0) & (row < height) & (column >= 0) & (column < width);
}

// Weight of a corner in the sample.
template <typename T>
RSD2_HOST_DEVICE T corner_weight(const BilinearSample<T>& sample, int corner) {
  const T across = corner & 1 ? sample.dx : T(1) - sample.dx;
  return across * (corner & 2 ? sample.dy : T(1) - sample.dy);
}

// Derivative of a corner's weight in x, in pixels.
template <typename T>
RSD2_HOST_DEVICE T corner_slope_x(const BilinearSample<T>& sample, int corner) {
  const T down = corner & 2 ? sample.dy : T(1) - sample.dy;
  return corner & 1 ? down : -down;
}

// Derivative of a corner's weight in y, in pixels.
template <typename T>
RSD2_HOST_DEVICE T corner_slope_y(const BilinearSample<T>& sample, int corner) {
  const T across = corner & 1 ? sample.dx : T(1) - sample.dx;
  return corner & 2 ? across : -across;
}

// The sample of deformable attention at a location in [0, 1] of a map (align_corners = false).
// Pixels outside the map count as zeros: ask corner_inside before reading. Nothing is touched from
// one pixel beyond the outer pixel centres on, nor at a location that is not finite.
template <typename T>
RSD2_HOST_DEVICE BilinearSample<T> attention_sample(T location_x, T location_y, int height,
                                                    int width) {
  using std::floor;
  const T x = location_x * T(width) - T(0.5);
  const T y = location_y * T(height) - T(0.5);
  BilinearSample<T> sample;
  // Comparisons with NaN are false; a number that passes fits an int.
  sample.touches = x > T(-1) && x < T(width) && y > T(-1) && y < T(height);
  const T left = floor(sample.touches ? x : T(0)), top = floor(sample.touches ? y : T(0));
  sample.left = static_cast<int>(left);
  sample.top = static_cast<int>(top);
  sample.right = sample.left + 1;
  sample.bottom = sample.top + 1;
  sample.dx = x - left;
  sample.dy = y - top;
  return sample;
}

// A rotated region in pixel centres of its feature map.
template <typename T>
struct Region {
  int64_t image;
  T cx, cy, width, height, cosine, sine;
  int64_t grid_w, grid_h;  // samples of a bin along each side; 0: the region pools to 0
};

constexpr int64_t kMaxRegionSamples = int64_t(1) << 28;

// What is wrong with a region; the kernels of the CPU raise it, those of a GPU pool to NaN.
enum class RegionFault { kNone, kNotFinite, kNegativeSide, kImageIndex, kTooManySamples };

// Reads a region (image index, cx, cy, w, h, angle in degrees), whose numbers lie `stride` apart.
// R: dtype of the region, at least float; T: that of the positions. The number of samples is taken
// in R, so that whole numbers round as they do in Detectron2.
template <typename T, typename R>
RSD2_HOST_DEVICE RegionFault read_region(const R* roi, int64_t stride, int64_t images,
                                         int pooled_height, int pooled_width, double spatial_scale,
                                         int64_t sampling_ratio, Region<T>& region) {
  using std::ceil;
  R sum = 0;
  for (int i = 0; i < 6; ++i) sum += roi[i * stride] * R(0);  // NaN if any number is not finite
  if (!(sum == R(0))) return RegionFault::kNotFinite;
  const R image = roi[0], w = roi[3 * stride], h = roi[4 * stride];
  if (w < R(0) || h < R(0)) return RegionFault::kNegativeSide;
  if (!(image >= R(0) && image < R(images))) return RegionFault::kImageIndex;
  region.image = static_cast<int64_t>(image);
  const T scale = static_cast<T>(spatial_scale);
  region.cx = T(roi[stride]) * scale - T(0.5);
  region.cy = T(roi[2 * stride]) * scale - T(0.5);
  region.width = T(w) * scale;
  region.height = T(h) * scale;
  sincos_degrees(T(roi[5 * stride]), region.sine, region.cosine);
  region.grid_w = region.grid_h = sampling_ratio;
  const double bins = double(pooled_height) * double(pooled_width);
  if (sampling_ratio <= 0) {
    const R grid_w = ceil(w * R(spatial_scale) / R(pooled_width));
    const R grid_h = ceil(h * R(spatial_scale) / R(pooled_height));
    if (!(double(grid_w) * double(grid_h) * bins <= double(kMaxRegionSamples)))
      return RegionFault::kTooManySamples;
    // A side of 0 leaves nothing to sample, however long the other one is.
    const bool empty = grid_w == R(0) || grid_h == R(0);
    region.grid_w = empty ? 0 : static_cast<int64_t>(grid_w);
    region.grid_h = empty ? 0 : static_cast<int64_t>(grid_h);
  } else if (double(sampling_ratio) * double(sampling_ratio) * bins > double(kMaxRegionSamples)) {
    return RegionFault::kTooManySamples;
  }
  return RegionFault::kNone;
}

// The sample (i, j) of the bin (row, column). It reads nothing if it lies more than one pixel
// outside the pixel centres; nearer ones are moved onto them, so that every corner is inside the
// map.
template <typename T>
RSD2_HOST_DEVICE BilinearSample<T> region_sample(const Region<T>& region, int pooled_height,
                                                 int pooled_width, int row, int column, int64_t i,
                                                 int64_t j, int map_height, int map_width) {
  using std::floor;
  const T step_h = T(row * region.grid_h + i) + T(0.5);
  const T step_w = T(column * region.grid_w + j) + T(0.5);
  const T down = region.height * (step_h / T(pooled_height * region.grid_h) - T(0.5));
  const T along = region.width * (step_w / T(pooled_width * region.grid_w) - T(0.5));
  T x = region.cx + region.cosine * along + region.sine * down;
  T y = region.cy - region.sine * along + region.cosine * down;
  BilinearSample<T> sample;
  sample.touches = x >= T(-1) && x <= T(map_width) && y >= T(-1) && y <= T(map_height);
  const T last_x = T(map_width - 1), last_y = T(map_height - 1);
  x = sample.touches && x > T(0) ? (x < last_x ? x : last_x) : T(0);
  y = sample.touches && y > T(0) ? (y < last_y ? y : last_y) : T(0);
  const T left = floor(x), top = floor(y);
  sample.left = static_cast<int>(left);
  sample.top = static_cast<int>(top);
  sample.right = sample.left + 1 < map_width ? sample.left + 1 : sample.left;
  sample.bottom = sample.top + 1 < map_height ? sample.top + 1 : sample.top;
  sample.dx = x - left;
  sample.dy = y - top;
  return sample;
}

}  // namespace rsd2
