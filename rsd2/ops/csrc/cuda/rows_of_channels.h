// The deterministic way to scatter rows (row_sums.cuh): samples are listed in portions, sorted by
// row and added up. Host code only.
#pragma once

#include <ATen/Context.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/sort.h>

#include <initializer_list>
#include <type_traits>

#include "launch.h"
#include "row_sums.cuh"

namespace rsd2 {
namespace gpu {

// Samples at a time: 4 entries each, which with their sorting take some 50 MB.
constexpr int64_t kSamplesAtATime = int64_t(1) << 18;

inline bool must_be_deterministic() { return at::globalContext().deterministicAlgorithms(); }

// Calls list(first, count, rows, weights, sources) for portions of `samples` and adds their entries
// of `from` (sources, channels) to `table`. list launches a kernel that writes the three arrays.
template <typename A, typename T, typename List>
void add_sorted(int64_t samples, const at::Tensor& from, int64_t channels, at::Tensor& table,
                const OnDeviceOf& device, const List& list) {
  const int64_t most = std::min(samples, kSamplesAtATime);
  if (most == 0 || channels == 0) return;
  const auto index = table.options().dtype(at::kLong);
  at::Tensor rows = at::empty({most * kCorners}, index), sources = at::empty({most}, index);
  at::Tensor weights = at::empty({most * kCorners}, table.options());
  for (int64_t first = 0; first < samples; first += most) {
    const int64_t count = std::min(most, samples - first);
    list(first, count, rows.mutable_data_ptr<int64_t>(), weights.mutable_data_ptr<A>(),
         sources.mutable_data_ptr<int64_t>());
    const auto sorted = at::sort(rows.narrow(0, 0, count * kCorners), /*stable=*/true, 0,
                                 /*descending=*/false);
    const SortedEntries<A> entries{std::get<0>(sorted).template const_data_ptr<int64_t>(),
                                   std::get<1>(sorted).template const_data_ptr<int64_t>(),
                                   weights.const_data_ptr<A>(),
                                   sources.const_data_ptr<int64_t>(),
                                   count * kCorners,
                                   channels,
                                   table.mutable_data_ptr<A>()};
    const unsigned blocks = blocks_for(count * kCorners * channels, kThreads);
    device.launch(add_runs<A, T>, blocks, kThreads, entries, from.const_data_ptr<T>());
  }
}

// Numbers of one access: as many as fit 16 bytes, or 1 where a row is no multiple of them or does
// not begin at one. strides: between rows, in numbers.
template <typename T>
int numbers_at_a_time(const void* address, int64_t channels,
                      std::initializer_list<int64_t> strides) {
  constexpr int kMost = 16 / sizeof(T);
  bool fits = reinterpret_cast<uintptr_t>(address) % 16 == 0 && channels % kMost == 0;
  for (const int64_t stride : strides) fits = fits && stride % kMost == 0;
  return fits ? kMost : 1;
}

// Calls body with the width as a constant: std::integral_constant<int, W>.
template <typename T, typename Body>
void with_width(int width, const Body& body) {
  constexpr int kMost = 16 / sizeof(T);
  if (width == kMost) {
    body(std::integral_constant<int, kMost>());
  } else {
    body(std::integral_constant<int, 1>());
  }
}

}  // namespace gpu
}  // namespace rsd2
