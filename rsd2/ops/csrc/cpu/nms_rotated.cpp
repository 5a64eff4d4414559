// Greedy rotated NMS by class on the CPU. Contract: library.cpp and rsd2/ops/nms_rotated.py.
//
// Boxes are sorted once, by class and score. Each class keeps a list of its survivors, described
// and side by side; a candidate is compared with those whose circle it meets, until one suppresses
// it. Memory is O(N).
#include <ATen/Dispatch.h>
#include <ATen/ops/empty.h>
#include <torch/library.h>

#include <numeric>

#include "described_boxes.h"

namespace rsd2 {
namespace {

// Box numbers by decreasing score, equal scores by number.
template <typename S>
std::vector<int64_t> order_by_score(const S* scores, int64_t size) {
  std::vector<std::pair<S, int64_t>> keys(size);
  int64_t num_nan = 0;
  for (int64_t i = 0; i < size; ++i) {
    keys[i] = {scores[i], i};
    num_nan += scores[i] != scores[i];
  }
  TORCH_CHECK_VALUE(num_nan == 0, num_nan, " of ", size,
                    " scores are NaN; drop these boxes before NMS");
  std::sort(keys.begin(), keys.end(), [](const auto& a, const auto& b) {
    return a.first > b.first || (a.first == b.first && a.second < b.second);
  });
  std::vector<int64_t> order(size);
  for (int64_t i = 0; i < size; ++i) order[i] = keys[i].second;
  return order;
}

// Box numbers by class, within a class as in `by_score`; and where each class begins, with the end.
struct Classes {
  std::vector<int64_t> order, starts;

  Classes(const std::vector<int64_t>& by_score, const int64_t* class_of) : order(by_score) {
    const int64_t size = order.size();
    std::stable_sort(order.begin(), order.end(),
                     [&](int64_t a, int64_t b) { return class_of[a] < class_of[b]; });
    for (int64_t i = 0; i < size; ++i) {
      if (i == 0 || class_of[order[i]] != class_of[order[i - 1]]) starts.push_back(i);
    }
    starts.push_back(size);
  }
};

// Marks in `keep` the survivors among boxes [begin, end) of one class, which come in visiting
// order; order[i] is the number of box i.
template <typename T>
void keep_survivors(const DescribedBoxes<T>& boxes, int64_t begin, int64_t end,
                    const int64_t* order, double threshold, uint8_t* keep) {
  // Survivors are looked through in tiles, so that a suppressor among the first ends the search.
  constexpr int64_t kTile = 512;
  const PairKernels<T>& kernels = pair_kernels<T>();
  const double floor = greater(threshold, kNoOverlap);
  DescribedBoxes<T> survivors(end - begin);
  int64_t size = 0;
  int32_t found[kTile];
  double iou[kTile];
  const auto is_suppressed = [&](int64_t candidate) {
    const RotatedBox& box = boxes.boxes()[candidate];
    for (int64_t first = 0; first < size; first += kTile) {
      const int64_t last = std::min(first + kTile, size);
      const int64_t count =
          kernels.near(boxes.circles(), candidate, survivors.circles(), first, last, found);
      if (count == 0) continue;
      kernels.ious(box, survivors.boxes() + first, found, count, iou);
      for (int64_t k = 0; k < count; ++k) {
        // The kernel takes the candidate for the first box, the definition the survivor.
        const bool over = std::fabs(iou[k] - floor) <= kUndecided<double>
                              ? exceeds(survivors.boxes()[first + found[k]], box, threshold)
                              : iou[k] > floor;
        if (over) return true;
      }
    }
    return false;
  };
  for (int64_t i = begin; i < end; ++i) {
    if (is_suppressed(i)) continue;
    keep[order[i]] = 1;
    survivors.set(size++, boxes.boxes()[i]);
  }
}

template <typename T>
void mark_kept(const T* raw, const Classes& classes, double threshold, uint8_t* keep) {
  const int64_t size = classes.order.size(), num_classes = classes.starts.size() - 1;
  const DescribedBoxes<T> boxes(raw, size, classes.order.data());
  const int64_t grain = size < kSerialBoxes ? std::max<int64_t>(1, num_classes) : 1;
  at::parallel_for(0, num_classes, grain, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      keep_survivors(boxes, classes.starts[i], classes.starts[i + 1], classes.order.data(),
                     threshold, keep);
    }
  });
}

at::Tensor batched_nms_rotated(const at::Tensor& boxes, const at::Tensor& scores,
                               const at::Tensor& idxs, double iou_threshold) {
  check_boxes(boxes, boxes);
  const int64_t size = boxes.size(0);
  TORCH_CHECK_VALUE(scores.dim() == 1 && scores.size(0) == size && idxs.dim() == 1 &&
                        idxs.size(0) == size && idxs.scalar_type() == at::kLong,
                    "scores and int64 idxs must be (", size, ",) like the boxes");
  const at::Tensor raw = boxes.contiguous(), own_scores = scores.contiguous(),
                   own_idxs = idxs.contiguous();
  std::vector<int64_t> by_score;
  AT_DISPATCH_FLOATING_TYPES(scores.scalar_type(), "batched_nms_rotated", [&] {
    by_score = order_by_score(own_scores.const_data_ptr<scalar_t>(), size);
  });
  const Classes classes(by_score, own_idxs.const_data_ptr<int64_t>());
  std::vector<uint8_t> keep(size);
  AT_DISPATCH_FLOATING_TYPES(boxes.scalar_type(), "batched_nms_rotated", [&] {
    mark_kept(raw.const_data_ptr<scalar_t>(), classes, iou_threshold, keep.data());
  });
  const int64_t kept = std::accumulate(keep.begin(), keep.end(), int64_t{0});
  at::Tensor result = at::empty({kept}, own_idxs.options());
  std::copy_if(by_score.begin(), by_score.end(), result.mutable_data_ptr<int64_t>(),
               [&](int64_t i) { return keep[i] != 0; });
  return result;
}

}  // namespace
}  // namespace rsd2

TORCH_LIBRARY_IMPL(rsd2, CPU, m) { m.impl("batched_nms_rotated", &rsd2::batched_nms_rotated); }
