// The kernels of rotated_pairs.h for the least processor of this build, and the choice among all.
#include "../rotated_geometry.h"
#include "rotated_pairs.h"

#define RSD2_ISA_NAMESPACE isa_default
#include "rotated_pairs_kernels.h"

namespace rsd2 {

template <typename T>
const PairKernels<T>& pair_kernels() {
  static const PairKernels<T> chosen = [] {
#if RSD2_HAS_X86_TARGETS
    if (best_isa() == Isa::kAvx512) return isa_avx512::kernels<T>();
    if (best_isa() == Isa::kAvx2) return isa_avx2::kernels<T>();
#endif
    return isa_default::kernels<T>();
  }();
  return chosen;
}

template const PairKernels<float>& pair_kernels<float>();
template const PairKernels<double>& pair_kernels<double>();

}  // namespace rsd2
