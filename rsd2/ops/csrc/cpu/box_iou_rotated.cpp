// Rotated IoU on the CPU: matrix, pairs, overlaps above a threshold, maxima. Contract: library.cpp
// and rsd2/ops/box_iou_rotated.py.
#include <torch/csrc/stable/library.h>

#include <mutex>
#include <tuple>

#include "described_boxes.h"

namespace rsd2 {
namespace {

// Rows that share the tiles of columns in the cache.
constexpr int64_t kRowBlock = 64;

int64_t rows_at_least(int64_t num_columns) {
  return std::max<int64_t>(1, kSerialPairs / std::max<int64_t>(1, num_columns));
}

// Two sets of boxes as contiguous arrays of their common dtype.
struct BoxSets {
  Tensor one, two;

  BoxSets(const Tensor& boxes1, const Tensor& boxes2) {
    check_boxes(boxes1, boxes1);
    check_boxes(boxes2, boxes1);
    one = dense(boxes1);
    two = dense(boxes2);
  }
  int64_t rows() const { return one.size(0); }
  int64_t columns() const { return two.size(0); }

  template <typename T>
  DescribedBoxes<T> described_rows() const {
    return DescribedBoxes<T>(one.const_data_ptr<T>(), rows());
  }
  template <typename T>
  DescribedBoxes<T> described_columns() const {
    return DescribedBoxes<T>(two.const_data_ptr<T>(), columns());
  }
};

template <typename T>
void write_matrix(const BoxSets& sets, T* out, int64_t stride) {
  const auto one = sets.described_rows<T>(), two = sets.described_columns<T>();
  torch::stable::parallel_for(
      0, one.size(), rows_at_least(two.size()), [&](int64_t begin, int64_t end) {
        const auto write = [&](int64_t row, int64_t tile, const int32_t* found, int64_t count,
                               const double* iou) {
          T* target = out + row * stride + tile;
          for (int64_t k = 0; k < count; ++k) target[found[k]] = static_cast<T>(iou[k]);
        };
        for (int64_t first = begin; first < end; first += kRowBlock) {
          const int64_t last = std::min(first + kRowBlock, end);
          for (int64_t row = first; row < last; ++row) {
            std::fill_n(out + row * stride, two.size(), T(0));
          }
          for_near_pairs(one, first, last, two, 0, two.size(), write);
        }
      });
}

void box_iou_rotated_out(const Tensor& boxes1, const Tensor& boxes2, Tensor out) {
  const BoxSets sets(boxes1, boxes2);
  RSD2_CHECK_VALUE(out.dim() == 2 && out.size(0) == sets.rows() && out.size(1) == sets.columns() &&
                       out.scalar_type() == boxes1.scalar_type(),
                   "out must be (", sets.rows(), ", ", sets.columns(), ") and ",
                   boxes1.scalar_type(), ", got ", out.sizes(), " and ", out.scalar_type());
  if (out.size(1) > 1 && out.stride(1) != 1) {
    const Tensor dense = empty(out.sizes(), out.scalar_type());
    box_iou_rotated_out(boxes1, boxes2, dense);
    torch::stable::copy_(out, dense);
    return;
  }
  with_type(out.scalar_type(), "box_iou_rotated", [&](auto zero) {
    write_matrix(sets, out.mutable_data_ptr<decltype(zero)>(), out.stride(0));
  });
}

Tensor box_iou_rotated(const Tensor& boxes1, const Tensor& boxes2) {
  check_boxes(boxes1, boxes1);
  check_boxes(boxes2, boxes1);
  const Tensor out = empty({boxes1.size(0), boxes2.size(0)}, boxes1.scalar_type());
  box_iou_rotated_out(boxes1, boxes2, out);
  return out;
}

Tensor paired_iou_rotated(const Tensor& boxes1, const Tensor& boxes2) {
  const BoxSets sets(boxes1, boxes2);
  RSD2_CHECK_VALUE(sets.rows() == sets.columns(), "paired boxes must be as many, got ", sets.rows(),
                   " and ", sets.columns());
  const Tensor result = empty({sets.rows()}, boxes1.scalar_type());
  with_type(result.scalar_type(), "paired_iou_rotated", [&](auto zero) {
    using scalar_t = decltype(zero);
    scalar_t* out = result.mutable_data_ptr<scalar_t>();
    const auto one = sets.described_rows<scalar_t>(), two = sets.described_columns<scalar_t>();
    torch::stable::parallel_for(0, one.size(), kSerialPairs, [&](int64_t begin, int64_t end) {
      constexpr int64_t kPortion = 1024;
      double iou[kPortion];
      for (int64_t first = begin; first < end; first += kPortion) {
        const int64_t count = std::min(kPortion, end - first);
        pair_kernels<scalar_t>().paired(one.boxes() + first, two.boxes() + first, count, iou);
        for (int64_t i = 0; i < count; ++i) out[first + i] = static_cast<scalar_t>(iou[i]);
      }
    });
  });
  return result;
}

template <typename T>
struct Overlap {
  int64_t row, column;
  T iou;
};

// Overlaps of rows [begin, end), by row, then column.
template <typename T>
std::vector<Overlap<T>> overlaps_of(const DescribedBoxes<T>& one, const DescribedBoxes<T>& two,
                                    int64_t begin, int64_t end, double threshold) {
  const double floor = greater(threshold, kNoOverlap);
  std::vector<Overlap<T>> result;
  std::vector<std::vector<Overlap<T>>> by_row(kRowBlock);
  for (int64_t first = begin; first < end; first += kRowBlock) {
    const auto collect = [&](int64_t row, int64_t tile, const int32_t* found, int64_t count,
                             const double* iou) {
      for (int64_t k = 0; k < count; ++k) {
        if (iou[k] <= floor) continue;
        by_row[row - first].push_back({row, tile + found[k], static_cast<T>(iou[k])});
      }
    };
    for_near_pairs(one, first, std::min(first + kRowBlock, end), two, 0, two.size(), collect);
    for (auto& overlaps : by_row) {
      result.insert(result.end(), overlaps.begin(), overlaps.end());
      overlaps.clear();
    }
  }
  return result;
}

std::tuple<Tensor, Tensor, Tensor> sparse_iou_rotated(const Tensor& boxes1, const Tensor& boxes2,
                                                      double threshold) {
  const BoxSets sets(boxes1, boxes2);
  Tensor rows, columns, iou;
  with_type(boxes1.scalar_type(), "sparse_iou_rotated", [&](auto zero) {
    using scalar_t = decltype(zero);
    // Threads take runs of rows; each run's overlaps go to the place of its first row.
    std::vector<std::pair<int64_t, std::vector<Overlap<scalar_t>>>> parts;
    std::mutex mutex;
    const auto one = sets.described_rows<scalar_t>(), two = sets.described_columns<scalar_t>();
    torch::stable::parallel_for(0, one.size(), rows_at_least(two.size()),
                                [&](int64_t begin, int64_t end) {
                                  auto part = overlaps_of(one, two, begin, end, threshold);
                                  const std::lock_guard<std::mutex> lock(mutex);
                                  parts.emplace_back(begin, std::move(part));
                                });
    std::sort(parts.begin(), parts.end(),
              [](const auto& a, const auto& b) { return a.first < b.first; });
    int64_t total = 0;
    for (const auto& part : parts) total += part.second.size();
    rows = empty({total}, ScalarType::Long);
    columns = empty({total}, ScalarType::Long);
    iou = empty({total}, boxes1.scalar_type());
    int64_t *row = rows.mutable_data_ptr<int64_t>(), *column = columns.mutable_data_ptr<int64_t>();
    scalar_t* value = iou.mutable_data_ptr<scalar_t>();
    for (auto& part : parts) {
      for (const auto& overlap : part.second) {
        *row++ = overlap.row;
        *column++ = overlap.column;
        *value++ = overlap.iou;
      }
      std::vector<Overlap<scalar_t>>().swap(part.second);
    }
  });
  return {rows, columns, iou};
}

// Greatest values and the first index that has each.
template <typename T>
struct Maxima {
  T* value;
  int64_t* index;

  void take(int64_t place, T new_value, int64_t new_index) const {
    if (new_value > value[place] || (new_value == value[place] && new_index < index[place])) {
      value[place] = new_value;
      index[place] = new_index;
    }
  }
};

template <typename T>
void write_maxima(const BoxSets& sets, Maxima<T> row_best, Maxima<T> column_best) {
  const auto one = sets.described_rows<T>(), two = sets.described_columns<T>();
  // Threads share out the larger set. Its maxima are written by one thread each; those of the other
  // set are kept per thread and merged.
  const bool by_rows = one.size() >= two.size();
  const int64_t large = by_rows ? one.size() : two.size(),
                small = by_rows ? two.size() : one.size();
  const Maxima<T> shared = by_rows ? column_best : row_best;
  std::mutex mutex;
  torch::stable::parallel_for(0, large, rows_at_least(small), [&](int64_t begin, int64_t end) {
    std::vector<T> values(small, T(0));
    std::vector<int64_t> indices(small, -1);
    const Maxima<T> own{values.data(), indices.data()};
    const Maxima<T> rows = by_rows ? row_best : own, columns = by_rows ? own : column_best;
    const auto take = [&](int64_t row, int64_t tile, const int32_t* found, int64_t count,
                          const double* iou) {
      for (int64_t k = 0; k < count; ++k) {
        if (iou[k] <= kNoOverlap) continue;
        rows.take(row, static_cast<T>(iou[k]), tile + found[k]);
        columns.take(tile + found[k], static_cast<T>(iou[k]), row);
      }
    };
    if (by_rows) {
      for_near_pairs(one, begin, end, two, 0, two.size(), take);
    } else {
      for_near_pairs(one, 0, one.size(), two, begin, end, take);
    }
    const std::lock_guard<std::mutex> lock(mutex);
    for (int64_t i = 0; i < small; ++i) {
      if (indices[i] >= 0) shared.take(i, values[i], indices[i]);
    }
  });
}

std::tuple<Tensor, Tensor, Tensor, Tensor> max_iou_rotated(const Tensor& boxes1,
                                                           const Tensor& boxes2) {
  const BoxSets sets(boxes1, boxes2);
  const ScalarType dtype = boxes1.scalar_type();
  const Tensor row_max = zeros({sets.rows()}, dtype), column_max = zeros({sets.columns()}, dtype);
  const Tensor row_argmax = full({sets.rows()}, -1, ScalarType::Long);
  const Tensor column_argmax = full({sets.columns()}, -1, ScalarType::Long);
  with_type(dtype, "max_iou_rotated", [&](auto zero) {
    using scalar_t = decltype(zero);
    write_maxima<scalar_t>(
        sets, {row_max.mutable_data_ptr<scalar_t>(), row_argmax.mutable_data_ptr<int64_t>()},
        {column_max.mutable_data_ptr<scalar_t>(), column_argmax.mutable_data_ptr<int64_t>()});
  });
  return {row_max, row_argmax, column_max, column_argmax};
}

}  // namespace
}  // namespace rsd2

STABLE_TORCH_LIBRARY_IMPL(rsd2, CPU, m) {
  m.impl("box_iou_rotated", TORCH_BOX(&rsd2::box_iou_rotated));
  m.impl("box_iou_rotated.out", TORCH_BOX(&rsd2::box_iou_rotated_out));
  m.impl("paired_iou_rotated", TORCH_BOX(&rsd2::paired_iou_rotated));
  m.impl("sparse_iou_rotated", TORCH_BOX(&rsd2::sparse_iou_rotated));
  m.impl("max_iou_rotated", TORCH_BOX(&rsd2::max_iou_rotated));
}
