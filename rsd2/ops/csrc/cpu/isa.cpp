#include "isa.h"

#include <cstdlib>
#include <string>

namespace rsd2 {
namespace {

Isa detect() {
#if RSD2_HAS_X86_TARGETS
  __builtin_cpu_init();
  const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
  const bool avx512 = avx2 && __builtin_cpu_supports("avx512f") &&
                      __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
                      __builtin_cpu_supports("avx512vl");
  const char* wish = std::getenv("RSD2_ISA");
  const std::string limit = wish == nullptr ? "" : wish;
  if (avx512 && limit != "default" && limit != "avx2") return Isa::kAvx512;
  if (avx2 && limit != "default") return Isa::kAvx2;
#endif
  return Isa::kDefault;
}

}  // namespace

Isa best_isa() {
  static const Isa isa = detect();
  return isa;
}

const char* isa_name(Isa isa) {
  switch (isa) {
    case Isa::kAvx512:
      return "avx512";
    case Isa::kAvx2:
      return "avx2";
    default:
      return "default";
  }
}

}  // namespace rsd2
