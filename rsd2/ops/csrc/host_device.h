// Marks the functions that host compilers and nvcc both compile: the geometry of a kernel is
// written once, so that the tests of the CPU kernels exercise the lines that a GPU runs.
#pragma once

#if defined(__CUDACC__) || defined(__HIPCC__)
#define RSD2_HOST_DEVICE __host__ __device__ __forceinline__
#elif defined(__GNUC__) || defined(__clang__)
// Always inlined, because a function takes the instruction set of the one that it is inlined into.
#define RSD2_HOST_DEVICE inline __attribute__((always_inline))
#else
#define RSD2_HOST_DEVICE inline
#endif
