// Multi-scale deformable attention on CUDA devices, forward and backward; ms_deform_attn.cuh says
// how. Contract: library.cpp and rsd2/ops/ms_deform_attn.py.
//
// float, double, half and bfloat16 values; sums and the gradient of the values in float (double for
// double). The gradient of the values is added up by atomics, in any order, or, where torch asks
// for deterministic algorithms, in the order of the samples.
#include <ATen/Dispatch.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/zeros.h>
#include <torch/library.h>

#include <tuple>
#include <vector>

#include "ms_deform_attn.cuh"
#include "rows_of_channels.h"

namespace rsd2 {
namespace gpu {
namespace {

at::ScalarType accumulated(at::ScalarType type) {
  return type == at::kDouble ? at::kDouble : at::kFloat;
}

// The tensors of a call, laid out as the kernels need them, with their shapes checked.
struct Inputs {
  at::Tensor value, locations, weights;
  std::vector<int64_t> shapes;

  Inputs(const at::Tensor& value_, at::IntArrayRef shapes_, const at::Tensor& locations_,
         const at::Tensor& weights_)
      : value(value_), shapes(shapes_.vec()) {
    TORCH_CHECK_VALUE(value.dim() == 4 && locations_.dim() == 6 && weights_.dim() == 5,
                      "value, sampling_locations and attention_weights need 4, 6 and 5 dimensions");
    TORCH_CHECK_VALUE(locations_.device() == value.device() && weights_.device() == value.device(),
                      "sampling_locations and attention_weights must be on ", value.device());
    check_levels();
    if (value.stride(3) != 1) value = value.contiguous();
    // Half precision is read as it is if all of it is; anything else in the precision of the sums.
    const auto type = value.scalar_type();
    const bool alike = locations_.scalar_type() == type && weights_.scalar_type() == type;
    const auto positions = alike ? type : accumulated(type);
    locations = locations_.to(positions).contiguous();
    weights = weights_.to(positions).contiguous();
  }

  int64_t channels() const { return value.size(3); }
  int64_t cells() const { return weights.size(0) * weights.size(1) * weights.size(2); }

  template <typename V, typename P>
  Attention<V, P> view() const {
    Attention<V, P> a{};
    a.value = value.const_data_ptr<V>();
    a.image_stride = value.stride(0);
    a.position_stride = value.stride(1);
    a.head_stride = value.stride(2);
    a.locations = locations.const_data_ptr<P>();
    a.weights = weights.const_data_ptr<P>();
    a.positions = value.size(1);
    a.heads = value.size(2);
    a.channels = channels();
    a.queries = weights.size(1);
    a.cells = cells();
    a.points = static_cast<int>(weights.size(4));
    a.samples = static_cast<int>(weights.size(3) * weights.size(4));
    int64_t start = 0;
    for (size_t level = 0; 2 * level < shapes.size(); ++level) {
      const int64_t height = shapes[2 * level], width = shapes[2 * level + 1];
      a.levels[level] = {static_cast<int>(height), static_cast<int>(width), start};
      start += height * width;
    }
    return a;
  }

 private:
  void check_levels() const {
    constexpr int64_t kLimit = int64_t(1) << 30;  // pixels and samples are counted in int
    TORCH_CHECK_VALUE(!shapes.empty() && shapes.size() % 2 == 0,
                      "spatial_shapes must be pairs of height and width");
    TORCH_CHECK_VALUE(shapes.size() <= 2 * size_t(kMaxLevels), "at most ", kMaxLevels,
                      " levels, got ", shapes.size() / 2);
    int64_t positions = 0;
    for (size_t i = 0; i < shapes.size(); i += 2) {
      const int64_t height = shapes[i], width = shapes[i + 1];
      TORCH_CHECK_VALUE(height > 0 && width > 0 && height < kLimit && width < kLimit, "a level of ",
                        height, " x ", width, " cannot be sampled");
      positions += height * width;
    }
    TORCH_CHECK_VALUE(value.size(1) == positions, "value has ", value.size(1),
                      " positions, but the levels ", shapes, " have ", positions);
  }
};

void check_cells(const Inputs& inputs) {
  const std::vector<int64_t> fitting{inputs.value.size(0), inputs.locations.size(1),
                                     inputs.value.size(2), int64_t(inputs.shapes.size() / 2),
                                     inputs.locations.size(4)};
  TORCH_CHECK_VALUE(inputs.weights.sizes() == at::IntArrayRef(fitting) &&
                        inputs.locations.sizes().slice(0, 5) == at::IntArrayRef(fitting) &&
                        inputs.locations.size(5) == 2,
                    "value and levels ask for (B, Q, H, L, P) = ", fitting,
                    ", but sampling_locations is ", inputs.locations.sizes(),
                    " and attention_weights ", inputs.weights.sizes());
  TORCH_CHECK_VALUE(fitting[3] * fitting[4] < (int64_t(1) << 30), "too many points of a query");
}

// Lanes of a cell: enough for its channels, a power of two, at most a warp.
int group_for(int64_t channels, int width) {
  int group = 1;
  while (group < kWarp && int64_t(group) * width < channels) group *= 2;
  return group;
}

// Calls body(V(), P()) with the dtypes of the values and of the positions.
template <typename Body>
void with_types(const Inputs& inputs, const Body& body) {
  AT_DISPATCH_FLOATING_TYPES_AND2(
      at::kHalf, at::kBFloat16, inputs.value.scalar_type(), "ms_deform_attn", [&] {
        if (inputs.weights.scalar_type() == inputs.value.scalar_type()) {
          body(scalar_t(), scalar_t());
        } else {
          body(scalar_t(), typename Accumulated<scalar_t>::Type());
        }
      });
}

template <typename V, typename P>
void run_forward(const Inputs& inputs, at::Tensor& out, const OnDeviceOf& device) {
  const Attention<V, P> a = inputs.view<V, P>();
  const int width =
      numbers_at_a_time<V>(a.value, a.channels, {a.image_stride, a.position_stride, a.head_stride});
  const int group = group_for(a.channels, width);
  const unsigned blocks = blocks_for(a.cells, kThreads / group);
  with_width<V>(width, [&](auto w) {
    device.launch(attend<V, P, w()>, blocks, kThreads, a, group, out.mutable_data_ptr<V>());
  });
}

template <typename V, typename P>
void run_backward(const Inputs& inputs, const at::Tensor& grad, at::Tensor& in_value,
                  at::Tensor& in_locations, at::Tensor& in_weights, const OnDeviceOf& device) {
  using A = typename Accumulated<V>::Type;
  const Attention<V, P> a = inputs.view<V, P>();
  const bool sorts = must_be_deterministic();
  const AttentionGradients<V, P> gradients{
      grad.const_data_ptr<V>(), sorts ? nullptr : in_value.mutable_data_ptr<A>(),
      in_locations.mutable_data_ptr<P>(), in_weights.mutable_data_ptr<P>()};
  const int width = std::min(
      numbers_at_a_time<V>(a.value, a.channels, {a.image_stride, a.position_stride, a.head_stride}),
      numbers_at_a_time<V>(gradients.out, a.channels, {}));
  const int group = group_for(a.channels, width);
  const unsigned blocks = blocks_for(a.cells, kThreads / group);
  with_width<V>(width, [&](auto w) {
    device.launch(attend_backward<V, P, w()>, blocks, kThreads, a, group, gradients);
  });
  if (!sorts) return;
  add_sorted<A, V>(a.cells * a.samples, grad, a.channels, in_value, device,
                   [&](int64_t first, int64_t count, int64_t* rows, A* weights, int64_t* sources) {
                     device.launch(list_attention<A, V, P>, blocks_for(count, kThreads), kThreads,
                                   a, first, count, rows, weights, sources);
                   });
}

at::Tensor ms_deform_attn(const at::Tensor& value, at::IntArrayRef shapes,
                          const at::Tensor& locations, const at::Tensor& weights) {
  const OnDeviceOf device(value);
  const Inputs inputs(value, shapes, locations, weights);
  check_cells(inputs);
  at::Tensor out =
      at::empty({weights.size(0), weights.size(1), value.size(2) * value.size(3)}, value.options());
  if (out.numel() == 0) return out;
  with_types(inputs,
             [&](auto v, auto p) { run_forward<decltype(v), decltype(p)>(inputs, out, device); });
  return out;
}

std::tuple<at::Tensor, at::Tensor, at::Tensor> ms_deform_attn_backward(const at::Tensor& grad,
                                                                       const at::Tensor& value,
                                                                       at::IntArrayRef shapes,
                                                                       const at::Tensor& locations,
                                                                       const at::Tensor& weights) {
  const OnDeviceOf device(value);
  const Inputs inputs(value, shapes, locations, weights);
  check_cells(inputs);
  TORCH_CHECK_VALUE(
      grad.dim() == 3 && grad.size(0) == value.size(0) && grad.size(1) == locations.size(1) &&
          grad.size(2) == value.size(2) * value.size(3) && grad.device() == value.device(),
      "grad is ", grad.sizes(), " on ", grad.device(), ", which is not as the result");
  const at::Tensor from = grad.to(value.scalar_type()).contiguous();
  at::Tensor in_value =
      at::zeros(value.sizes(), value.options().dtype(accumulated(value.scalar_type())));
  at::Tensor in_locations = at::zeros(locations.sizes(), inputs.locations.options());
  at::Tensor in_weights = at::zeros(weights.sizes(), inputs.weights.options());
  if (from.numel() > 0 && weights.numel() > 0) {
    with_types(inputs, [&](auto v, auto p) {
      run_backward<decltype(v), decltype(p)>(inputs, from, in_value, in_locations, in_weights,
                                             device);
    });
  }
  return {in_value.to(value.scalar_type()), in_locations.to(locations.scalar_type()),
          in_weights.to(weights.scalar_type())};
}

}  // namespace
}  // namespace gpu
}  // namespace rsd2

TORCH_LIBRARY_IMPL(rsd2, CUDA, m) {
  m.impl("ms_deform_attn", &rsd2::gpu::ms_deform_attn);
  m.impl("ms_deform_attn_backward", &rsd2::gpu::ms_deform_attn_backward);
}
