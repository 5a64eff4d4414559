// Everything that the CPU kernels take from torch: its stable C++ interface and nothing else, so
// that one library loads into every torch from kOldestTorch of setup.py on.
//
// Each call crosses a C function, and most of them the dispatcher too, so that a conversion that
// has nothing to do is left out here.
#pragma once

#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/core/ScalarType.h>

#include <cstdint>
#include <sstream>
#include <stdexcept>
#include <string>

namespace rsd2 {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;
using Sizes = torch::headeronly::IntHeaderOnlyArrayRef;

inline std::ostream& operator<<(std::ostream& out, Sizes sizes) {
  out << '[';
  for (size_t i = 0; i < sizes.size(); ++i) out << (i > 0 ? ", " : "") << sizes[i];
  return out << ']';
}

template <typename... Parts>
std::string joined(const Parts&... parts) {
  std::ostringstream text;
  (text << ... << parts);
  return text.str();
}

// Refuses what a caller passed: Python gets std::invalid_argument as ValueError. A macro, so that
// the parts of the message are evaluated only for a fault.
#define RSD2_CHECK_VALUE(condition, ...)                                \
  do {                                                                  \
    if (!(condition)) throw std::invalid_argument(joined(__VA_ARGS__)); \
  } while (false)

inline Tensor empty(Sizes sizes, ScalarType dtype) { return torch::stable::empty(sizes, dtype); }

inline Tensor full(Sizes sizes, double value, ScalarType dtype) {
  return torch::stable::full(sizes, value, dtype);
}

inline Tensor zeros(Sizes sizes, ScalarType dtype) { return full(sizes, 0, dtype); }

inline Tensor dense(const Tensor& tensor) {
  return tensor.is_contiguous() ? tensor : torch::stable::contiguous(tensor);
}

inline Tensor converted(const Tensor& tensor, ScalarType dtype) {
  return tensor.scalar_type() == dtype ? tensor : torch::stable::to(tensor, dtype);
}

// The dtype that a tensor is computed in: double for double, else float.
inline ScalarType computed_in(const Tensor& tensor, const char* name) {
  const ScalarType dtype = tensor.scalar_type();
  RSD2_CHECK_VALUE(dtype == ScalarType::Double || dtype == ScalarType::Float ||
                       dtype == ScalarType::Half || dtype == ScalarType::BFloat16,
                   name, " must be floating, of 16, 32 or 64 bits, got ", dtype);
  return dtype == ScalarType::Double ? ScalarType::Double : ScalarType::Float;
}

// Calls body(T()) with the type of the numbers, float or double.
template <typename Body>
void with_type(ScalarType dtype, const char* name, const Body& body) {
  STD_TORCH_CHECK(dtype == ScalarType::Float || dtype == ScalarType::Double, '"', name,
                  "\" not implemented for '", torch::headeronly::toString(dtype), "'");
  if (dtype == ScalarType::Double)
    body(double());
  else
    body(float());
}

}  // namespace rsd2
