// One function, compiled for several instruction sets, of which the loader picks one: users get
// wide vectors without building for their own machine.
#pragma once

// A function so marked must not be a template; what it calls takes part if it is always inlined.
// Features are named, not processors ("arch=haswell"), which the loader would compare with the
// maker. It must be one that knows indirect functions.
#if defined(__x86_64__) && defined(__linux__) && defined(__GLIBC__) && \
    (!defined(__clang__) || __clang_major__ >= 14)
#define RSD2_MULTIVERSION __attribute__((target_clones("avx512f", "avx2", "default")))
#else
#define RSD2_MULTIVERSION
#endif
