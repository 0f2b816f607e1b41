#pragma once
// Products of bfloat16 that rows of weights and attention share: a token's numbers times a panel of 32 columns of the result,
// whose numbers stand in pairs, so that a vector holds two terms of 16 sums, and a tile register 32.
//
// A vocabulary Arch (dot_vocabulary.hpp) has the instructions if it has
//   round_to_bf16(in, n, out)   n floats to bfloat16, ties to even
//   pair_bf16(a, b, out)        16 floats at a and at b to out[2 i] and out[2 i + 1]
//   spread(p)                   16 times the 4 bytes at p
//   dot_bf16(a, b, x)           a[i] + b[2 i] * x[2 i] + b[2 i + 1] * x[2 i + 1] of 32 bfloat16 in 64 bytes, 16 floats
// and Arch::Matrix (matrix_products.hpp) dpbf16ps<C, A, B>(): C[m][n] += sum over k < 32 of A[m][k] * B[k / 2][2 n + k % 2] in
// f32.

#include <anybit/core/macros_begin.hpp>

#include <cstdint>
#include <cstring>

#include <anybit/core/half.hpp>
#include <anybit/kernel/dot_vocabulary.hpp>
#include <anybit/kernel/tile_format.hpp>

namespace anybit::kernel {
inline namespace ANYBIT_CODE {

/// Whether Compute::bf16 multiplies in bfloat16 with Arch; else it multiplies rounded activations in f32.
template <class Arch>
inline constexpr bool multiplies_bf16 = requires { Arch::dot_bf16; };

namespace detail {

inline constexpr Index bf16_columns = 32;  ///< of a tile register

template <class Arch>
ANYBIT_INLINE void round_to_bf16(const float* in, Index n, std::uint16_t* out) {
  Index i = 0;
  if constexpr (multiplies_bf16<Arch>)
    for (; i + bf16_columns <= n; i += bf16_columns) Arch::round_to_bf16(in + i, out + i);
  for (; i < n; ++i) out[i] = f32_to_bf16(in[i]);
}

/// A panel of n columns times `Tokens` tokens: adds to sums, or begins them.
template <class Arch, int Tokens, class Panel>
ANYBIT_INLINE void bf16_vectors(Panel& panel, const std::uint16_t* x, Index x_stride, Index n, bool begun, float* sums,
                                Index sums_stride) {
  constexpr auto N = static_cast<std::size_t>(Tokens);
  typename Arch::Floats sum[N][2];
#pragma GCC unroll 8
  for (std::size_t t = 0; t < N; ++t)
#pragma GCC unroll 2
    for (std::size_t m = 0; m < 2; ++m)
      sum[t][m] = begun ? Arch::load(sums + static_cast<Index>(t) * sums_stride + static_cast<Index>(m) * 16) : Arch::zero();
  for (Index first = 0; first < n; first += bf16_columns) {
    const std::uint8_t *pairs = panel.at(0, first), *pairs_2 = panel.at(1, first);
    for (Index k = 0; k < bf16_columns / 2; ++k) {
      const auto b = Arch::load_bytes(pairs + k * line_bytes), b_2 = Arch::load_bytes(pairs_2 + k * line_bytes);
#pragma GCC unroll 8
      for (std::size_t t = 0; t < N; ++t) {
        const auto a = Arch::spread(x + static_cast<Index>(t) * x_stride + first + 2 * k);
        sum[t][0] = Arch::dot_bf16(sum[t][0], b, a);
        sum[t][1] = Arch::dot_bf16(sum[t][1], b_2, a);
      }
    }
  }
#pragma GCC unroll 8
  for (std::size_t t = 0; t < N; ++t)
#pragma GCC unroll 2
    for (std::size_t m = 0; m < 2; ++m)
      Arch::store(sums + static_cast<Index>(t) * sums_stride + static_cast<Index>(m) * 16, sum[t][m]);
}

/// The same by tile registers, 16 * Tiles tokens.
template <class Arch, int Tiles, class Panel>
ANYBIT_INLINE void bf16_tiles(Panel& panel, const std::uint16_t* x, Index x_stride, Index n, bool begun, float* sums,
                              Index sums_stride) {
  using Matrix = typename Arch::Matrix;
  const Index x_bytes = 2 * x_stride, sum_bytes = 4 * sums_stride;
  const std::uint16_t* const second = x + matrix_tokens * x_stride;
  float* const low = sums + matrix_tokens * sums_stride;
  if (begun) {
    Matrix::template load<0>(sums, sum_bytes);
    Matrix::template load<1>(sums + 16, sum_bytes);
    if constexpr (Tiles == 2) {
      Matrix::template load<2>(low, sum_bytes);
      Matrix::template load<3>(low + 16, sum_bytes);
    }
  } else {
    Matrix::template zero<0>();
    Matrix::template zero<1>();
    if constexpr (Tiles == 2) {
      Matrix::template zero<2>();
      Matrix::template zero<3>();
    }
  }
  for (Index k = 0; k < n; k += bf16_columns) {
    Matrix::template load<4>(x + k, x_bytes);
    Matrix::template load<6>(panel.at(0, k), line_bytes);
    Matrix::template dpbf16ps<0, 4, 6>();
    if constexpr (Tiles == 2) {
      Matrix::template load<5>(second + k, x_bytes);
      Matrix::template dpbf16ps<2, 5, 6>();
    }
    Matrix::template load<7>(panel.at(1, k), line_bytes);
    Matrix::template dpbf16ps<1, 4, 7>();
    if constexpr (Tiles == 2) Matrix::template dpbf16ps<3, 5, 7>();
  }
  Matrix::template store<0>(sums, sum_bytes);
  Matrix::template store<1>(sums + 16, sum_bytes);
  if constexpr (Tiles == 2) {
    Matrix::template store<2>(low, sum_bytes);
    Matrix::template store<3>(low + 16, sum_bytes);
  }
}

/// A panel times `count` tokens, of which Tokens are read: adds to `columns` columns of `out`, or begins them. By tile registers
/// if Tiles, where Tokens is a multiple of 16, else by vectors.
template <class Arch, int Tokens, bool Tiles, class Panel>
ANYBIT_INLINE void bf16_product(Panel& panel, const std::uint16_t* x, Index x_stride, Index n, bool begun, float* out,
                                Index out_stride, Index count, Index columns) {
  const auto into = [&](float* sums, Index stride) __attribute__((always_inline)) {
    if constexpr (Tiles)
      bf16_tiles<Arch, Tokens / static_cast<int>(matrix_tokens)>(panel, x, x_stride, n, begun, sums, stride);
    else
      bf16_vectors<Arch, Tokens>(panel, x, x_stride, n, begun, sums, stride);
  };
  if (columns == bf16_columns && count == Tokens) return into(out, out_stride);
  alignas(64) float some[static_cast<std::size_t>(Tokens * bf16_columns)] = {};
  const auto bytes = static_cast<std::size_t>(columns) * sizeof(float);
  for (Index i = 0; i < count && begun; ++i) std::memcpy(some + i * bf16_columns, out + i * out_stride, bytes);
  into(some, bf16_columns);
  for (Index i = 0; i < count; ++i) std::memcpy(out + i * out_stride, some + i * bf16_columns, bytes);
}

}  // namespace detail

}  // namespace ANYBIT_CODE
}  // namespace anybit::kernel

#include <anybit/core/macros_end.hpp>
