// RoIAlign for rotated regions on CUDA devices, forward and backward; roi_align_rotated.cuh says
// how. Contract: library.cpp and rsd2/ops/roi_align_rotated.py, but for one thing: a region that
// cannot be pooled gives NaN and no gradient, because an error would make the host wait.
//
// Like the attention it adds by atomics, in any order, or, where torch asks for deterministic
// algorithms, by sorting, for which the host waits for the number of samples.
#include <ATen/Dispatch.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/zeros.h>
#include <torch/library.h>

#include "roi_align_rotated.cuh"
#include "rows_of_channels.h"

namespace rsd2 {
namespace gpu {
namespace {

// Regions of a call, read once on the device.
struct Regions {
  at::Tensor bytes, samples;  // GpuRegion of each; samples of all its bins (K,)
  Pooling pooling;

  Regions(const at::Tensor& rois_, const at::Tensor& like, at::IntArrayRef features,
          at::IntArrayRef pooled, double spatial_scale, int64_t sampling_ratio,
          const OnDeviceOf& device) {
    constexpr int64_t kLimit = int64_t(1) << 30;  // pixels and bins are counted in int
    TORCH_CHECK_VALUE(features.size() == 4, "features must be (B, C, H, W), got ", features);
    TORCH_CHECK_VALUE(rois_.dim() == 2 && rois_.size(1) == 6, "rois must be (K, 6), got ",
                      rois_.sizes());
    TORCH_CHECK_VALUE(rois_.device() == like.device(), "rois must be on ", like.device());
    TORCH_CHECK_VALUE(pooled.size() == 2 && pooled[0] > 0 && pooled[1] > 0 && pooled[0] < kLimit &&
                          pooled[1] < kLimit && features[2] < kLimit && features[3] < kLimit,
                      "output_size ", pooled, " or the map of features ", features,
                      " is out of range");
    const auto type = rois_.scalar_type() == at::kDouble ? at::kDouble : at::kFloat;
    const at::Tensor rois = rois_.to(type).contiguous();
    const int64_t size = rois.size(0);
    bytes = at::empty({size, int64_t(sizeof(GpuRegion))}, rois.options().dtype(at::kByte));
    samples = at::empty({size}, rois.options().dtype(at::kLong));
    auto* regions = reinterpret_cast<GpuRegion*>(bytes.mutable_data_ptr<uint8_t>());
    pooling = {regions,         size, features[1], int(pooled[0]), int(pooled[1]), int(features[2]),
               int(features[3])};
    if (size == 0) return;
    AT_DISPATCH_FLOATING_TYPES(type, "roi_align_rotated", [&] {
      device.launch(describe_regions<scalar_t>, blocks_for(size, kThreads), kThreads,
                    rois.const_data_ptr<scalar_t>(), features[0], pooling, spatial_scale,
                    sampling_ratio, regions, samples.mutable_data_ptr<int64_t>());
    });
  }

  unsigned blocks() const { return blocks_for(pooling.size * pooling.bins(), kThreads / kWarp); }
};

at::Tensor roi_align_rotated(const at::Tensor& features, const at::Tensor& rois,
                             at::IntArrayRef output_size, double spatial_scale,
                             int64_t sampling_ratio) {
  const OnDeviceOf device(features);
  const Regions regions(rois, features, features.sizes(), output_size, spatial_scale,
                        sampling_ratio, device);
  const Pooling& p = regions.pooling;
  at::Tensor out =
      at::zeros({p.size, p.pooled_height, p.pooled_width, p.channels}, features.options());
  if (out.numel() > 0) {
    const at::Tensor rows = features.permute({0, 2, 3, 1}).contiguous();
    AT_DISPATCH_FLOATING_TYPES_AND2(
        at::kHalf, at::kBFloat16, features.scalar_type(), "roi_align_rotated", [&] {
          const scalar_t* from = rows.const_data_ptr<scalar_t>();
          scalar_t* to = out.mutable_data_ptr<scalar_t>();
          with_width<scalar_t>(numbers_at_a_time<scalar_t>(from, p.channels, {}), [&](auto w) {
            using Work = PoolBins<scalar_t, w()>;
            device.launch(visit_bins<w(), Work>, regions.blocks(), kThreads, p,
                          Work{from, to, p.channels});
          });
        });
  }
  return out.permute({0, 3, 1, 2}).contiguous();
}

template <typename V>
void spread(const Regions& regions, const at::Tensor& bins, at::Tensor& table,
            const OnDeviceOf& device) {
  using A = typename Accumulated<V>::Type;
  const Pooling& p = regions.pooling;
  const V* from = bins.const_data_ptr<V>();
  if (!must_be_deterministic()) {
    with_width<V>(numbers_at_a_time<V>(from, p.channels, {}), [&](auto w) {
      using Work = SpreadBins<V, w()>;
      device.launch(visit_bins<w(), Work>, regions.blocks(), kThreads, p,
                    Work{from, table.mutable_data_ptr<A>(), p.channels});
    });
    return;
  }
  const at::Tensor ends = regions.samples.cumsum(0);
  const int64_t samples = ends[p.size - 1].item<int64_t>();
  add_sorted<A, V>(samples, bins, p.channels, table, device,
                   [&](int64_t first, int64_t count, int64_t* rows, A* weights, int64_t* sources) {
                     device.launch(list_regions<A>, blocks_for(count, kThreads), kThreads, p,
                                   ends.const_data_ptr<int64_t>(), first, count, rows, weights,
                                   sources);
                   });
}

at::Tensor roi_align_rotated_backward(const at::Tensor& grad, const at::Tensor& rois,
                                      at::IntArrayRef features_shape, double spatial_scale,
                                      int64_t sampling_ratio) {
  TORCH_CHECK_VALUE(grad.dim() == 4, "grad must be (K, C, h, w), got ", grad.sizes());
  const OnDeviceOf device(grad);
  const Regions regions(rois, grad, features_shape, grad.sizes().slice(2), spatial_scale,
                        sampling_ratio, device);
  const Pooling& p = regions.pooling;
  TORCH_CHECK_VALUE(grad.size(0) == p.size && grad.size(1) == p.channels, "grad ", grad.sizes(),
                    " does not fit rois ", rois.sizes(), " and features ", features_shape);
  const auto type = grad.scalar_type() == at::kDouble ? at::kDouble : at::kFloat;
  at::Tensor table =
      at::zeros({features_shape[0], p.height, p.width, p.channels}, grad.options().dtype(type));
  if (table.numel() > 0 && grad.numel() > 0) {
    const at::Tensor bins = grad.permute({0, 2, 3, 1}).contiguous();
    AT_DISPATCH_FLOATING_TYPES_AND2(at::kHalf, at::kBFloat16, grad.scalar_type(),
                                    "roi_align_rotated_backward",
                                    [&] { spread<scalar_t>(regions, bins, table, device); });
  }
  return table.permute({0, 3, 1, 2}).to(grad.scalar_type()).contiguous();
}

}  // namespace
}  // namespace gpu
}  // namespace rsd2

TORCH_LIBRARY_IMPL(rsd2, CUDA, m) {
  m.impl("roi_align_rotated", &rsd2::gpu::roi_align_rotated);
  m.impl("roi_align_rotated_backward", &rsd2::gpu::roi_align_rotated_backward);
}
