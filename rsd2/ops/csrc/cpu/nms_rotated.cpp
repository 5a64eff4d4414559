// Greedy rotated NMS by class on the CPU. Contract: library.cpp and rsd2/ops/nms_rotated.py.
//
// Boxes are grouped by class; threads take classes. Within a class boxes are sorted and described
// once, and a list of survivors is kept side by side; a candidate is compared with those whose
// circle it meets, until one suppresses it. At the end the survivors of all classes are sorted.
// Memory is O(N).
#include <torch/csrc/stable/library.h>

#include <atomic>
#include <unordered_map>

#include "described_boxes.h"

namespace rsd2 {
namespace {

// A box by its score and number.
template <typename S>
struct Candidate {
  S score;
  int64_t number;

  // By decreasing score, equal scores by number.
  bool operator<(const Candidate& other) const {
    return score > other.score || (score == other.score && number < other.number);
  }
};

// Boxes grouped by class, in no order within a class; and where each class begins, with the end.
template <typename S>
struct Classes {
  std::vector<Candidate<S>> boxes;
  std::vector<int64_t> starts;

  Classes(const S* scores, const int64_t* class_of, int64_t size) : boxes(size) {
    // Classes count from 0 by first appearance; their order means nothing.
    std::unordered_map<int64_t, int64_t> known;
    std::vector<int64_t> place(size), sizes;
    int64_t num_nan = 0;
    for (int64_t i = 0; i < size; ++i) {
      num_nan += scores[i] != scores[i];
      const auto [found, is_new] = known.try_emplace(class_of[i], int64_t(sizes.size()));
      if (is_new) sizes.push_back(0);
      place[i] = found->second;
      ++sizes[place[i]];
    }
    RSD2_CHECK_VALUE(num_nan == 0, num_nan, " of ", size,
                     " scores are NaN; drop these boxes before NMS");
    starts.push_back(0);
    for (const int64_t members : sizes) starts.push_back(starts.back() + members);
    std::vector<int64_t> next = starts;
    for (int64_t i = 0; i < size; ++i) boxes[next[place[i]]++] = {scores[i], i};
  }
};

// Sorts the candidates [begin, end), all of one class, and moves the survivors to their front;
// returns where those end.
template <typename T, typename S>
Candidate<S>* keep_survivors(const T* raw, Candidate<S>* begin, Candidate<S>* end,
                             double threshold) {
  // Survivors are looked through in tiles, so that a suppressor among the first ends the search.
  constexpr int64_t kTile = 512, kTogether = 8;
  const PairKernels<T>& kernels = pair_kernels<T>();
  const double floor = greater(threshold, kNoOverlap);
  std::sort(begin, end);
  DescribedBoxes<T> boxes(end - begin), survivors(end - begin);
  for (int64_t i = 0; i < boxes.size(); ++i) boxes.set(i, describe_row(raw, begin[i].number));
  int64_t size = 0;
  int32_t found[kTile];
  double iou[kTogether];
  const auto is_suppressed = [&](int64_t candidate) {
    const RotatedBox& box = boxes.boxes()[candidate];
    for (int64_t first = 0; first < size; first += kTile) {
      const int64_t last = std::min(first + kTile, size);
      const int64_t count =
          kernels.near(boxes.circles(), candidate, survivors.circles(), first, last, found);
      for (int64_t k = 0; k < count; k += kTogether) {
        const int64_t some = std::min(kTogether, count - k);
        kernels.ious_of_others(box, survivors.boxes() + first, found + k, some, iou);
        if (std::any_of(iou, iou + some, [&](double value) { return value > floor; })) return true;
      }
    }
    return false;
  };
  for (int64_t i = 0; i < boxes.size(); ++i) {
    if (is_suppressed(i)) continue;
    begin[size] = begin[i];
    survivors.set(size++, boxes.boxes()[i]);
  }
  return begin + size;
}

// Numbers of the kept boxes by decreasing score.
template <typename T, typename S>
std::vector<Candidate<S>> kept_boxes(const T* raw, Classes<S>&& classes, double threshold) {
  const int64_t num_classes = classes.starts.size() - 1;
  Candidate<S>* const boxes = classes.boxes.data();
  std::vector<Candidate<S>*> ends(num_classes);
  // Threads take one class after the other, because their sizes may differ much.
  const bool is_small = int64_t(classes.boxes.size()) < kSerialBoxes;
  const int64_t num_threads =
      is_small ? 1 : std::min<int64_t>(torch::stable::get_num_threads(), num_classes);
  std::atomic<int64_t> next{0};
  torch::stable::parallel_for(0, num_threads, 1, [&](int64_t, int64_t) {
    for (int64_t i = next++; i < num_classes; i = next++) {
      ends[i] =
          keep_survivors(raw, boxes + classes.starts[i], boxes + classes.starts[i + 1], threshold);
    }
  });
  std::vector<Candidate<S>> kept;
  for (int64_t i = 0; i < num_classes; ++i) {
    kept.insert(kept.end(), boxes + classes.starts[i], ends[i]);
  }
  std::sort(kept.begin(), kept.end());
  return kept;
}

Tensor batched_nms_rotated(const Tensor& boxes, const Tensor& scores, const Tensor& idxs,
                           double iou_threshold) {
  check_boxes(boxes, boxes);
  const int64_t size = boxes.size(0);
  RSD2_CHECK_VALUE(scores.dim() == 1 && scores.size(0) == size && idxs.dim() == 1 &&
                       idxs.size(0) == size && idxs.scalar_type() == ScalarType::Long,
                   "scores and int64 idxs must be (", size, ",) like the boxes");
  const Tensor raw = dense(boxes), own_scores = dense(scores), own_idxs = dense(idxs);
  Tensor result;
  with_type(scores.scalar_type(), "batched_nms_rotated", [&](auto zero) {
    using scalar_t = decltype(zero);
    Classes<scalar_t> classes(own_scores.const_data_ptr<scalar_t>(),
                              own_idxs.const_data_ptr<int64_t>(), size);
    const auto kept =
        boxes.scalar_type() == ScalarType::Double
            ? kept_boxes(raw.const_data_ptr<double>(), std::move(classes), iou_threshold)
            : kept_boxes(raw.const_data_ptr<float>(), std::move(classes), iou_threshold);
    result = empty({int64_t(kept.size())}, ScalarType::Long);
    std::transform(kept.begin(), kept.end(), result.mutable_data_ptr<int64_t>(),
                   [](const auto& box) { return box.number; });
  });
  return result;
}

}  // namespace
}  // namespace rsd2

STABLE_TORCH_LIBRARY_IMPL(rsd2, CPU, m) {
  m.impl("batched_nms_rotated", TORCH_BOX(&rsd2::batched_nms_rotated));
}
