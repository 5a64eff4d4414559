// Function multiversioning without -march: one source file per instruction set, the choice at run
// time. A kernel file is included by rotated_pairs_{default,avx2,avx512}.cpp, say, between
//
//   RSD2_BEGIN_AVX2
//   #include "..."
//   RSD2_END_TARGET
//
// Everything else (standard headers above all) must be included before, or its inline functions
// would be compiled for the wide set too and the linker might take them for everybody. For the same
// reason the kernels live in an unnamed namespace and what they call is RSD2_ALWAYS_INLINE.
#pragma once

#if (defined(__x86_64__) || defined(__amd64__)) && (defined(__GNUC__) || defined(__clang__))
#define RSD2_HAS_X86_TARGETS 1
#else
#define RSD2_HAS_X86_TARGETS 0
#endif

#define RSD2_PRAGMA(text) _Pragma(#text)
#if defined(__clang__)
#define RSD2_BEGIN_TARGET(features) \
  RSD2_PRAGMA(clang attribute push(__attribute__((target(features))), apply_to = function))
#define RSD2_END_TARGET RSD2_PRAGMA(clang attribute pop)
#define RSD2_INDEPENDENT RSD2_PRAGMA(clang loop vectorize(assume_safety))
#define RSD2_WIDEST ""  // a choice that clang has for whole files only
#else
#define RSD2_BEGIN_TARGET(features) RSD2_PRAGMA(GCC push_options) RSD2_PRAGMA(GCC target(features))
#define RSD2_END_TARGET RSD2_PRAGMA(GCC pop_options)
#define RSD2_INDEPENDENT RSD2_PRAGMA(GCC ivdep)  // iterations of the loop that follows
#define RSD2_WIDEST ",prefer-vector-width=512"
#endif
#define RSD2_BEGIN_AVX2 RSD2_BEGIN_TARGET("avx2,fma")
#define RSD2_BEGIN_AVX512 \
  RSD2_BEGIN_TARGET("avx2,fma,avx512f,avx512bw,avx512dq,avx512vl" RSD2_WIDEST)

namespace rsd2 {

enum class Isa { kDefault, kAvx2, kAvx512 };

// The widest set of which this processor and this build have kernels.
// RSD2_ISA=default, avx2 in the environment, read once, lowers it.
Isa best_isa();

// Its name: "default", "avx2", "avx512".
const char* isa_name(Isa isa);

}  // namespace rsd2
