// One function, compiled for several instruction sets, of which the first call picks one: users get
// wide vectors without building for their own machine. For kernels that are functions of a few
// lines around always inlined ones; rotated_pairs_*.cpp do the same for a whole file.
#pragma once

#include "isa.h"

#if RSD2_HAS_X86_TARGETS
#define RSD2_TARGET_AVX2 __attribute__((target("avx2,fma")))
#define RSD2_TARGET_AVX512 __attribute__((target("avx2,fma,avx512f,avx512bw,avx512dq,avx512vl")))

#define RSD2_VERSION_OF(name, target, bytes, parameters, ...) \
  template <typename T>                                       \
  target void name parameters {                               \
    constexpr int kVectorBytes = bytes;                       \
    __VA_ARGS__                                               \
  }

// Defines `template <typename T> void name parameters`, whose body is the rest, for every set; the
// body may use kVectorBytes, the size of the set's registers.
#define RSD2_VERSIONS(name, parameters, arguments, ...)                           \
  RSD2_VERSION_OF(name##_default, , 16, parameters, __VA_ARGS__)                  \
  RSD2_VERSION_OF(name##_avx2, RSD2_TARGET_AVX2, 32, parameters, __VA_ARGS__)     \
  RSD2_VERSION_OF(name##_avx512, RSD2_TARGET_AVX512, 64, parameters, __VA_ARGS__) \
  template <typename T>                                                           \
  void name parameters {                                                          \
    switch (best_isa()) {                                                         \
      case Isa::kAvx512:                                                          \
        return name##_avx512<T> arguments;                                        \
      case Isa::kAvx2:                                                            \
        return name##_avx2<T> arguments;                                          \
      default:                                                                    \
        return name##_default<T> arguments;                                       \
    }                                                                             \
  }
#else
#define RSD2_VERSIONS(name, parameters, arguments, ...) \
  template <typename T>                                 \
  void name parameters {                                \
    constexpr int kVectorBytes = 16;                    \
    __VA_ARGS__                                         \
  }
#endif
