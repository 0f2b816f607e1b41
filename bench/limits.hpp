#pragma once
// What this machine can do at best, measured in the same run: dot products and multiply-adds from registers, and reading.

#include <algorithm>
#include <cstring>
#include <vector>

#include <anybit/core/weight_buffer.hpp>
#include <anybit/exec/thread_pool.hpp>
#include <anybit/kernel/dot_vocabulary.hpp>
#include <anybit/simd/xsimd_compat.hpp>

namespace bench {

using namespace anybit;

/// Multiply-adds of bytes that `steps` steps of a tile make with some tokens, from registers: the sequence of instructions that
/// the tiled kernels have for codes of `Bits` bits.
template <int Bits, class Arch = kernel::native_arch>
double dot_products(Index steps) {
  constexpr int max_byte = (1 << Bits) - 1, deep = Arch::short_sums(max_byte);
  constexpr std::size_t tokens = Arch::token_group == 8 ? 12 : Arch::token_group;  // what the registers hold
  alignas(64) std::uint8_t bytes[64];
  for (std::size_t i = 0; i < 64; ++i) bytes[i] = static_cast<std::uint8_t>(i & max_byte);
  std::int8_t x[4 * tokens];  // of every token its own: with equal ones products would be shared
  for (std::size_t i = 0; i < sizeof x; ++i) x[i] = static_cast<std::int8_t>(i);
  typename Arch::Ints sum[tokens];
#pragma GCC unroll 12
  for (auto& s : sum) s = Arch::equal(0);
  const auto b = Arch::load_bytes(bytes);
  const auto add_step = [&](auto& to) __attribute__((always_inline)) {
#if defined(__GNUC__)
    asm volatile("" ::"r"(x) : "memory");  // x is loaded again, as in the kernels
#endif
#pragma GCC unroll 12
    for (std::size_t t = 0; t < tokens; ++t) to[t] = Arch::template tile_dot4<max_byte>(to[t], b, x + 4 * t);
  };
  if constexpr (deep == 0) {
#pragma GCC unroll 4
    for (Index k = 0; k < steps; ++k) add_step(sum);
  } else {
    for (Index k = 0; k < steps;) {
      typename Arch::Shorts part[tokens];
#pragma GCC unroll 12
      for (auto& p : part) p = Arch::no_shorts();
      const Index stop = std::min<Index>(k + deep, steps);
#pragma GCC unroll 8
      for (; k < stop; ++k) add_step(part);
#pragma GCC unroll 12
      for (std::size_t t = 0; t < tokens; ++t) sum[t] = Arch::add(sum[t], part[t]);
    }
  }
#pragma GCC unroll 12
  for (std::size_t t = 1; t < tokens; ++t) sum[0] = Arch::add(sum[0], sum[t]);
  alignas(64) volatile char sink[sizeof sum[0]];
  std::memcpy(const_cast<char*>(sink), &sum[0], sizeof sum[0]);
  return 64.0 * static_cast<double>(tokens) * static_cast<double>(steps);
}

/// By bits, from 1 up.
inline constexpr double (*dot_products_by_bits[])(Index) = {dot_products<1>, dot_products<2>, dot_products<3>, dot_products<4>,
                                                            dot_products<5>, dot_products<6>, dot_products<7>, dot_products<8>};

/// The same for f32 multiply-adds.
inline double multiply_adds(Index steps) {
  constexpr std::size_t sums = 12;
  simd::f32 sum[sums], a = simd::broadcast(0.5f), b = simd::broadcast(0.25f);
#pragma GCC unroll 12
  for (std::size_t i = 0; i < sums; ++i) sum[i] = simd::broadcast(static_cast<float>(i));
  for (Index k = 0; k < steps; ++k) {
#pragma GCC unroll 12
    for (std::size_t i = 0; i < sums; ++i) sum[i] = simd::fma(sum[i], a, b);
  }
#pragma GCC unroll 12
  for (std::size_t i = 1; i < sums; ++i) sum[0] = sum[0] + sum[i];
  volatile float sink = simd::reduce_add(sum[0]);
  static_cast<void>(sink);
  return static_cast<double>(simd::width) * static_cast<double>(sums) * static_cast<double>(steps);
}

/// Memory to read, written once so that every page is its own.
class Reading {
 public:
  explicit Reading(std::size_t bytes) : data_(std::max<std::size_t>(bytes / block * block, block)) {}
  std::size_t bytes() const { return data_.size(); }
  /// Reads all of it once, each thread its share, four streams at a time.
  void operator()(ThreadPool& pool) const {
    const Index blocks = static_cast<Index>(bytes() / block), share = ceil_div(blocks, pool.concurrency());
    pool.parallel_for(blocks, share, [&](Index begin, Index end) {
      const Index quarter = (end - begin) / 4 * 256;
      const float* p = reinterpret_cast<const float*>(data_.data()) + begin * 256;
      simd::f32 sum[8];
      for (auto& s : sum) s = simd::zero();
      for (Index i = 0; i + 2 * simd::width <= quarter; i += 2 * simd::width)
#pragma GCC unroll 4
        for (Index s = 0; s < 4; ++s)
#pragma GCC unroll 2
          for (Index h = 0; h < 2; ++h) {
            auto& to = sum[static_cast<std::size_t>(2 * s + h)];
            to = to + simd::load(p + s * quarter + i + h * simd::width);
          }
      for (std::size_t s = 1; s < 8; ++s) sum[0] = sum[0] + sum[s];
      volatile float sink = simd::reduce_add(sum[0]);
      static_cast<void>(sink);
    });
  }

 private:
  static constexpr std::size_t block = 1024;
  WeightBuffer data_;  // the kind of memory that the kernels' weights are in
};

}  // namespace bench
