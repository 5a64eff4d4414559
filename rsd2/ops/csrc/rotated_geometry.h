// Exact IoU of two rotated boxes, for the host and for CUDA devices: no clipping, no sorting, no
// branches. rsd2/ops/box_iou_rotated.py explains the method and is the reference.
//
// Every product goes through mul(), which is never contracted into a fused multiply-add, and every
// sine is a polynomial of our own. In double the same operations in the same order therefore give
// the same bits on every processor and device, and in the reference, so that a decision like
// IoU > threshold is one decision.
#pragma once

#include <cmath>
#include <cstdint>
#include <type_traits>

#if defined(__CUDACC__)
#define RSD2_HOST_DEVICE __host__ __device__ __forceinline__
#else
#define RSD2_HOST_DEVICE inline __attribute__((always_inline))
#endif

namespace rsd2 {

constexpr double kRadians = 0.017453292519943295;  // one degree
// Beyond these magnitudes areas overflow or vanish in double; such boxes count as invalid.
constexpr double kLargest = 1e100, kSmallest = 1e-100;
// Beyond these the same happens in float; such pairs are computed in double.
constexpr double kFloatLargest = 1e15, kFloatSmallest = 1e-15;
// Boxes that merely touch may get an IoU of some 1e-17 by rounding, which is no overlap.
constexpr double kNoOverlap = 1e-12;
// A float IoU this close to a threshold does not decide; the bound on its error is the same.
constexpr double kUndecided = 2e-5;

// a * b, rounded by itself. The host is compiled with -ffp-contract=off.
RSD2_HOST_DEVICE float mul(float a, float b) {
#if defined(__CUDA_ARCH__)
  return __fmul_rn(a, b);
#else
  return a * b;
#endif
}

RSD2_HOST_DEVICE double mul(double a, double b) {
#if defined(__CUDA_ARCH__)
  return __dmul_rn(a, b);
#else
  return a * b;
#endif
}

template <typename T>
RSD2_HOST_DEVICE T lesser(T a, T b) {
  return a < b ? a : b;
}

template <typename T>
RSD2_HOST_DEVICE T greater(T a, T b) {
  return a > b ? a : b;
}

template <typename T>
RSD2_HOST_DEVICE T clamp(T value, T limit) {
  return lesser(greater(value, -limit), limit);
}

// Sine and cosine of an angle in [-pi / 4, pi / 4], by Taylor's series, to a unit in the last
// place.
template <typename T>
RSD2_HOST_DEVICE void small_sincos(T radians, T& sine, T& cosine) {
  const T z = mul(radians, radians);
  T s = T(2.7557319223985893e-06), c = T(-2.7557319223985888e-07);  // 1 / 9!, -1 / 10!
  if (std::is_same<T, double>::value) {
    s = T(-7.6471637318198164e-13);              // -1 / 15!
    s = mul(s, z) + T(1.6059043836821613e-10);   // 1 / 13!
    s = mul(s, z) + T(-2.5052108385441720e-08);  // -1 / 11!
    s = mul(s, z) + T(2.7557319223985893e-06);
    c = T(4.7794773323873853e-14);               // 1 / 16!
    c = mul(c, z) + T(-1.1470745597729725e-11);  // -1 / 14!
    c = mul(c, z) + T(2.0876756987868100e-09);   // 1 / 12!
    c = mul(c, z) + T(-2.7557319223985888e-07);
  }
  s = mul(s, z) + T(-1.9841269841269841e-04);  // -1 / 7!
  s = mul(s, z) + T(8.3333333333333332e-03);   // 1 / 5!
  s = mul(s, z) + T(-1.6666666666666666e-01);  // -1 / 3!
  c = mul(c, z) + T(2.4801587301587302e-05);   // 1 / 8!
  c = mul(c, z) + T(-1.3888888888888889e-03);  // -1 / 6!
  c = mul(c, z) + T(4.1666666666666664e-02);   // 1 / 4!
  sine = radians + mul(mul(radians, z), s);
  cosine = (T(1) - mul(T(0.5), z)) + mul(mul(z, z), c);
}

// What the pair formula needs of one box. A quarter turn is a swap of the sides, so that the angle
// is within 45 degrees; both are exact.
struct RotatedBox {
  double cx, cy;
  double half_w, half_h;
  double rest;          // angle in degrees, [-45, 45]
  double sine, cosine;  // of `rest`
  double radius;    // of the circumscribed circle; NaN if the box is invalid, so that it meets none
  bool fits_float;  // magnitudes are such that float arithmetic is safe
};

// Describe a box (cx, cy, w, h in pixels, angle in degrees counter-clockwise on screen).
RSD2_HOST_DEVICE RotatedBox describe(double cx, double cy, double w, double h, double angle) {
  const bool is_valid = fabs(cx) < kLargest && fabs(cy) < kLargest && w < kLargest &&
                        h < kLargest && fabs(angle) < kLargest && w > kSmallest && h > kSmallest;
  RotatedBox box{0, 0, 0.5, 0.5, 0, 0, 1, NAN, true};
  if (!is_valid) return box;
  const double within_turn = fmod(angle, 360.0);
  const double turns = nearbyint(within_turn / 90.0);
  const bool is_odd = (static_cast<int>(turns) & 1) != 0;
  box.cx = cx;
  box.cy = cy;
  box.half_w = (is_odd ? h : w) / 2;
  box.half_h = (is_odd ? w : h) / 2;
  box.rest = within_turn - mul(90.0, turns);
  small_sincos(mul(box.rest, kRadians), box.sine, box.cosine);
  box.radius = sqrt(mul(box.half_w, box.half_w) + mul(box.half_h, box.half_h));
  box.fits_float = fabs(cx) < kFloatLargest && fabs(cy) < kFloatLargest && w < kFloatLargest &&
                   h < kFloatLargest && w > kFloatSmallest && h > kFloatSmallest;
  return box;
}

// Integral of clamp(y, -half_h, half_h) over the part of an edge with x in [-half_w, half_w],
// twice. The edge runs from (x, y) to (next_x, next_y); slope: 0 if it is upright.
template <typename T>
RSD2_HOST_DEVICE T edge_integral(T x, T y, T next_x, T next_y, T slope, T half_w, T half_h) {
  const T x0 = clamp(x, half_w), x1 = clamp(next_x, half_w);
  const T y0 = y + mul(x0 - x, slope), y1 = next_y - mul(next_x - x1, slope);
  const T c0 = clamp(y0, half_h), c1 = clamp(y1, half_h);
  const T rise = y1 - y0;
  // Without a rise c0 = c1, and the quotient is 0 whatever it is divided by.
  const T bend = mul(c1 - c0, (y0 - c0) + (y1 - c1)) / (rise == T(0) ? T(1) : rise);
  return mul(x1 - x0, (c0 + c1) + bend);
}

// IoU of two valid boxes from their centre difference in double, the first one's angle (also as
// double sine and cosine), and the sides and rests of both.
template <typename T>
RSD2_HOST_DEVICE T iou_of_pair(double dx, double dy, double sine1, double cosine1, T half_w1,
                               T half_h1, T rest1, T half_w2, T half_h2, T rest2) {
  // The second box's angle in the frame of the first: rests of about +45 and -45 are a quarter turn
  // apart, so both are shifted towards zero before the subtraction (exact there), and equal angles
  // have a difference of exactly 0.
  const T gap = rest2 - rest1;
  const T shift = gap > T(45) ? T(45) : (gap < T(-45) ? T(-45) : T(0));
  const T angle = (rest2 - shift) - (rest1 + shift);
  const T w2 = shift == T(0) ? half_w2 : half_h2, h2 = shift == T(0) ? half_h2 : half_w2;
  T sine, cosine;
  small_sincos(mul(angle, T(kRadians)), sine, cosine);
  const T cx = static_cast<T>(mul(cosine1, dx) - mul(sine1, dy));
  const T cy = static_cast<T>(mul(sine1, dx) + mul(cosine1, dy));
  const T wx = mul(cosine, w2), wy = mul(sine, w2), hx = mul(sine, h2), hy = mul(cosine, h2);
  const T xa = cx + (-wx - hx), xb = cx + (wx - hx), xc = cx + (wx + hx), xd = cx + (hx - wx);
  const T ya = cy + (wy - hy), yb = cy + (-wy - hy), yc = cy + (hy - wy), yd = cy + (wy + hy);
  const T flat = -sine / cosine;  // slope of ab and cd
  const T steep = sine == T(0) ? T(0) : cosine / (sine == T(0) ? T(1) : sine);  // of bc and da
  T sum = edge_integral(xa, ya, xb, yb, flat, half_w1, half_h1);
  sum = sum + edge_integral(xb, yb, xc, yc, steep, half_w1, half_h1);
  sum = sum + edge_integral(xc, yc, xd, yd, flat, half_w1, half_h1);
  sum = sum + edge_integral(xd, yd, xa, ya, steep, half_w1, half_h1);
  // Corners run clockwise on a screen whose y points down, which makes the integral negative.
  const T area1 = mul(T(4), mul(half_w1, half_h1)), area2 = mul(T(4), mul(half_w2, half_h2));
  const T overlap = lesser(greater(mul(T(-0.5), sum), T(0)), lesser(area1, area2));
  return lesser(overlap / ((area1 + area2) - overlap), T(1));
}

// Tell whether circumscribed circles may meet; never false for boxes that overlap.
template <typename T>
RSD2_HOST_DEVICE bool circles_meet(T dx, T dy, T radius1, T radius2) {
  const T reach = mul(radius1 + radius2, T(1) + T(2e-6));
  return mul(dx, dx) + mul(dy, dy) <= mul(reach, reach);
}

// IoU in the precision T; 0 if either box is invalid or their circles are apart.
template <typename T>
RSD2_HOST_DEVICE T iou_of(const RotatedBox& one, const RotatedBox& two) {
  const double dx = two.cx - one.cx, dy = two.cy - one.cy;
  if (!circles_meet(dx, dy, one.radius, two.radius)) return T(0);
  if (std::is_same<T, float>::value && one.fits_float && two.fits_float) {
    return iou_of_pair<T>(dx, dy, one.sine, one.cosine, T(one.half_w), T(one.half_h), T(one.rest),
                          T(two.half_w), T(two.half_h), T(two.rest));
  }
  return static_cast<T>(iou_of_pair<double>(dx, dy, one.sine, one.cosine, one.half_w, one.half_h,
                                            one.rest, two.half_w, two.half_h, two.rest));
}

// Tell whether the IoU exceeds a threshold: the decision of every implementation. `one` is the kept
// box or the row, because the last bit of an IoU depends on the order.
RSD2_HOST_DEVICE bool exceeds(const RotatedBox& one, const RotatedBox& two, double threshold) {
  return iou_of<double>(one, two) > greater(threshold, kNoOverlap);
}

// The same, given the IoU as computed in the precision T.
template <typename T>
RSD2_HOST_DEVICE bool exceeds(T iou, const RotatedBox& one, const RotatedBox& two,
                              double threshold) {
  const double floor = greater(threshold, kNoOverlap);
  if (std::is_same<T, float>::value && fabs(double(iou) - floor) <= kUndecided) {
    return exceeds(one, two, threshold);
  }
  return double(iou) > floor;
}

}  // namespace rsd2
