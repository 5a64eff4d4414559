// Runs CUDA kernels on the host, where there is no GPU: their own text, barriers and all.
//
// Every thread of a block is a fiber. It runs until it comes to a barrier; when all threads of the
// block (or of the warp) wait there, they go on. Which thread goes first is drawn anew at each
// barrier, so that a missing one shows up as a result that changes with the seed; threads that wait
// at different barriers, or left before one, are an error. Blocks run one after another, in an
// order that is drawn too. What a GPU may do beyond that (memory of other blocks seen late) is not
// tried.
//
// It takes the place of csrc/cuda/launch.h, by which all kernels are launched.
#pragma once

#include <ATen/core/Tensor.h>
#include <ucontext.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <functional>
#include <memory>
#include <numeric>
#include <random>
#include <stdexcept>
#include <vector>

#define __global__
#define __device__
#define __shared__ static  // blocks run one after another
#define __grid_constant__
#define __launch_bounds__(...)

namespace on_host {

enum class State { kReady, kAtWarp, kAtBlock, kDone };

struct Thread {
  ucontext_t context;
  std::unique_ptr<char[]> stack;
  State state;
};

constexpr size_t kStack = 1 << 16, kWarpSize = 32;

struct Machine {
  std::vector<Thread> threads;
  std::vector<uint64_t> slots;  // what the lanes of a warp exchange
  ucontext_t scheduler;
  std::function<void()> body;
  unsigned current = 0;
  std::mt19937 random{0};
};

inline Machine machine;

struct Index {
  unsigned x;
};
inline Index thread_index, block_index, block_size, grid_size;

inline void enter() {
  machine.body();
  machine.threads[machine.current].state = State::kDone;
  swapcontext(&machine.threads[machine.current].context, &machine.scheduler);
}

inline void wait(State where) {
  Thread& thread = machine.threads[machine.current];
  thread.state = where;
  swapcontext(&thread.context, &machine.scheduler);
}

// Lets the threads [first, last) go on if all wait at this barrier.
inline bool release(size_t first, size_t last, State barrier) {
  for (size_t i = first; i < last; ++i) {
    if (machine.threads[i].state != barrier) return false;
  }
  for (size_t i = first; i < last; ++i) machine.threads[i].state = State::kReady;
  return true;
}

inline void run_block(size_t size) {
  auto& threads = machine.threads;
  if (threads.size() != size) threads = std::vector<Thread>(size);
  machine.slots.assign(size, 0);
  for (Thread& thread : threads) {
    if (thread.stack == nullptr) thread.stack.reset(new char[kStack]);
    getcontext(&thread.context);
    thread.context.uc_stack.ss_sp = thread.stack.get();
    thread.context.uc_stack.ss_size = kStack;
    thread.context.uc_link = nullptr;
    makecontext(&thread.context, enter, 0);
    thread.state = State::kReady;
  }
  std::vector<unsigned> order(size);
  std::iota(order.begin(), order.end(), 0u);
  for (;;) {
    std::shuffle(order.begin(), order.end(), machine.random);
    bool moved = false;
    for (const unsigned i : order) {
      if (threads[i].state != State::kReady) continue;
      machine.current = thread_index.x = i;
      moved = true;
      swapcontext(&machine.scheduler, &threads[i].context);
    }
    for (size_t first = 0; first < size; first += kWarpSize) {
      moved |= release(first, std::min(first + kWarpSize, size), State::kAtWarp);
    }
    moved |= release(0, size, State::kAtBlock);
    const auto is_done = [](const Thread& thread) { return thread.state == State::kDone; };
    if (std::all_of(threads.begin(), threads.end(), is_done)) return;
    if (!moved) throw std::runtime_error("threads of a block wait at different barriers");
  }
}

// What the lane at `lane ^ offset` of this warp gives.
template <typename T>
T exchanged(T value, int offset) {
  static_assert(sizeof(T) <= sizeof(uint64_t), "one slot");
  const unsigned own = machine.current;
  __builtin_memcpy(&machine.slots[own], &value, sizeof(T));
  wait(State::kAtWarp);
  T other;
  __builtin_memcpy(&other, &machine.slots[own ^ static_cast<unsigned>(offset)], sizeof(T));
  wait(State::kAtWarp);
  return other;
}

}  // namespace on_host

#define threadIdx ::on_host::thread_index
#define blockIdx ::on_host::block_index
#define blockDim ::on_host::block_size
#define gridDim ::on_host::grid_size

inline void __syncthreads() { on_host::wait(on_host::State::kAtBlock); }
inline void __syncwarp() { on_host::wait(on_host::State::kAtWarp); }

template <typename T>
T __shfl_xor_sync(unsigned mask, T value, int offset, int) {
  if (mask != 0xffffffffu) throw std::runtime_error("a shuffle without the whole warp");
  return on_host::exchanged(value, offset);
}

template <typename T, typename V>
T atomicAdd(T* place, V value) {
  const T old = *place;
  *place = old + value;
  return old;
}
template <typename T>
T atomicMax(T* place, T value) {
  const T old = *place;
  *place = std::max(old, value);
  return old;
}
template <typename T>
T atomicMin(T* place, T value) {
  const T old = *place;
  *place = std::min(old, value);
  return old;
}
template <typename T, typename V>
T atomicOr(T* place, V value) {
  const T old = *place;
  *place = old | value;
  return old;
}

namespace rsd2 {
namespace gpu {

// Few blocks, so that each of them has to loop.
inline unsigned blocks_for(int64_t tasks, int64_t at_a_time) {
  return static_cast<unsigned>(std::min<int64_t>((tasks + at_a_time - 1) / at_a_time, 3));
}

class OnDeviceOf {
 public:
  explicit OnDeviceOf(const at::Tensor&) {}

  template <typename... Parameters, typename... Arguments>
  void launch(void (*kernel)(Parameters...), unsigned blocks, int threads,
              const Arguments&... arguments) const {
    TORCH_CHECK(blocks > 0 && threads > 0 && threads <= 1024 && threads % 32 == 0,
                "a GPU cannot launch ", blocks, " blocks of ", threads, " threads");
    on_host::machine.body = [&] { kernel(arguments...); };
    grid_size.x = blocks;
    block_size.x = static_cast<unsigned>(threads);
    std::vector<unsigned> order(blocks);
    std::iota(order.begin(), order.end(), 0u);
    std::shuffle(order.begin(), order.end(), on_host::machine.random);
    for (const unsigned block : order) {
      block_index.x = block;
      on_host::run_block(block_size.x);
    }
  }

 private:
  on_host::Index &grid_size = on_host::grid_size, &block_size = on_host::block_size,
                 &block_index = on_host::block_index;
};

}  // namespace gpu
}  // namespace rsd2
