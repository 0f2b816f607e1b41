#pragma once
// The 4-bit matrices of bitsandbytes (QLoRA's NF4, and FP4), as its checkpoints store them. Their blocks run
// over the flattened matrix, across the ends of rows, which anybit's groups do not.

#include <anybit/core/macros_begin.hpp>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <span>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include <anybit/core/finite.hpp>
#include <anybit/core/matrix.hpp>
#include <anybit/core/result.hpp>
#include <anybit/format/codebook.hpp>
#include <anybit/scheme/double_quant.hpp>
#include <anybit/tensor/quantized_matrix.hpp>

namespace anybit::io {
inline namespace ANYBIT_ABI {

/// One quantized matrix. Without double quantization `absmax` has a float a block; with it, it is empty, and absmax is
/// map[absmax_codes[i]] * nested_absmax[i / 256] + nested_offset with the signed dynamic map.
struct BitsAndBytes4 {
  static constexpr Index nested_block = 256;
  Extents shape;
  Index block = 64;
  std::vector<std::uint8_t>
      packed;  ///< two codes a byte, the first in the upper half; an odd last one is joined by the code of 0
  std::vector<float> absmax;
  std::vector<std::uint8_t> absmax_codes;
  std::vector<float> nested_absmax;
  float nested_offset = 0;

  bool double_quant() const { return !absmax_codes.empty(); }
  Index blocks() const { return ceil_div(shape.size(), block); }
};

template <class F>
concept BitsAndBytesFormat = std::is_same_v<F, Nf4> || std::is_same_v<F, Fp4>;

}  // namespace ANYBIT_ABI
}  // namespace anybit::io

namespace anybit::io {
inline namespace ANYBIT_CODE {

namespace detail {

inline Status check_block(Index block) {
  if (block >= 32 && block <= 4096 && (block & (block - 1)) == 0) return Ok{};
  return Error{ErrorCode::invalid_argument,
               "bitsandbytes: the block size is " + std::to_string(block) + "; it must be a power of two from 32 to 4096"};
}

/// absmax in 8 bits. Where a value is close to half way between two levels, bitsandbytes may take the other one.
inline void quantize_absmax(BitsAndBytes4& m) {
  double sum = 0;
  for (const float v : m.absmax) sum += static_cast<double>(v);
  m.nested_offset = m.absmax.empty() ? 0.0f : static_cast<float>(sum / static_cast<double>(m.absmax.size()));
  m.absmax_codes.resize(m.absmax.size());
  for (std::size_t first = 0; first < m.absmax.size(); first += static_cast<std::size_t>(m.nested_block)) {
    const std::size_t end = std::min(m.absmax.size(), first + static_cast<std::size_t>(m.nested_block));
    float largest = 0;
    for (std::size_t i = first; i < end; ++i) largest = std::max(largest, std::fabs(m.absmax[i] - m.nested_offset));
    for (std::size_t i = first; i < end; ++i)
      m.absmax_codes[i] =
          static_cast<std::uint8_t>(double_quant::map.encode(largest > 0 ? (m.absmax[i] - m.nested_offset) / largest : 0.0f));
    m.nested_absmax.push_back(largest);
  }
  m.absmax.clear();
}

}  // namespace detail

/// The bytes that bitsandbytes' quantize_4bit makes of w: block sizes of 32 to 4096, powers of two. FP4 has two codes for
/// zero, and of small values bitsandbytes takes either; here it is always the first.
template <BitsAndBytesFormat F>
Result<BitsAndBytes4> to_bitsandbytes(ConstMatrix w, Index block, bool double_quant = false) {
  ANYBIT_TRY_STATUS(detail::check_block(block));
  BitsAndBytes4 m;
  m.shape = w.extents();
  m.block = block;
  const Matrix flat(w);
  const Index n = w.extents().size();
  const Code zero = F::encode(0.0f);
  std::vector<Code> codes(static_cast<std::size_t>(round_up(n, 2)), zero);
  for (Index first = 0; first < n; first += block) {
    const std::span<const float> values(flat.data() + first, static_cast<std::size_t>(std::min(block, n - first)));
    for (const float v : values)
      if (!is_finite(v))
        return Error{ErrorCode::not_finite,
                     "bitsandbytes: a weight of block " + std::to_string(first / block) + " is " + std::to_string(v)};
    const bool full = static_cast<Index>(values.size()) == block;
    float largest = abs_max(values);
    constexpr float floor = 1e-38f;  // below it they make zeros of a block
    for (std::size_t i = 0; i < values.size() && largest >= floor; ++i)
      codes[static_cast<std::size_t>(first) + i] =
          full ? quantize_value<F>(values[i], {largest, 0}) : F::encode(values[i] / largest);
    if (largest == 0 && !full) largest = floor;
    m.absmax.push_back(largest);
  }
  m.packed.resize(codes.size() / 2);
  for (std::size_t i = 0; i < m.packed.size(); ++i) m.packed[i] = static_cast<std::uint8_t>(codes[2 * i] << 4 | codes[2 * i + 1]);
  if (double_quant) detail::quantize_absmax(m);
  return m;
}

/// The scale of every block, as bitsandbytes restores it; an error if the sizes do not fit together.
inline Result<std::vector<float>> bitsandbytes_scales(const BitsAndBytes4& m) {
  ANYBIT_TRY_STATUS(detail::check_block(m.block));
  const auto bad = [&](const char* what, std::size_t is, Index needed) {
    return Error{ErrorCode::shape_mismatch, "bitsandbytes: " + std::string(what) + " has " + std::to_string(is) +
                                                " entries; a matrix of " + std::to_string(m.shape.rows) + " x " +
                                                std::to_string(m.shape.cols) + " in blocks of " + std::to_string(m.block) +
                                                " has " + std::to_string(needed)};
  };
  const Index half = ceil_div(m.shape.size(), 2), blocks = m.blocks(), nested = ceil_div(blocks, m.nested_block);
  if (static_cast<Index>(m.packed.size()) != half) return bad("packed", m.packed.size(), half);
  if (!m.double_quant()) {
    if (static_cast<Index>(m.absmax.size()) != blocks) return bad("absmax", m.absmax.size(), blocks);
    return m.absmax;
  }
  if (static_cast<Index>(m.absmax_codes.size()) != blocks) return bad("absmax (8 bits)", m.absmax_codes.size(), blocks);
  if (static_cast<Index>(m.nested_absmax.size()) != nested) return bad("nested_absmax", m.nested_absmax.size(), nested);
  std::vector<float> scales(m.absmax_codes.size());
  for (std::size_t i = 0; i < scales.size(); ++i) {
    // Two roundings, as there: the volatile keeps compilers from fusing them.
    const volatile float product =
        double_quant::map.decode(m.absmax_codes[i]) * m.nested_absmax[i / static_cast<std::size_t>(m.nested_block)];
    scales[i] = product + m.nested_offset;
  }
  return scales;
}

/// The weights that bitsandbytes restores, float32, bit for bit.
template <BitsAndBytesFormat F>
Result<Matrix> from_bitsandbytes(const BitsAndBytes4& m) {
  ANYBIT_TRY(const std::vector<float> scales, bitsandbytes_scales(m));
  Matrix w(m.shape.rows, m.shape.cols);
  for (Index i = 0; i < m.shape.size(); ++i) {
    const std::uint8_t pair = m.packed[static_cast<std::size_t>(i / 2)];
    w.data()[i] =
        F::decode(static_cast<Code>(i % 2 == 0 ? pair >> 4 : pair & 15)) * scales[static_cast<std::size_t>(i / m.block)];
  }
  return w;
}

/// The same codes and scales in a scheme of anybit's, without rounding anything again (but for a scale store narrower than
/// float). Blocks must be the scheme's groups, so their size must divide the rows.
template <AnyScheme S>
  requires BitsAndBytesFormat<typename S::format>
Result<QuantizedMatrix<S>> quantized_from_bitsandbytes(const BitsAndBytes4& m) {
  const Index group = S::granularity::group_cols(m.shape.cols);
  if (group != m.block || m.shape.cols % m.block != 0)
    return Error{ErrorCode::unsupported, "bitsandbytes: blocks of " + std::to_string(m.block) + " in rows of " +
                                             std::to_string(m.shape.cols) + " are no groups of " +
                                             std::string(std::string_view(S::name)) +
                                             "; restore the weights with from_bitsandbytes and quantize them again"};
  ANYBIT_TRY(std::vector<float> scales, bitsandbytes_scales(m));
  for (float& s : scales) s = s > 0 ? s : 0.0f;  // a restored scale may fall below 0 by rounding
  S::scale_store::round_trip(scales);
  QuantizedMatrix<S> q(m.shape);
  for (std::size_t i = 0; i < q.codes.size(); ++i) {
    const std::uint8_t pair = m.packed[i / 2];
    q.codes[i] = static_cast<typename S::code>(i % 2 == 0 ? pair >> 4 : pair & 15);
  }
  for (std::size_t i = 0; i < scales.size(); ++i) q.affines[i] = {scales[i], 0};
  q.provenance = "bitsandbytes";
  return q;
}

}  // namespace ANYBIT_CODE
}  // namespace anybit::io

#include <anybit/core/macros_end.hpp>
