#pragma once
// The two products of attention in bfloat16, for AttentionOptions::compute: rows of queries or of softmax, rounded, times a block
// of keys or values, whose rows are rounded and joined in pairs.

#include <anybit/core/macros_begin.hpp>

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <type_traits>

#include <anybit/kernel/attention_inputs.hpp>
#include <anybit/kernel/bf16_products.hpp>

namespace anybit::kernel {
inline namespace ANYBIT_CODE {
namespace detail {

/// Whether attention multiplies in bfloat16 with Arch.
template <class Arch>
bool attends_in_bf16(const AttentionOptions& o) {
  if (o.compute != Compute::bf16) return false;
  if constexpr (has_matrix<Arch>)
    if (Arch::Matrix::available()) return true;
  return multiplies_bf16<Arch>;
}

/// Tiles read so many rows at a time: rows of bfloat16 have room for as many behind the last one.
inline constexpr Index bf16_rows_slack = 2 * matrix_tokens - 1;

/// The tile registers of a thread, from here to the end of a scope; nothing where Arch has none.
template <class Arch>
class TileScope {
 public:
  explicit TileScope(bool wanted) {
    if constexpr (has_matrix<Arch>)
      if (wanted && Arch::Matrix::available()) Arch::Matrix::configure(static_cast<int>(matrix_tokens)), used_ = true;
  }
  ~TileScope() {
    if constexpr (has_matrix<Arch>)
      if (used_) Arch::Matrix::release();
  }
  TileScope(const TileScope&) = delete;
  TileScope& operator=(const TileScope&) = delete;

 private:
  bool used_ = false;
};

/// Rows begin .. end - 1 of floats (.., cols), other rows up to a multiple of 32 as zeros, in pairs: for each 16 columns, and
/// each two rows, 64 bytes with the numbers of the one and of the other row side by side. Columns from cols, a multiple of 16, up
/// to a multiple of 32 are zeros.
template <class Arch>
void pair_rows(const float* from, Index stride, Index begin, Index end, Index cols, std::uint8_t* out) {
  static constexpr float zeros[16] = {};
  const Index rows = round_up(end, bf16_columns);
  for (Index j = 0; j < round_up(cols, bf16_columns); j += 16)
    for (Index k = 0; k < rows; k += 2, out += line_bytes) {
      const auto row = [&](Index i) { return j < cols && begin <= i && i < end ? from + i * stride + j : zeros; };
      const float *const one = row(k), *const other = row(k + 1);
      if constexpr (multiplies_bf16<Arch>) {
        Arch::pair_bf16(one, other, out);
      } else {
        std::uint16_t pairs[32];
        for (Index i = 0; i < 16; ++i) pairs[2 * i] = f32_to_bf16(one[i]), pairs[2 * i + 1] = f32_to_bf16(other[i]);
        std::memcpy(out, pairs, sizeof pairs);
      }
    }
}

/// What pair_rows() made of n rows, 32 columns of it.
struct PairedColumns {
  const std::uint8_t* pairs;
  Index n;
  const std::uint8_t* at(int half, Index first) const { return pairs + (half * n + first) / 2 * line_bytes; }
};

/// c(r, :) = or += sum over k < n of a(r, k) b(k, :), for rows of bfloat16 with n, a multiple of 32, numbers each, and b in
/// pairs. c has `cols` columns, a multiple of 32. A row's sums do not depend on the rows beside it.
template <class Arch>
void bf16_block_product(const std::uint16_t* a, Index a_stride, Index rows, const std::uint8_t* pairs, Index n, float* c,
                        Index c_stride, Index cols, bool accumulate) {
  for (Index j = 0; j < cols; j += bf16_columns, pairs += n * line_bytes) {
    const PairedColumns panel{pairs, n};
    Index r = 0;
    const auto some = [&]<int Rows, bool Tiles>(std::integral_constant<int, Rows>, std::bool_constant<Tiles>) {
      bf16_product<Arch, Rows, Tiles>(panel, a + r * a_stride, a_stride, n, accumulate, c + r * c_stride + j, c_stride,
                                      Tiles ? std::min<Index>(rows - r, Rows) : Rows, bf16_columns);
      r += Rows;
    };
    if constexpr (has_matrix<Arch>)
      if (Arch::Matrix::available()) {
        while (rows - r > matrix_tokens) some(std::integral_constant<int, 32>(), std::true_type());
        if (rows - r > 0) some(std::integral_constant<int, 16>(), std::true_type());
        continue;
      }
    if constexpr (multiplies_bf16<Arch>) {
      while (rows - r >= 8) some(std::integral_constant<int, 8>(), std::false_type());
      if (rows - r >= 4) some(std::integral_constant<int, 4>(), std::false_type());
      if (rows - r >= 2) some(std::integral_constant<int, 2>(), std::false_type());
      if (rows - r >= 1) some(std::integral_constant<int, 1>(), std::false_type());
    }
  }
}

}  // namespace detail
}  // namespace ANYBIT_CODE
}  // namespace anybit::kernel

#include <anybit/core/macros_end.hpp>
