#pragma once
// C += A B and C += A^T B of dense matrices, in float or double: most of the time of calibration and GPTQ. A tile of sums
// stays in registers; its operands are copied in the order of use unless they already lie so.

#include <anybit/core/macros_begin.hpp>

#include <algorithm>
#include <cstddef>
#include <cstring>

#include <anybit/core/aligned_buffer.hpp>
#include <anybit/core/types.hpp>
#include <anybit/core/view.hpp>
#include <anybit/simd/xsimd_compat.hpp>

ANYBIT_VECTOR_CODE_BEGIN

namespace anybit::simd {
inline namespace ANYBIT_CODE {

namespace detail {

/// Sums of one tile, held in registers: `rows` by `vectors` vectors.
template <class Real>
struct ProductTile {
  using Vector = typename VectorOf<Real>::type;
  static constexpr Index lanes = static_cast<Index>(Vector::size);
  static constexpr Index rows = 6, vectors = registers >= 32 ? 4 : 2, cols = vectors * lanes;

  /// c += share a b for `r` rows and `n` columns of the tile. a[i]: row i, whose values are `a_step` apart; b: for each of
  /// `depth` steps `cols` values, `b_stride` from one step to the next.
  static void add(const Real* const* a, Index a_step, const Real* b, Index b_stride, Index depth, Real share, Real* c,
                  Index c_stride, Index r, Index n) {
    for (Index i = 0; i < r; ++i)
      for (Index v = 0; v < vectors; ++v) __builtin_prefetch(c + i * c_stride + v * lanes, 1);
    Vector sum[static_cast<std::size_t>(rows)][static_cast<std::size_t>(vectors)];
#pragma GCC unroll 6
    for (auto& row : sum)
#pragma GCC unroll 4
      for (Vector& s : row) s = Vector(Real{0});
    const Real* row[static_cast<std::size_t>(rows)];
#pragma GCC unroll 6
    for (Index i = 0; i < rows; ++i) row[i] = a[i];
    for (Index k = 0; k < depth * a_step; k += a_step, b += b_stride) {
      Vector column[static_cast<std::size_t>(vectors)];
#pragma GCC unroll 4
      for (Index v = 0; v < vectors; ++v) column[v] = Vector::load_unaligned(b + v * lanes);
#pragma GCC unroll 6
      for (Index i = 0; i < rows; ++i) {
        const Vector x(row[i][k]);
#pragma GCC unroll 4
        for (Index v = 0; v < vectors; ++v) sum[i][v] = fma(x, column[v], sum[i][v]);
      }
    }
    Real part[static_cast<std::size_t>(rows * cols)];  // a tile at an edge is added to a copy, by the same instructions
    const bool whole = r == rows && n == cols;
    if (!whole)
      for (Index i = 0; i < rows; ++i)
        for (Index j = 0; j < cols; ++j) part[i * cols + j] = i < r && j < n ? c[i * c_stride + j] : Real{0};
    Real* const to = whole ? c : part;
    const Index to_stride = whole ? c_stride : cols;
#pragma GCC unroll 6
    for (Index i = 0; i < rows; ++i)
#pragma GCC unroll 4
      for (Index v = 0; v < vectors; ++v) {
        Real* const at = to + i * to_stride + v * lanes;
        fma(Vector(share), sum[i][v], Vector::load_unaligned(at)).store_unaligned(at);
      }
    if (!whole)
      for (Index i = 0; i < r; ++i) std::copy_n(part + i * cols, n, c + i * c_stride);
  }
};

/// Cuts the columns of m into strips of `Strip`: to[(s * m.rows + k) * Strip + i] = m(k, s * Strip + i), 0 past the last column.
/// `to` may be null if m has no columns.
template <Index Strip, class Real>
void pack_strips(MatrixView<const Real> m, Real* to) {
  if (m.cols == 0) return;
  const Index whole = m.cols / Strip * Strip, left = m.cols - whole;
  for (Index k = 0; k < m.rows; ++k) {
    const Real* const from = m.row(k).data();
    Real* out = to + k * Strip;
    for (Index s = 0; s < whole; s += Strip, out += m.rows * Strip) std::memcpy(out, from + s, Strip * sizeof(Real));
    if (left > 0) {
      std::copy_n(from + whole, left, out);
      std::fill_n(out + left, Strip - left, Real{0});
    }
  }
}

/// C += share op(A) B, op(A) = A^T if Transposed.
template <bool Transposed, class Real>
void add_any_product(MatrixView<const Real> a, MatrixView<const Real> b, MatrixView<Real> c, Real share) {
  using Tile = ProductTile<Real>;
  constexpr Index depth_block = 256, row_block = 16 * Tile::rows, col_block = 256;
  static_assert(col_block % Tile::cols == 0);
  const Index depth = b.rows;
  if (c.rows == 0 || c.cols == 0 || depth == 0) return;
  // Rows of A are read where they lie; copying B pays where many rows read it.
  const bool copy_b = c.rows > 4 * Tile::rows;
  const auto strips = [&](Index lines, Index strip) {
    return AlignedBuffer(static_cast<std::size_t>(round_up(lines, strip) * std::min(depth, depth_block)) * sizeof(Real),
                         AlignedBuffer::Uninitialized{});
  };
  AlignedBuffer strips_a = strips(Transposed ? std::min(c.rows, row_block) : 0, Tile::rows),
                strips_b = strips(copy_b ? std::min(c.cols, col_block) : c.cols % Tile::cols, Tile::cols);

  for (Index k0 = 0; k0 < depth; k0 += depth_block) {
    const Index k1 = std::min(k0 + depth_block, depth), steps = k1 - k0;
    for (Index j0 = 0; j0 < c.cols; j0 += col_block) {
      const Index j1 = std::min(j0 + col_block, c.cols), packed = copy_b ? j0 : j0 + (j1 - j0) / Tile::cols * Tile::cols;
      pack_strips<Tile::cols>(b.row_range(k0, k1).col_range(packed, j1), strips_b.as<Real>());
      for (Index i0 = 0; i0 < c.rows; i0 += row_block) {
        const Index i1 = std::min(i0 + row_block, c.rows);
        if constexpr (Transposed) pack_strips<Tile::rows>(a.row_range(k0, k1).col_range(i0, i1), strips_a.as<Real>());
        for (Index j = j0; j < j1; j += Tile::cols) {
          const bool in_place = j < packed;
          const Real* const strip = in_place ? &b(k0, j) : strips_b.as<Real>() + (j - packed) * steps;
          for (Index i = i0; i < i1; i += Tile::rows) {
            const Index rows = std::min(Tile::rows, i1 - i);
            const Real* row[static_cast<std::size_t>(Tile::rows)];
            for (Index r = 0; r < Tile::rows; ++r)  // past the last row: any
              row[r] = Transposed ? strips_a.as<Real>() + (i - i0) * steps + r : &a(i + std::min(r, rows - 1), k0);
            Tile::add(row, Transposed ? Tile::rows : 1, strip, in_place ? b.stride : Tile::cols, steps, share, &c(i, j), c.stride,
                      rows, std::min(Tile::cols, j1 - j));
          }
        }
      }
    }
  }
}

}  // namespace detail

/// to += share * from, n values each.
template <class Real>
void add_multiple(Real share, const Real* from, Index n, Real* to) {
  using Vector = typename VectorOf<Real>::type;
  constexpr Index lanes = static_cast<Index>(Vector::size);
  const Vector s(share);
  Index i = 0;
  for (; i + lanes <= n; i += lanes)
    fma(s, Vector::load_unaligned(from + i), Vector::load_unaligned(to + i)).store_unaligned(to + i);
  for (; i < n; ++i) to[i] += share * from[i];
}

/// C += share A B; a (m, depth), b (depth, n), c (m, n), which overlaps neither. An element of C depends on nothing but its row
/// of A and its column of B: the same bits however a caller cuts C into pieces. It is added up in blocks of 256 steps.
template <class Real>
void add_product(MatrixView<const Real> a, MatrixView<const Real> b, MatrixView<Real> c, Real share = 1) {
  detail::add_any_product<false>(a, b, c, share);
}

/// C += share A^T B; a (depth, m), otherwise the same, to the bit.
template <class Real>
void add_transposed_product(MatrixView<const Real> a, MatrixView<const Real> b, MatrixView<Real> c, Real share = 1) {
  detail::add_any_product<true>(a, b, c, share);
}

}  // namespace ANYBIT_CODE
}  // namespace anybit::simd

ANYBIT_VECTOR_CODE_END

#include <anybit/core/macros_end.hpp>
