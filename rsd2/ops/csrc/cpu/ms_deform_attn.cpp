// Multi-scale deformable attention on the CPU: forward and backward of rsd2::ms_deform_attn.
//
// One pass for each query and head: the pixels of all its samples are listed with their weights,
// then their rows of channels are added up. Nothing of the size of the samples is stored. The
// queries of one head follow each other, so that the head's part of the values stays in the cache.
//
// Backward: a task is one head of one image, which alone writes the gradient of its values, so
// there are no races, and the sums have one order whatever the number of threads.
//
// Shapes: B images, S positions of all levels, H heads, C channels of a head, Q queries, L levels,
// P points.
#include <torch/csrc/stable/library.h>

#include <algorithm>
#include <memory>
#include <tuple>
#include <vector>

#include "../bilinear.h"
#include "channels.h"
#include "multiversion.h"
#include "tensors.h"

namespace rsd2 {
namespace {

struct Level {
  int height, width;
  int64_t start;
};

// Contiguous tensors but for the values, whose channels alone must be neighbours.
template <typename T>
struct Attention {
  const T* value;
  int64_t image_stride, position_stride, head_stride;
  const T* locations;
  const T* weights;
  int64_t images, positions, heads, channels, queries, points;
  std::vector<Level> levels;

  // Corners read a position often enough for a copy of the head's values to pay: measured.
  bool copy_pays() const { return queries * samples() * 4 >= 8 * positions; }
  const T* head_values(int64_t image, int64_t head) const {
    return value + image * image_stride + head * head_stride;
  }
  int64_t samples() const { return int64_t(levels.size()) * points; }
  int64_t cell(int64_t image, int64_t head, int64_t query) const {
    return (image * queries + query) * heads + head;
  }
};

// The pixels that the samples of one query and head read, at most four of each.
template <typename T>
struct Corners {
  std::vector<int64_t> offsets, corner_of;  // corner_of: 4 * sample + corner
  std::vector<T> weights;
  int64_t count = 0;

  explicit Corners(int64_t samples)
      : offsets(4 * samples), corner_of(4 * samples), weights(4 * samples) {}
};

template <typename T>
RSD2_INLINE BilinearSample<T> sample_at(const Attention<T>& a, const Level& level,
                                        const T* location) {
  return attention_sample(location[0], location[1], level.height, level.width);
}

template <typename T>
RSD2_INLINE void list_corners(const Attention<T>& a, int64_t cell, int64_t stride,
                              Corners<T>& corners) {
  const T* location = a.locations + cell * a.samples() * 2;
  const T* weight = a.weights + cell * a.samples();
  int64_t* offsets = corners.offsets.data();
  int64_t* corner_of = corners.corner_of.data();
  T* weights = corners.weights.data();
  int64_t count = 0, index = 0;
  // The same head of the query after next: its numbers lie too far away to be foreseen.
  prefetch_row(location + 2 * a.heads * a.samples() * 2, 2 * a.samples());
  prefetch_row(weight + 2 * a.heads * a.samples(), a.samples());
  for (const Level& level : a.levels) {
    for (int64_t p = 0; p < a.points; ++p, ++index, location += 2, ++weight) {
      const auto sample = sample_at(a, level, location);
      if (!sample.touches) continue;
      for (int corner = 0; corner < 4; ++corner) {
        // Written in any case, kept if inside: no branch to be guessed wrong.
        const int64_t pixel = int64_t(corner_row(sample, corner)) * level.width;
        offsets[count] = (level.start + pixel + corner_column(sample, corner)) * stride;
        weights[count] = *weight * corner_weight(sample, corner);
        corner_of[count] = 4 * index + corner;
        count += corner_inside(sample, corner, level.height, level.width);
      }
    }
  }
  corners.count = count;
}

// Rows of channels, `stride` numbers apart.
template <typename T>
struct Table {
  T* rows;
  int64_t stride;
};

template <typename T>
RSD2_INLINE void copy_rows(Table<const T> from, Table<T> to, int64_t rows, int64_t channels) {
  for (int64_t row = 0; row < rows; ++row)
    std::copy_n(from.rows + row * from.stride, channels, to.rows + row * to.stride);
}

// Lists the corners of the next query, and sends for their rows, before those of this one are
// summed.
template <typename T, typename Use>
RSD2_INLINE void for_each_query(const Attention<T>& a, int64_t image, int64_t head, int64_t begin,
                                int64_t end, Table<const T> table, const Use& use) {
  Corners<T> listed[2] = {Corners<T>(a.samples()), Corners<T>(a.samples())};
  for (int64_t query = begin; query <= end; ++query) {
    if (query < end) {
      Corners<T>& corners = listed[query & 1];
      list_corners(a, a.cell(image, head, query), table.stride, corners);
      prefetch_rows(table.rows, corners.offsets.data(), corners.count, a.channels);
    }
    if (query > begin) use(a.cell(image, head, query - 1), listed[(query - 1) & 1]);
  }
}

// Queries [begin, end) of one head of one image.
template <int Native, typename T>
RSD2_INLINE void forward_queries(const Attention<T>& a, int64_t image, int64_t head, int64_t begin,
                                 int64_t end, Table<const T> table, T* out) {
  const auto sum = [&](int64_t cell, const Corners<T>& corners) RSD2_INLINE_LAMBDA {
    const WeightedRows<T> rows{corners.offsets.data(), corners.weights.data(), corners.count};
    gather_rows<Native>(table.rows, rows, a.channels, out + cell * a.channels);
  };
  for_each_query(a, image, head, begin, end, table, sum);
}

template <typename T>
struct Gradients {
  const T* out;
  T* value;  // (B, S, H, C), zeros at first
  T* locations;
  T* weights;
};

// From the products of the gradient with each corner's row to those of locations and weights.
template <typename T>
RSD2_INLINE void fold_products(const Attention<T>& a, int64_t cell, const T* products,
                               const Gradients<T>& grad) {
  int64_t index = cell * a.samples();
  for (const Level& level : a.levels) {
    for (int64_t p = 0; p < a.points; ++p, ++index, products += 4) {
      const auto sample = sample_at(a, level, a.locations + 2 * index);
      T in_weight = 0, in_x = 0, in_y = 0;
      if (sample.touches) {
        for (int corner = 0; corner < 4; ++corner) {
          in_weight += corner_weight(sample, corner) * products[corner];
          in_x += corner_slope_x(sample, corner) * products[corner];
          in_y += corner_slope_y(sample, corner) * products[corner];
        }
      }
      grad.weights[index] = in_weight;
      grad.locations[2 * index] = in_x * a.weights[index] * T(level.width);
      grad.locations[2 * index + 1] = in_y * a.weights[index] * T(level.height);
    }
  }
}

// All queries of one head; the two tables have the same stride.
template <int Native, typename T>
RSD2_INLINE void backward_head(const Attention<T>& a, int64_t image, int64_t head,
                               Table<const T> table, Table<T> grad_table,
                               const Gradients<T>& grad) {
  std::vector<T> dots(4 * a.samples()), products(4 * a.samples());
  const auto add = [&](int64_t cell, const Corners<T>& corners) RSD2_INLINE_LAMBDA {
    const T* grad_row = grad.out + cell * a.channels;
    const int64_t* offsets = corners.offsets.data();
    dot_rows<Native>(table.rows, offsets, corners.count, a.channels, grad_row, dots.data());
    const WeightedRows<T> rows{offsets, corners.weights.data(), corners.count};
    scatter_rows<Native>(grad_table.rows, rows, a.channels, grad_row);
    for (T& product : products) product = 0;
    for (int64_t e = 0; e < corners.count; ++e) products[corners.corner_of[e]] = dots[e];
    fold_products(a, cell, products.data(), grad);
  };
  for_each_query(a, image, head, 0, a.queries, table, add);
}

RSD2_VERSIONS(forward,
              (const Attention<T>& a, int64_t image, int64_t head, int64_t begin, int64_t end,
               Table<const T> table, T* out),
              (a, image, head, begin, end, table, out),
              forward_queries<kVectorBytes>(a, image, head, begin, end, table, out);)

RSD2_VERSIONS(backward,
              (const Attention<T>& a, int64_t image, int64_t head, Table<const T> table,
               Table<T> grad_table, const Gradients<T>& grad),
              (a, image, head, table, grad_table, grad),
              backward_head<kVectorBytes>(a, image, head, table, grad_table, grad);)

// The tensors of a call in the dtype that it is computed in, laid out as the kernels need them.
struct Inputs {
  Tensor value, locations, weights;
  std::vector<Level> levels;

  Inputs(const Tensor& value_, Sizes shapes, const Tensor& locations_, const Tensor& weights_) {
    const ScalarType dtype = computed_in(value_, "value");
    RSD2_CHECK_VALUE(value_.dim() == 4 && locations_.dim() == 6 && weights_.dim() == 5,
                     "value, sampling_locations and attention_weights need 4, 6 and 5 dimensions");
    RSD2_CHECK_VALUE(!shapes.empty() && shapes.size() % 2 == 0,
                     "spatial_shapes must be pairs of height and width");
    value = converted(value_, dtype);
    if (value.stride(3) != 1) value = torch::stable::contiguous(value);
    locations = dense(converted(locations_, dtype));
    weights = dense(converted(weights_, dtype));
    int64_t start = 0;
    for (size_t i = 0; i < shapes.size(); i += 2) {
      constexpr int64_t kLimit = int64_t(1) << 30;  // pixels are counted in int
      RSD2_CHECK_VALUE(
          shapes[i] > 0 && shapes[i + 1] > 0 && shapes[i] < kLimit && shapes[i + 1] < kLimit,
          "a level of ", shapes[i], " x ", shapes[i + 1], " cannot be sampled");
      levels.push_back({int(shapes[i]), int(shapes[i + 1]), start});
      start += shapes[i] * shapes[i + 1];
    }
    const std::vector<int64_t> fitting{value.size(0), locations.size(1), value.size(2),
                                       int64_t(levels.size()), locations.size(4)};
    RSD2_CHECK_VALUE(value.size(1) == start && weights.sizes().equals(fitting) &&
                         locations.sizes().slice(0, 5).equals(fitting) && locations.size(5) == 2,
                     "value ", value.sizes(), ", sampling_locations ", locations.sizes(),
                     " and attention_weights ", weights.sizes(), " do not fit each other and ",
                     start, " positions");
  }

  template <typename T>
  Attention<T> view() const {
    return {value.const_data_ptr<T>(),
            value.stride(0),
            value.stride(1),
            value.stride(2),
            locations.const_data_ptr<T>(),
            weights.const_data_ptr<T>(),
            value.size(0),
            value.size(1),
            value.size(2),
            value.size(3),
            locations.size(1),
            locations.size(4),
            levels};
  }
};

template <typename T>
void run_forward(const Inputs& inputs, Tensor& out) {
  const Attention<T> a = inputs.view<T>();
  // A task is a portion of the queries of one head; a thread gets neighbours, which share the head.
  constexpr int64_t kPortion = 256;
  const int64_t portions = (a.queries + kPortion - 1) / kPortion;
  T* to = out.mutable_data_ptr<T>();
  torch::stable::parallel_for(0, a.images * a.heads * portions, 1, [&](int64_t begin, int64_t end) {
    const bool copies = a.copy_pays();
    const std::unique_ptr<T[]> copy(copies ? new T[a.positions * a.channels] : nullptr);
    for (int64_t task = begin; task < end; ++task) {
      const int64_t head = task / portions % a.heads, image = task / portions / a.heads;
      const int64_t first = task % portions * kPortion;
      Table<const T> table{a.head_values(image, head), a.position_stride};
      if (copies) {
        const Table<T> packed{copy.get(), a.channels};
        if (task == begin || first == 0) copy_rows(table, packed, a.positions, a.channels);
        table = {packed.rows, packed.stride};
      }
      forward<T>(a, image, head, first, std::min(first + kPortion, a.queries), table, to);
    }
  });
}

template <typename T>
void run_backward(const Inputs& inputs, const Tensor& grad, Tensor& in_value, Tensor& in_locations,
                  Tensor& in_weights) {
  const Attention<T> a = inputs.view<T>();
  const Gradients<T> gradients{grad.const_data_ptr<T>(), in_value.mutable_data_ptr<T>(),
                               in_locations.mutable_data_ptr<T>(),
                               in_weights.mutable_data_ptr<T>()};
  const int64_t stride = a.heads * a.channels, numbers = a.positions * a.channels;
  torch::stable::parallel_for(0, a.images * a.heads, 1, [&](int64_t begin, int64_t end) {
    const bool copies = a.copy_pays() || a.position_stride != stride;
    const std::unique_ptr<T[]> copy(copies ? new T[2 * numbers] : nullptr);
    for (int64_t task = begin; task < end; ++task) {
      const int64_t image = task / a.heads, head = task % a.heads;
      const Table<const T> values{a.head_values(image, head), a.position_stride};
      T* grad_values = gradients.value + image * a.positions * stride + head * a.channels;
      const Table<T> grad_table{grad_values, stride};
      if (!copies) {
        backward<T>(a, image, head, values, grad_table, gradients);
        continue;
      }
      const Table<T> packed{copy.get(), a.channels}, packed_grad{copy.get() + numbers, a.channels};
      copy_rows(values, packed, a.positions, a.channels);
      std::fill_n(packed_grad.rows, numbers, T(0));
      backward<T>(a, image, head, {packed.rows, packed.stride}, packed_grad, gradients);
      copy_rows({packed_grad.rows, a.channels}, grad_table, a.positions, a.channels);
    }
  });
}

Tensor ms_deform_attn(const Tensor& value, Sizes shapes, const Tensor& locations,
                      const Tensor& weights) {
  const Inputs inputs(value, shapes, locations, weights);
  Tensor out = empty({value.size(0), locations.size(1), value.size(2) * value.size(3)},
                     inputs.value.scalar_type());
  if (out.numel() == 0) return converted(out, value.scalar_type());
  if (inputs.value.scalar_type() == ScalarType::Double)
    run_forward<double>(inputs, out);
  else
    run_forward<float>(inputs, out);
  return converted(out, value.scalar_type());
}

std::tuple<Tensor, Tensor, Tensor> ms_deform_attn_backward(const Tensor& grad, const Tensor& value,
                                                           Sizes shapes, const Tensor& locations,
                                                           const Tensor& weights) {
  const Inputs inputs(value, shapes, locations, weights);
  const ScalarType dtype = inputs.value.scalar_type();
  const Tensor grad_out = dense(converted(grad, dtype));
  RSD2_CHECK_VALUE(grad.dim() == 3 && grad.size(0) == value.size(0) &&
                       grad.size(1) == locations.size(1) &&
                       grad.size(2) == value.size(2) * value.size(3),
                   "grad is ", grad.sizes(), ", which is not the shape of the result");
  Tensor in_value = zeros(value.sizes(), dtype);
  Tensor in_locations = empty(locations.sizes(), dtype);
  Tensor in_weights = empty(weights.sizes(), dtype);
  if (inputs.value.scalar_type() == ScalarType::Double)
    run_backward<double>(inputs, grad_out, in_value, in_locations, in_weights);
  else
    run_backward<float>(inputs, grad_out, in_value, in_locations, in_weights);
  return {converted(in_value, value.scalar_type()),
          converted(in_locations, locations.scalar_type()),
          converted(in_weights, weights.scalar_type())};
}

}  // namespace
}  // namespace rsd2

STABLE_TORCH_LIBRARY_IMPL(rsd2, CPU, m) {
  m.impl("ms_deform_attn", TORCH_BOX(&rsd2::ms_deform_attn));
  m.impl("ms_deform_attn_backward", TORCH_BOX(&rsd2::ms_deform_attn_backward));
}
