// The kernels of rotated_pairs.h for processors with AVX2.
#include "../rotated_geometry.h"
#include "rotated_pairs.h"

#if RSD2_HAS_X86_TARGETS
RSD2_BEGIN_AVX2
#define RSD2_ISA_NAMESPACE isa_avx2
#include "rotated_pairs_kernels.h"
RSD2_END_TARGET
#endif
