// Exact IoU of two rotated boxes, for the host and for CUDA devices: no clipping, no sorting, no
// branches. rsd2/ops/box_iou_rotated.py explains the method and is the reference.
//
// The pair formula runs in double whatever the tensors are: a float32 box is exact in double, and
// only the few pairs that circles do not tell apart are ever computed. Every product goes through
// mul(), which is never contracted into a fused multiply-add, and every sine is a polynomial of our
// own. So the same operations in the same order give the same bits on every processor and device
// and in the reference, and a decision like IoU > threshold is one decision.
#pragma once

#include <cmath>

#include "trigonometry.h"

namespace rsd2 {

constexpr double kRadians = 0.017453292519943295;  // one degree
// Beyond these magnitudes areas overflow or vanish in double; such boxes count as invalid.
constexpr double kLargest = 1e100, kSmallest = 1e-100;
// Beyond these the same happens in float, so that circles are compared in double.
constexpr double kFloatLargest = 1e15, kFloatSmallest = 1e-15;
// Boxes that merely touch may get an IoU of some 1e-17 by rounding, which is no overlap.
constexpr double kNoOverlap = 1e-12;

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
RSD2_HOST_DEVICE void small_sincos(double radians, double& sine, double& cosine) {
  const double z = mul(radians, radians);
  double s = mul(z, -7.647163731819816e-13) + 1.6059043836821613e-10;  // -1 / 15!, 1 / 13!
  s = mul(s, z) + -2.505210838544172e-08;
  s = mul(s, z) + 2.7557319223985893e-06;
  s = mul(s, z) + -0.0001984126984126984;
  s = mul(s, z) + 0.008333333333333333;
  s = mul(s, z) + -0.16666666666666666;
  double c = mul(z, 4.779477332387385e-14) + -1.1470745597729725e-11;  // 1 / 16!, -1 / 14!
  c = mul(c, z) + 2.08767569878681e-09;
  c = mul(c, z) + -2.755731922398589e-07;
  c = mul(c, z) + 2.48015873015873e-05;
  c = mul(c, z) + -0.001388888888888889;
  c = mul(c, z) + 0.041666666666666664;
  sine = radians + mul(mul(radians, z), s);
  cosine = (1.0 - mul(0.5, z)) + mul(mul(z, z), c);
}

// What the pair formula needs of one box. A quarter turn is a swap of the sides, so that the angle
// is within 45 degrees; both are exact.
struct RotatedBox {
  double cx, cy;
  double half_w, half_h;
  double rest;          // angle in degrees, [-45, 45]
  double sine, cosine;  // of `rest`
  double radius;    // of the circumscribed circle; NaN if the box is invalid, so that it meets none
  bool fits_float;  // magnitudes are such that its circle may be compared in float
};

// Describe a box (cx, cy, w, h in pixels, angle in degrees counter-clockwise on screen).
RSD2_HOST_DEVICE RotatedBox describe(double cx, double cy, double w, double h, double angle) {
  const bool is_valid = fabs(cx) < kLargest && fabs(cy) < kLargest && w < kLargest &&
                        h < kLargest && fabs(angle) < kLargest && w > kSmallest && h > kSmallest;
  RotatedBox box{0, 0, 0.5, 0.5, 0, 0, 1, NAN, true};
  if (!is_valid) return box;
  int turns;
  split_quarter_turns(angle, turns, box.rest);
  const bool is_odd = (turns & 1) != 0;
  box.cx = cx;
  box.cy = cy;
  box.half_w = (is_odd ? h : w) / 2;
  box.half_h = (is_odd ? w : h) / 2;
  small_sincos(mul(box.rest, kRadians), box.sine, box.cosine);
  box.radius = sqrt(mul(box.half_w, box.half_w) + mul(box.half_h, box.half_h));
  box.fits_float = fabs(cx) < kFloatLargest && fabs(cy) < kFloatLargest && w < kFloatLargest &&
                   h < kFloatLargest && w > kFloatSmallest && h > kFloatSmallest;
  return box;
}

// Integral of clamp(y, -half_h, half_h) over the part of an edge with x in [-half_w, half_w],
// twice. The edge runs from (x, y) to (next_x, next_y).
RSD2_HOST_DEVICE double edge_integral(double x, double y, double next_x, double next_y,
                                      double half_w, double half_h) {
  const double run = next_x - x, rise = next_y - y;
  const double x0 = clamp(x, half_w), x1 = clamp(next_x, half_w);
  // Shares of the edge that were cut off at its two ends; of an upright one, x0 = x1, and the
  // result is 0 whatever they are.
  const double safe_run = run == 0.0 ? 1.0 : run;
  const double y0 = y + mul((x0 - x) / safe_run, rise);
  const double y1 = next_y - mul((next_x - x1) / safe_run, rise);
  const double c0 = clamp(y0, half_h), c1 = clamp(y1, half_h);
  // Without a difference c0 = c1, and the quotient is 0 whatever it is divided by.
  const double between = y1 - y0;
  const double bend = mul(c1 - c0, (y0 - c0) + (y1 - c1)) / (between == 0.0 ? 1.0 : between);
  return mul(x1 - x0, (c0 + c1) + bend);
}

// IoU of two boxes, valid or not, by the formula alone.
RSD2_HOST_DEVICE double iou_of_valid(const RotatedBox& one, const RotatedBox& two) {
  // The second box's angle in the frame of the first: rests of about +45 and -45 are a quarter turn
  // apart, so both are shifted towards zero before the subtraction (exact there), and equal angles
  // have a difference of exactly 0.
  const double gap = two.rest - one.rest;
  const double shift = gap > 45.0 ? 45.0 : (gap < -45.0 ? -45.0 : 0.0);
  const double angle = (two.rest - shift) - (one.rest + shift);
  const double w = shift == 0.0 ? two.half_w : two.half_h;
  const double h = shift == 0.0 ? two.half_h : two.half_w;
  double sine, cosine;
  small_sincos(mul(angle, kRadians), sine, cosine);
  const double dx = two.cx - one.cx, dy = two.cy - one.cy;
  const double cx = mul(one.cosine, dx) - mul(one.sine, dy);
  const double cy = mul(one.sine, dx) + mul(one.cosine, dy);
  const double wx = mul(cosine, w), wy = mul(sine, w), hx = mul(sine, h), hy = mul(cosine, h);
  const double xa = cx + (-wx - hx), xb = cx + (wx - hx), xc = cx + (wx + hx), xd = cx + (hx - wx);
  const double ya = cy + (wy - hy), yb = cy + (-wy - hy), yc = cy + (hy - wy), yd = cy + (wy + hy);
  double sum = edge_integral(xa, ya, xb, yb, one.half_w, one.half_h);
  sum = sum + edge_integral(xb, yb, xc, yc, one.half_w, one.half_h);
  sum = sum + edge_integral(xc, yc, xd, yd, one.half_w, one.half_h);
  sum = sum + edge_integral(xd, yd, xa, ya, one.half_w, one.half_h);
  // Corners run clockwise on a screen whose y points down, which makes the integral negative.
  const double area1 = mul(4.0, mul(one.half_w, one.half_h));
  const double area2 = mul(4.0, mul(two.half_w, two.half_h));
  const double overlap = lesser(greater(mul(-0.5, sum), 0.0), lesser(area1, area2));
  return lesser(overlap / ((area1 + area2) - overlap), 1.0);
}

// Tell whether circumscribed circles may meet; never false for boxes that overlap.
template <typename T>
RSD2_HOST_DEVICE bool circles_meet(T dx, T dy, T radius1, T radius2) {
  const T reach = mul(radius1 + radius2, T(1) + T(2e-6));
  return mul(dx, dx) + mul(dy, dy) <= mul(reach, reach);
}

RSD2_HOST_DEVICE bool meet(const RotatedBox& one, const RotatedBox& two) {
  return circles_meet(two.cx - one.cx, two.cy - one.cy, one.radius, two.radius);
}

// IoU, computed in double and rounded to T; 0 if either box is invalid or their circles are apart.
template <typename T>
RSD2_HOST_DEVICE T iou_of(const RotatedBox& one, const RotatedBox& two) {
  return meet(one, two) ? static_cast<T>(iou_of_valid(one, two)) : T(0);
}

// Tell whether the IoU exceeds a threshold: the decision of every implementation. `one` is the kept
// box or the row, because rounding depends on the order, of very thin boxes by more than the last
// digits.
RSD2_HOST_DEVICE bool exceeds(const RotatedBox& one, const RotatedBox& two, double threshold) {
  return iou_of<double>(one, two) > greater(threshold, kNoOverlap);
}

}  // namespace rsd2
