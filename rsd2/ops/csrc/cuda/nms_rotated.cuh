// Kernels of greedy NMS of rotated boxes. Candidates are sorted by class, then by decreasing score,
// and cut into tiles.
//
//  1. mark_within_tiles, once, all tiles at a time: which later boxes of its tile, and of its
//     class, a box suppresses if it is kept. That is kWords words for each box: memory grows with
//     the boxes, not with their pairs.
//  2. suppress_later, once for each tile in order: all boxes before the tile have spoken, so it can
//     be resolved; then its survivors suppress boxes of the later tiles, which share their class
//     with its last box. Each block works on one later tile and resolves the first for itself,
//     which costs less than another launch.
//  3. flag_kept and write_kept: back to the order of the input.
//
// Launches follow each other in one stream; nothing waits for the host or for another block.
#pragma once

#include "near_pairs.cuh"

namespace rsd2 {
namespace gpu {

constexpr int kTile = kTileColumns, kWords = kTile / 64;

RSD2_HOST_DEVICE int lowest_bit(Word word) {
#if defined(__CUDA_ARCH__)
  return __ffsll(static_cast<long long>(word)) - 1;
#else
  return __builtin_ctzll(word);
#endif
}

RSD2_HOST_DEVICE Word bit_of(int64_t index) { return Word(1) << (index % 64); }

// Candidates in visiting order, and one bit for each in `busy` (it suppresses a box of its tile),
// `dead` and `kept`. suppresses: kWords words for each.
template <typename T>
struct Candidates {
  BoxSet<T> boxes;
  const int64_t* classes;
  double threshold;
  Word *suppresses, *busy, *dead, *kept;

  RSD2_HOST_DEVICE bool suppress(int64_t row, int64_t column) const {
    return exceeds(boxes.boxes[row], boxes.boxes[column], threshold);
  }
};

template <typename T>
struct MarkWithinTile {
  Candidates<T> all;
  int64_t first_row;

  RSD2_HOST_DEVICE int64_t row(int r) const { return first_row + r; }
  RSD2_HOST_DEVICE bool wanted(int64_t row, int64_t column) const {
    return row < column && all.classes[row] == all.classes[column];
  }
  RSD2_HOST_DEVICE void apart(int64_t, int64_t) const {}
  __device__ void near(int64_t row, int64_t column) const {
    if (!all.suppress(row, column)) return;
    atomicOr(all.suppresses + row * kWords + column % kTile / 64, bit_of(column));
    atomicOr(all.busy + row / 64, bit_of(row));
  }
};

template <typename T>
__global__ void __launch_bounds__(kTile, 3) mark_within_tiles(Candidates<T> all) {
  __shared__ NearPairs<T> list;
  const int64_t size = all.boxes.size, parts = (size + kTileRows - 1) / kTileRows;
  for (int64_t part = blockIdx.x; part < parts; part += gridDim.x) {
    const MarkWithinTile<T> visitor{all, part * kTileRows};
    const int64_t left = size - visitor.first_row;
    const int rows = left < kTileRows ? static_cast<int>(left) : kTileRows;
    visit_tile<T>(all.boxes, all.boxes, rows, visitor.first_row / kTile * kTile, list, visitor);
  }
}

// Greedy survivors of a tile: `dead` has those suppressed from before it, and gets the others.
// Rows in order; only rows that suppress anything are looked at.
RSD2_HOST_DEVICE void resolve_tile(const Word* suppresses, const Word* busy, Word* dead) {
  for (int w = 0; w < kWords; ++w) {
    Word todo = busy[w] & ~dead[w];
    while (todo != 0) {
      const Word* row = suppresses + (w * 64 + lowest_bit(todo)) * kWords;
      for (int v = w; v < kWords; ++v) dead[v] |= row[v];
      todo &= todo - 1;
      todo &= ~dead[w];
    }
  }
}

// What the threads of a block share in suppress_later.
template <typename T>
struct TileState {
  NearPairs<T> list;
  Word suppresses[kTile * kWords], dead[kWords];
  int survivors[kTile];  // offsets in the tile, in any order
  int num_survivors;
  int is_dead[kTile];  // boxes of the later tile
};

template <typename T>
struct SuppressLater {
  const Candidates<T>& all;
  TileState<T>& state;
  int64_t tile_start, later_start, common_class;
  int first_survivor;

  RSD2_HOST_DEVICE int64_t row(int r) const {
    return tile_start + state.survivors[first_survivor + r];
  }
  RSD2_HOST_DEVICE bool wanted(int64_t, int64_t column) const {
    return state.is_dead[column - later_start] == 0 && all.classes[column] == common_class;
  }
  RSD2_HOST_DEVICE void apart(int64_t, int64_t) const {}
  __device__ void near(int64_t row, int64_t column) const {
    if (all.suppress(row, column)) atomicOr(&state.is_dead[column - later_start], 1);
  }
};

// Resolve the tile: the whole block loads its words, one thread decides.
template <typename T>
__device__ void load_and_resolve(const Candidates<T>& all, int64_t tile, TileState<T>& state) {
  const int thread = static_cast<int>(threadIdx.x);
  const int64_t row = tile * kTile + thread;
  for (int w = 0; w < kWords; ++w) {
    state.suppresses[thread * kWords + w] =
        row < all.boxes.size ? all.suppresses[row * kWords + w] : Word(0);
  }
  if (thread < kWords) state.dead[thread] = all.dead[tile * kWords + thread];
  if (thread == 0) state.num_survivors = 0;
  __syncthreads();
  if (thread == 0) resolve_tile(state.suppresses, all.busy + tile * kWords, state.dead);
  __syncthreads();
}

// Block b of the launch for `tile` works on the tile b further; block 0 writes who is kept.
template <typename T>
__global__ void __launch_bounds__(kTile, 3) suppress_later(Candidates<T> all, int64_t tile) {
  __shared__ TileState<T> state;
  const int thread = static_cast<int>(threadIdx.x);
  const int64_t size = all.boxes.size, start = tile * kTile,
                later = start + int64_t(blockIdx.x) * kTile;
  const int64_t last = start + kTile < size ? start + kTile - 1 : size - 1;
  const int64_t common_class = all.classes[last];
  if (blockIdx.x != 0 && all.classes[later] != common_class) return;  // and so are all after it
  load_and_resolve(all, tile, state);
  if (blockIdx.x == 0) {
    if (thread < kWords) all.kept[tile * kWords + thread] = ~state.dead[thread];
    return;
  }
  if (start + thread < size && all.classes[start + thread] == common_class &&
      (state.dead[thread / 64] & bit_of(thread)) == 0) {
    state.survivors[atomicAdd(&state.num_survivors, 1)] = thread;
  }
  const int64_t column = later + thread;
  const bool was_dead = column < size && (all.dead[column / 64] & bit_of(column)) != 0;
  state.is_dead[thread] = was_dead;
  __syncthreads();
  for (int first = 0; first < state.num_survivors; first += kTileRows) {
    const SuppressLater<T> visitor{all, state, start, later, common_class, first};
    const int left = state.num_survivors - first;
    visit_tile<T>(all.boxes, all.boxes, left < kTileRows ? left : kTileRows, later, state.list,
                  visitor);
  }
  if (column < size && !was_dead && state.is_dead[thread] != 0) {
    atomicOr(all.dead + column / 64, bit_of(column));
  }
}

// order: box of each candidate.
static __global__ void flag_kept(const Word* kept, const int64_t* order, int64_t size,
                                 int64_t* is_kept) {
  for (int64_t i = int64_t(blockIdx.x) * blockDim.x + threadIdx.x; i < size;
       i += int64_t(gridDim.x) * blockDim.x) {
    is_kept[order[i]] = (kept[i / 64] & bit_of(i)) != 0;
  }
}

// by_score: boxes by decreasing score; places: how many of the first i + 1 of them are kept.
static __global__ void write_kept(const int64_t* by_score, const int64_t* is_kept,
                                  const int64_t* places, int64_t size, int64_t* kept) {
  for (int64_t i = int64_t(blockIdx.x) * blockDim.x + threadIdx.x; i < size;
       i += int64_t(gridDim.x) * blockDim.x) {
    if (is_kept[by_score[i]] != 0) kept[places[i] - 1] = by_score[i];
  }
}

}  // namespace gpu
}  // namespace rsd2
