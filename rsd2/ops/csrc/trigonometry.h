// Sine and cosine of angles in degrees, exact at the quarter turns: rsd2/ops/trigonometry.py for
// host and device.
#pragma once

#include <cmath>

#include "host_device.h"

namespace rsd2 {

// Writes a finite angle as 90 * turns + rest, modulo 360, without rounding: rest in [-45, 45],
// turns in [-4, 4].
template <typename T>
RSD2_HOST_DEVICE void split_quarter_turns(T angle, int& turns, T& rest) {
  using std::fmod;
  using std::rint;
  const T within_turn = fmod(angle, T(360));
  const T whole = rint(within_turn / T(90));
  turns = static_cast<int>(whole);
  rest = within_turn - T(90) * whole;
}

// Turns the unit vector (cosine, sine) by whole quarter turns, exactly.
template <typename T>
RSD2_HOST_DEVICE void rotate_quarter_turns(int turns, T& cosine, T& sine) {
  if (turns & 1) {
    const T swapped = cosine;
    cosine = -sine;
    sine = swapped;
  }
  if (turns & 2) {
    cosine = -cosine;
    sine = -sine;
  }
}

// Sine and cosine of a finite angle in degrees; exactly 0 and +-1 at multiples of 90.
template <typename T>
RSD2_HOST_DEVICE void sincos_degrees(T angle, T& sine, T& cosine) {
  using std::cos;
  using std::sin;
  int turns;
  T rest;
  split_quarter_turns(angle, turns, rest);
  const T radians = rest * T(3.14159265358979323846 / 180.0);
  cosine = cos(radians);
  sine = sin(radians);
  rotate_quarter_turns(turns, cosine, sine);
}

}  // namespace rsd2
