// Sums over rows of channels that lie anywhere in a table: what attention and RoIAlign do for most
// of their time. A row is contiguous; it is taken in blocks that fit the registers.
//
// Everything here is inlined into functions defined by RSD2_VERSIONS and takes their instruction
// set. Native: bytes of its registers, their kVectorBytes.
#pragma once

#include <cstdint>
#include <cstring>

// Vectors cross no call that is not inlined, so that how they would be passed does not matter.
#pragma GCC diagnostic ignored "-Wpsabi"

#define RSD2_INLINE_LAMBDA __attribute__((always_inline))
#define RSD2_INLINE inline __attribute__((always_inline))

namespace rsd2 {

// Rows of a table, each with a weight; offsets count numbers from the start of the table.
template <typename T>
struct WeightedRows {
  const int64_t* offsets;
  const T* weights;
  int64_t count;
};

template <typename T, int Bytes>
struct Lanes {
  typedef T Vector __attribute__((vector_size(Bytes)));
  static constexpr int kCount = Bytes / sizeof(T);

  static RSD2_INLINE Vector load(const T* from) {
    Vector value;
    std::memcpy(&value, from, Bytes);
    return value;
  }
  static RSD2_INLINE void store(T* to, const Vector& value) { std::memcpy(to, &value, Bytes); }
};

// Sum of the lanes, by halves.
template <typename T, int Bytes>
RSD2_INLINE T sum_of_lanes(const typename Lanes<T, Bytes>::Vector& value) {
  if constexpr (Bytes == sizeof(T)) {
    return value[0];
  } else {
    using Half = Lanes<T, Bytes / 2>;
    typename Half::Vector low, high;
    std::memcpy(&low, &value, Bytes / 2);
    std::memcpy(&high, reinterpret_cast<const char*>(&value) + Bytes / 2, Bytes / 2);
    return sum_of_lanes<T, Bytes / 2>(low + high);
  }
}

// Calls block.template run<Bytes, Vectors>(channel) for consecutive blocks of a row: two lines of
// the cache as long as they fit, then one, then 16 bytes, then single numbers.
template <int Native, typename T, typename Block>
RSD2_INLINE void for_each_block(int64_t channels, const Block& block) {
  constexpr int kLine = 64 / sizeof(T), kNarrow = Lanes<T, 16>::kCount;
  int64_t c = 0;
  for (; c + 2 * kLine <= channels; c += 2 * kLine) block.template run<Native, 128 / Native>(c);
  for (; c + kLine <= channels; c += kLine) block.template run<Native, 64 / Native>(c);
  for (; c + kNarrow <= channels; c += kNarrow) block.template run<16, 1>(c);
  for (; c < channels; ++c) block.template run<sizeof(T), 1>(c);
}

template <typename T>
struct GatherBlock {
  const T* table;
  WeightedRows<T> rows;
  T* out;
  bool adds;

  template <int Bytes, int Vectors>
  RSD2_INLINE void run(int64_t channel) const {
    using L = Lanes<T, Bytes>;
    typename L::Vector total[Vectors] = {};
    if (adds)
      for (int v = 0; v < Vectors; ++v) total[v] = L::load(out + channel + v * L::kCount);
    for (int64_t e = 0; e < rows.count; ++e) {
      const T* row = table + rows.offsets[e] + channel;
      const T weight = rows.weights[e];
      for (int v = 0; v < Vectors; ++v) total[v] += weight * L::load(row + v * L::kCount);
    }
    for (int v = 0; v < Vectors; ++v) L::store(out + channel + v * L::kCount, total[v]);
  }
};

template <typename T>
struct ScatterBlock {
  T* table;
  WeightedRows<T> rows;
  const T* in;

  template <int Bytes, int Vectors>
  RSD2_INLINE void run(int64_t channel) const {
    using L = Lanes<T, Bytes>;
    typename L::Vector value[Vectors];
    for (int v = 0; v < Vectors; ++v) value[v] = L::load(in + channel + v * L::kCount);
    for (int64_t e = 0; e < rows.count; ++e) {
      T* row = table + rows.offsets[e] + channel;
      const T weight = rows.weights[e];
      for (int v = 0; v < Vectors; ++v) {
        T* place = row + v * L::kCount;
        L::store(place, L::load(place) + weight * value[v]);
      }
    }
  }
};

template <typename T>
struct DotBlock {
  const T* table;
  const int64_t* offsets;
  int64_t count;
  const T* in;
  T* dots;

  template <int Bytes, int Vectors>
  RSD2_INLINE void run(int64_t channel) const {
    using L = Lanes<T, Bytes>;
    typename L::Vector value[Vectors];
    for (int v = 0; v < Vectors; ++v) value[v] = L::load(in + channel + v * L::kCount);
    for (int64_t e = 0; e < count; ++e) {
      const T* row = table + offsets[e] + channel;
      typename L::Vector product = value[0] * L::load(row);
      for (int v = 1; v < Vectors; ++v) product += value[v] * L::load(row + v * L::kCount);
      dots[e] += sum_of_lanes<T, Bytes>(product);
    }
  }
};

// Sends for a row, which need not exist: nothing is read.
template <typename T>
RSD2_INLINE void prefetch_row(const T* row, int64_t channels) {
  for (int64_t c = 0; c < channels; c += 64 / sizeof(T)) __builtin_prefetch(row + c);
}

template <typename T>
RSD2_INLINE void prefetch_rows(const T* table, const int64_t* offsets, int64_t count,
                               int64_t channels) {
  for (int64_t e = 0; e < count; ++e) prefetch_row(table + offsets[e], channels);
}

// out[c] = sum over the rows of weight * row[c], or += if it adds.
template <int Native, typename T>
RSD2_INLINE void gather_rows(const T* table, WeightedRows<T> rows, int64_t channels, T* out,
                             bool adds = false) {
  for_each_block<Native, T>(channels, GatherBlock<T>{table, rows, out, adds});
}

// row[c] += weight * in[c] for each of the rows.
template <int Native, typename T>
RSD2_INLINE void scatter_rows(T* table, WeightedRows<T> rows, int64_t channels, const T* in) {
  for_each_block<Native, T>(channels, ScatterBlock<T>{table, rows, in});
}

// dots[e] = scalar product of `in` with row e.
template <int Native, typename T>
RSD2_INLINE void dot_rows(const T* table, const int64_t* offsets, int64_t count, int64_t channels,
                          const T* in, T* dots) {
  for (int64_t e = 0; e < count; ++e) dots[e] = T(0);
  for_each_block<Native, T>(channels, DotBlock<T>{table, offsets, count, in, dots});
}

}  // namespace rsd2
