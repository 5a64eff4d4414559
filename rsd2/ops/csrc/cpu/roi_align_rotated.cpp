// RoIAlign of rotated regions on the CPU: forward and backward of rsd2::roi_align_rotated.
//
// The features are laid out with the channels of a pixel side by side, so that a sample is four
// rows of channels with four weights, and a bin a weighted sum of rows.
//
// Backward: a task is one image and a share of the channels, which alone writes them, so there are
// no races. A channel's sums run over the regions in their order, whatever the number of threads.
//
// Shapes: B images, C channels, K regions, T = pooled height * pooled width bins.
#include <torch/csrc/stable/library.h>

#include <algorithm>
#include <vector>

#include "../bilinear.h"
#include "channels.h"
#include "multiversion.h"
#include "tensors.h"

namespace rsd2 {
namespace {

struct Map {
  int height, width;
  int64_t channels;
  int pooled_height, pooled_width;

  int64_t bins() const { return int64_t(pooled_height) * pooled_width; }
  int64_t image_numbers() const { return int64_t(height) * width * channels; }
};

// Positions are computed in double, as in the reference.
using Position = double;

// The rows that some samples of a bin read. A bin of a huge region has more than fit a table.
template <typename T>
struct SampleRows {
  static constexpr int64_t kCapacity = 1024;
  int64_t offsets[kCapacity];
  T weights[kCapacity];
  int64_t count = 0;

  WeightedRows<T> view() const { return {offsets, weights, count}; }
};

// Lists the rows of a bin's samples and calls use(rows) whenever the list is full, and at the end.
template <typename T, typename Use>
RSD2_INLINE void for_samples(const Map& map, const Region<Position>& region, int row, int column,
                             SampleRows<T>& rows, const Use& use) {
  const Position share = Position(1) / (Position(region.grid_h) * Position(region.grid_w));
  rows.count = 0;
  for (int64_t i = 0; i < region.grid_h; ++i) {
    for (int64_t j = 0; j < region.grid_w; ++j) {
      const auto sample = region_sample(region, map.pooled_height, map.pooled_width, row, column, i,
                                        j, map.height, map.width);
      if (!sample.touches) continue;
      for (int corner = 0; corner < 4; ++corner) {
        const int64_t pixel = int64_t(corner_row(sample, corner)) * map.width;
        rows.offsets[rows.count] = (pixel + corner_column(sample, corner)) * map.channels;
        rows.weights[rows.count++] = T(share * corner_weight(sample, corner));
      }
      if (rows.count == SampleRows<T>::kCapacity) {
        use(rows.view());
        rows.count = 0;
      }
    }
  }
  use(rows.view());
}

// One region into (C, T); scratch (T, C).
template <int Native, typename T>
RSD2_INLINE void pool_region(const Map& map, const Region<Position>& region, const T* features,
                             T* scratch, T* out) {
  SampleRows<T> rows;
  const T* table = features + region.image * map.image_numbers();
  for (int64_t bin = 0; bin < map.bins(); ++bin) {
    T* sums = scratch + bin * map.channels;
    bool adds = false;
    const auto add = [&](WeightedRows<T> part) RSD2_INLINE_LAMBDA {
      gather_rows<Native>(table, part, map.channels, sums, adds);
      adds = true;
    };
    for_samples(map, region, int(bin / map.pooled_width), int(bin % map.pooled_width), rows, add);
  }
  for (int64_t channel = 0; channel < map.channels; ++channel)
    for (int64_t bin = 0; bin < map.bins(); ++bin)
      out[channel * map.bins() + bin] = scratch[bin * map.channels + channel];
}

// Channels [begin, end) of one region's gradient (C, T), added to the rows of its image.
template <int Native, typename T>
RSD2_INLINE void spread_region(const Map& map, const Region<Position>& region, const T* grad,
                               int64_t begin, int64_t end, T* scratch, T* table) {
  SampleRows<T> rows;
  table += begin;
  for (int64_t bin = 0; bin < map.bins(); ++bin) {
    for (int64_t channel = begin; channel < end; ++channel)
      scratch[channel - begin] = grad[channel * map.bins() + bin];
    const auto add = [&](WeightedRows<T> part) RSD2_INLINE_LAMBDA {
      scatter_rows<Native>(table, part, end - begin, scratch);
    };
    for_samples(map, region, int(bin / map.pooled_width), int(bin % map.pooled_width), rows, add);
  }
}

RSD2_VERSIONS(pool,
              (const Map& map, const Region<Position>& region, const T* features, T* scratch,
               T* out),
              (map, region, features, scratch, out),
              pool_region<kVectorBytes>(map, region, features, scratch, out);)

RSD2_VERSIONS(spread,
              (const Map& map, const Region<Position>& region, const T* grad, int64_t begin,
               int64_t end, T* scratch, T* table),
              (map, region, grad, begin, end, scratch, table),
              spread_region<kVectorBytes>(map, region, grad, begin, end, scratch, table);)

template <typename R>
std::vector<Region<Position>> read_regions_as(const Tensor& rois, int64_t images, const Map& map,
                                              double spatial_scale, int64_t sampling_ratio) {
  std::vector<Region<Position>> regions(rois.size(0));
  const R* numbers = rois.const_data_ptr<R>();
  for (int64_t k = 0; k < rois.size(0); ++k) {
    const R* roi = numbers + k * rois.stride(0);
    const auto fault = read_region(roi, rois.stride(1), images, map.pooled_height, map.pooled_width,
                                   spatial_scale, sampling_ratio, regions[k]);
    const auto number = [&](int i) { return double(roi[i * rois.stride(1)]); };
    RSD2_CHECK_VALUE(fault != RegionFault::kNotFinite, "rois have non-finite numbers, first in ",
                     "row ", k, "; drop these proposals first");
    RSD2_CHECK_VALUE(fault != RegionFault::kNegativeSide, "sides of rois must be >= 0, got ",
                     number(3), " x ", number(4), " in row ", k);
    RSD2_CHECK_VALUE(fault != RegionFault::kImageIndex, "image indices do not fit a batch of ",
                     images, ": row ", k, " of rois has ", number(0));
    RSD2_CHECK_VALUE(fault != RegionFault::kTooManySamples, "a region of ", number(3), " x ",
                     number(4), " needs more than 2^28 samples (row ", k, " of rois); clip it, ",
                     "or set sampling_ratio");
  }
  return regions;
}

std::vector<Region<Position>> read_regions(const Tensor& rois, int64_t images, const Map& map,
                                           double spatial_scale, int64_t sampling_ratio) {
  RSD2_CHECK_VALUE(rois.dim() == 2 && rois.size(1) == 6, "rois must be (K, 6), got ", rois.sizes());
  RSD2_CHECK_VALUE(rois.is_cpu(), "rois must be on the CPU, as the features are");
  if (rois.scalar_type() == ScalarType::Double)
    return read_regions_as<double>(rois, images, map, spatial_scale, sampling_ratio);
  return read_regions_as<float>(converted(rois, ScalarType::Float), images, map, spatial_scale,
                                sampling_ratio);
}

Map make_map(Sizes features, Sizes pooled) {
  constexpr int64_t kLimit = int64_t(1) << 30;  // pixels and bins are counted in int
  RSD2_CHECK_VALUE(features.size() == 4, "features must be (B, C, H, W), got ", features);
  RSD2_CHECK_VALUE(pooled.size() == 2 && pooled[0] > 0 && pooled[1] > 0 && pooled[0] < kLimit &&
                       pooled[1] < kLimit && features[2] < kLimit && features[3] < kLimit,
                   "output_size ", pooled, " or the map of features ", features,
                   " is out of range");
  return {int(features[2]), int(features[3]), features[1], int(pooled[0]), int(pooled[1])};
}

template <typename T>
void run_forward(const Map& map, const std::vector<Region<Position>>& regions,
                 const Tensor& features, Tensor& out) {
  const T* from = features.const_data_ptr<T>();
  T* to = out.mutable_data_ptr<T>();
  const int64_t numbers = map.bins() * map.channels;
  torch::stable::parallel_for(0, int64_t(regions.size()), 1, [&](int64_t begin, int64_t end) {
    std::vector<T> scratch(numbers);
    for (int64_t k = begin; k < end; ++k)
      pool<T>(map, regions[k], from, scratch.data(), to + k * numbers);
  });
}

template <typename T>
void run_backward(const Map& map, int64_t images, const std::vector<Region<Position>>& regions,
                  const Tensor& grad, Tensor& rows) {
  const T* from = grad.const_data_ptr<T>();
  T* to = rows.mutable_data_ptr<T>();
  // Every share lists the samples anew: no more of them than threads, nor too thin for vectors.
  const int64_t wanted = (torch::stable::get_num_threads() + images - 1) / images;
  const int64_t shares = std::min(wanted, (map.channels + 31) / 32);
  const int64_t width = (map.channels + shares - 1) / shares;
  torch::stable::parallel_for(0, images * shares, 1, [&](int64_t begin, int64_t end) {
    std::vector<T> scratch(width);
    for (int64_t task = begin; task < end; ++task) {
      const int64_t image = task / shares, first = task % shares * width;
      const int64_t last = std::min(first + width, map.channels);
      T* table = to + image * map.image_numbers();
      for (size_t k = 0; k < regions.size(); ++k) {
        if (regions[k].image != image || first >= last) continue;
        const T* region_grad = from + int64_t(k) * map.channels * map.bins();
        spread<T>(map, regions[k], region_grad, first, last, scratch.data(), table);
      }
    }
  });
}

// (B, C, H, W) -> (B, H, W, C) and back, as views; torch 2.13 has no permute for C++.
Tensor channels_last(const Tensor& maps) {
  return torch::stable::transpose(torch::stable::transpose(maps, 1, 2), 2, 3);
}

Tensor channels_second(const Tensor& rows) {
  return torch::stable::transpose(torch::stable::transpose(rows, 2, 3), 1, 2);
}

Tensor roi_align_rotated(const Tensor& features, const Tensor& rois, Sizes output_size,
                         double spatial_scale, int64_t sampling_ratio) {
  const Map map = make_map(features.sizes(), output_size);
  const ScalarType dtype = computed_in(features, "features");
  const auto regions = read_regions(rois, features.size(0), map, spatial_scale, sampling_ratio);
  Tensor out = empty({rois.size(0), map.channels, map.pooled_height, map.pooled_width}, dtype);
  if (features.numel() == 0) torch::stable::zero_(out);
  if (out.numel() == 0 || features.numel() == 0) return converted(out, features.scalar_type());
  const Tensor rows = dense(converted(channels_last(features), dtype));
  if (dtype == ScalarType::Double)
    run_forward<double>(map, regions, rows, out);
  else
    run_forward<float>(map, regions, rows, out);
  return converted(out, features.scalar_type());
}

Tensor roi_align_rotated_backward(const Tensor& grad, const Tensor& rois, Sizes features_shape,
                                  double spatial_scale, int64_t sampling_ratio) {
  RSD2_CHECK_VALUE(grad.dim() == 4, "grad must be (K, C, h, w), got ", grad.sizes());
  const Map map = make_map(features_shape, grad.sizes().slice(2));
  RSD2_CHECK_VALUE(grad.size(0) == rois.size(0) && grad.size(1) == map.channels, "grad ",
                   grad.sizes(), " does not fit rois ", rois.sizes(), " and features ",
                   features_shape);
  const ScalarType dtype = computed_in(grad, "features");
  const int64_t images = features_shape[0];
  const auto regions = read_regions(rois, images, map, spatial_scale, sampling_ratio);
  Tensor rows = zeros({images, map.height, map.width, map.channels}, dtype);
  if (rows.numel() > 0 && grad.numel() > 0) {
    const Tensor grad_bins = dense(converted(grad, dtype));
    if (dtype == ScalarType::Double)
      run_backward<double>(map, images, regions, grad_bins, rows);
    else
      run_backward<float>(map, images, regions, grad_bins, rows);
  }
  return dense(converted(channels_second(rows), grad.scalar_type()));
}

}  // namespace
}  // namespace rsd2

STABLE_TORCH_LIBRARY_IMPL(rsd2, CPU, m) {
  m.impl("roi_align_rotated", TORCH_BOX(&rsd2::roi_align_rotated));
  m.impl("roi_align_rotated_backward", TORCH_BOX(&rsd2::roi_align_rotated_backward));
}
