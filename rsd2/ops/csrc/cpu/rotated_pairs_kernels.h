// Bodies of PairKernels, included once per instruction set between the borders of isa.h; the
// includer defines RSD2_ISA_NAMESPACE. No guard: that is its purpose.

namespace rsd2 {
namespace RSD2_ISA_NAMESPACE {
namespace {

template <typename T>
int64_t near(const BoxColumns<T>& one, int64_t row, const BoxColumns<T>& two, int64_t first,
             int64_t last, int32_t* found) {
  const T cx = one.cx[row], cy = one.cy[row], radius = one.radius[row];
  const T *all_cx = two.cx + first, *all_cy = two.cy + first, *all_radius = two.radius + first;
  const int64_t size = last - first;
  constexpr int64_t kBlock = 64;
  int64_t count = 0;
  for (int64_t begin = 0; begin < size; begin += kBlock) {
    uint8_t meets[kBlock] = {};
    const int64_t length = size - begin < kBlock ? size - begin : kBlock;
    const T *x = all_cx + begin, *y = all_cy + begin, *r = all_radius + begin;
    if (length == kBlock) {
      for (int64_t k = 0; k < kBlock; ++k) {
        meets[k] = circles_meet<T>(x[k] - cx, y[k] - cy, radius, r[k]);
      }
    } else {
      for (int64_t k = 0; k < length; ++k) {
        meets[k] = circles_meet<T>(x[k] - cx, y[k] - cy, radius, r[k]);
      }
    }
    // Nearly all groups of eight are empty.
    for (int64_t group = 0; group < kBlock; group += 8) {
      uint64_t any;
      __builtin_memcpy(&any, meets + group, 8);
      if (any == 0) continue;
      for (int64_t k = group; k < group + 8; ++k) {
        found[count] = static_cast<int32_t>(begin + k);
        count += meets[k];
      }
    }
  }
  return count;
}

template <typename T>
void ious(const BoxColumns<T>& one, int64_t row, const BoxColumns<T>& two, int64_t first,
          const int32_t* __restrict found, int64_t count, T* __restrict iou) {
  const double cx = one.cx[row], cy = one.cy[row];
  const double sine = one.sine[row], cosine = one.cosine[row];
  const T half_w = one.half_w[row], half_h = one.half_h[row], rest = one.rest[row];
  const T *x = two.cx + first, *y = two.cy + first, *w = two.half_w + first;
  const T *h = two.half_h + first, *angle = two.rest + first;
#pragma GCC ivdep
  for (int64_t k = 0; k < count; ++k) {
    const int32_t j = found[k];
    iou[k] = iou_of_pair<T>(double(x[j]) - cx, double(y[j]) - cy, sine, cosine, half_w, half_h,
                            rest, w[j], h[j], angle[j]);
  }
}

template <typename T>
void paired(const BoxColumns<T>& one, const BoxColumns<T>& two, int64_t first, int64_t last,
            T* __restrict iou) {
#pragma GCC ivdep
  for (int64_t i = first; i < last; ++i) {
    const double dx = double(two.cx[i]) - double(one.cx[i]);
    const double dy = double(two.cy[i]) - double(one.cy[i]);
    const T value = iou_of_pair<T>(dx, dy, one.sine[i], one.cosine[i], one.half_w[i], one.half_h[i],
                                   one.rest[i], two.half_w[i], two.half_h[i], two.rest[i]);
    const bool meet =
        circles_meet<T>(two.cx[i] - one.cx[i], two.cy[i] - one.cy[i], one.radius[i], two.radius[i]);
    iou[i - first] = meet ? value : T(0);
  }
}

}  // namespace

template <typename T>
PairKernels<T> kernels() {
  return {&near<T>, &ious<T>, &paired<T>};
}

template PairKernels<float> kernels<float>();
template PairKernels<double> kernels<double>();

}  // namespace RSD2_ISA_NAMESPACE
}  // namespace rsd2
