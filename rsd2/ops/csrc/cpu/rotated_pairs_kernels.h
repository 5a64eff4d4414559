// Bodies of PairKernels, included once per instruction set between the borders of isa.h; the
// includer defines RSD2_ISA_NAMESPACE. No guard: that is its purpose.

namespace rsd2 {
namespace RSD2_ISA_NAMESPACE {
namespace {

// Boxes looked at together; as many as a mask has bits.
constexpr int64_t kBlock = 64;
// Boxes computed at a time: a multiple of the lanes of every instruction set.
constexpr int64_t kLanes = 8;

// Bit k is set where byte k, 0 or 1, is.
uint64_t bits_of(const uint8_t (&bytes)[64]) {
  uint64_t bits = 0;
#if defined(__SSE2__)
  for (int k = 0; k < 64; k += 16) {
    const __m128i part = _mm_load_si128(reinterpret_cast<const __m128i*>(bytes + k));
    const uint64_t sixteen = _mm_movemask_epi8(_mm_slli_epi16(part, 7));
    bits |= sixteen << k;
  }
#else
  for (int k = 0; k < 64; ++k) bits |= uint64_t(bytes[k]) << k;
#endif
  return bits;
}

template <typename T>
int64_t near(const Circles<T>& one, int64_t row, const Circles<T>& two, int64_t first, int64_t last,
             int32_t* found) {
  const T cx = one.cx[row], cy = one.cy[row], radius = one.radius[row];
  const T *all_cx = two.cx + first, *all_cy = two.cy + first, *all_radius = two.radius + first;
  const int64_t size = last - first;
  int64_t count = 0;
  for (int64_t begin = 0; begin < size; begin += kBlock) {
    alignas(kBlock) uint8_t meets[kBlock] = {};
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
    for (uint64_t bits = bits_of(meets); bits != 0; bits &= bits - 1) {
      found[count++] = static_cast<int32_t>(begin + __builtin_ctzll(bits));
    }
  }
  return count;
}

// Fields of boxes side by side, which is faster to fill than vectors are to gather.
struct Block {
  double cx[kBlock], cy[kBlock], half_w[kBlock], half_h[kBlock];
  double rest[kBlock], sine[kBlock], cosine[kBlock], radius[kBlock];

  RSD2_HOST_DEVICE void set(int64_t k, const RotatedBox& box) {
    cx[k] = box.cx;
    cy[k] = box.cy;
    half_w[k] = box.half_w;
    half_h[k] = box.half_h;
    rest[k] = box.rest;
    sine[k] = box.sine;
    cosine[k] = box.cosine;
    radius[k] = box.radius;
  }
  RSD2_HOST_DEVICE RotatedBox get(int64_t k) const {
    return {cx[k], cy[k], half_w[k], half_h[k], rest[k], sine[k], cosine[k], radius[k], true};
  }
};

template <bool kBoxIsFirst>
void ious(const RotatedBox& box, const RotatedBox* others, const int32_t* found, int64_t count,
          double* iou) {
  Block block;
  double result[kBlock];
  const RotatedBox own = box;
  for (int64_t begin = 0; begin < count; begin += kBlock) {
    const int64_t length = count - begin < kBlock ? count - begin : kBlock;
    // Whole vectors, filled up with the last box: faster than a remainder one by one.
    const int64_t padded = (length + kLanes - 1) / kLanes * kLanes;
    for (int64_t k = 0; k < padded; ++k) {
      block.set(k, others[found[begin + (k < length ? k : length - 1)]]);
    }
    RSD2_INDEPENDENT
    for (int64_t k = 0; k < padded; ++k) {
      const RotatedBox other = block.get(k);
      result[k] = kBoxIsFirst ? iou_of_valid(own, other) : iou_of_valid(other, own);
    }
    for (int64_t k = 0; k < padded; ++k) {
      if (!meet(own, block.get(k))) result[k] = 0;
    }
    __builtin_memcpy(iou + begin, result, length * sizeof(double));
  }
}

void paired(const RotatedBox* one, const RotatedBox* two, int64_t count, double* iou) {
  Block block1, block2;
  double result[kBlock];
  for (int64_t begin = 0; begin < count; begin += kBlock) {
    const int64_t length = count - begin < kBlock ? count - begin : kBlock;
    for (int64_t k = 0; k < kBlock; ++k) {
      const int64_t i = begin + (k < length ? k : length - 1);
      block1.set(k, one[i]);
      block2.set(k, two[i]);
    }
    RSD2_INDEPENDENT
    for (int64_t k = 0; k < kBlock; ++k) result[k] = iou_of_valid(block1.get(k), block2.get(k));
    for (int64_t k = 0; k < kBlock; ++k) {
      if (!meet(block1.get(k), block2.get(k))) result[k] = 0;
    }
    __builtin_memcpy(iou + begin, result, length * sizeof(double));
  }
}

}  // namespace

template <typename T>
PairKernels<T> kernels() {
  return {&near<T>, &ious<true>, &ious<false>, &paired};
}

template PairKernels<float> kernels<float>();
template PairKernels<double> kernels<double>();

}  // namespace RSD2_ISA_NAMESPACE
}  // namespace rsd2
