#pragma once
// Blocks of the KV cache as codes: runs of up to 32 values that share a scale and an offset, value = offset + scale * code; at 16
// bits binary16.

#include <anybit/core/macros_begin.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <limits>

#include <anybit/core/finite.hpp>
#include <anybit/core/half.hpp>
#include <anybit/format/integer.hpp>
#include <anybit/simd/bit_stream.hpp>
#include <anybit/simd/xsimd_compat.hpp>
#include <anybit/tensor/quantize.hpp>

ANYBIT_VECTOR_CODE_BEGIN
namespace anybit::kernel {
inline namespace ANYBIT_CODE {

/// Positions that are stored, and quantized, together.
inline constexpr Index kv_block = 32;
/// Values that share a scale and an offset, both binary16.
inline constexpr Index kv_group = 32;

/// A block is `rows` x `cols` floats, row r at r * stride, where stride is a multiple of 16. Groups run along the columns, the
/// last of a row may be shorter. rows is a multiple of 8, so that the codes end on a byte.
struct KvBlockShape {
  Index rows = 0, cols = 0, stride = 0;
  Index groups_per_row() const { return ceil_div(cols, kv_group); }
  Index groups() const { return rows * groups_per_row(); }
  Index code_bytes(int bits) const { return rows * cols * bits / 8; }
  /// Codes, then the scales of all groups, then their offsets, which 16 bits do without. Decoders read up to 64 bytes past them.
  Index bytes(int bits) const { return round_up(code_bytes(bits), 4) + (bits == 16 ? 0 : groups() * 4); }
  /// Scratch that decoding needs, at a multiple of 4.
  Index scratch_bytes() const { return round_up(rows * cols, 64) + groups() * 8 + 64; }
};

namespace detail {

/// KIVI's asymmetric rule: offset = min, scale = (max - min) / (2^bits - 1), each rounded to binary16 before codes are chosen.
/// A group with NaN or infinity, or out of binary16's range, decodes to NaN: it spoils its own positions and nothing silently.
template <int Bits>
void encode_kv_block(const KvBlockShape& shape, const float* x, std::byte* out, std::uint8_t* scratch) {
  using F = UInt<Bits>;
  auto* scales = reinterpret_cast<std::uint16_t*>(out + round_up(shape.code_bytes(Bits), 4));
  std::uint16_t* offsets = scales + shape.groups();
  std::uint8_t* codes = scratch;
  for (Index r = 0; r < shape.rows; ++r)
    for (Index first = 0; first < shape.cols; first += kv_group) {
      const Index n = std::min(kv_group, shape.cols - first);
      const float* from = x + r * shape.stride + first;
      float low = from[0], high = from[0], shifted[static_cast<std::size_t>(kv_group)];
      for (Index i = 0; i < n; ++i) {
        low = from[i] < low ? from[i] : low;
        high = from[i] > high ? from[i] : high;
      }
      *offsets = f32_to_f16(low);
      const float offset = f16_to_f32(*offsets);
      *scales = f32_to_f16((high - offset) / static_cast<float>(F::max_int));
      const float scale = f16_to_f32(*scales);
      for (Index i = 0; i < n; ++i) shifted[i] = from[i] - offset;
      const float largest = std::bit_cast<float>(abs_max_bits({from, static_cast<std::size_t>(n)}));
      const bool finite = is_finite(largest) && is_finite(scale) && is_finite(offset);
      if (!finite) *scales = 0x7E00;  // NaN
      const auto count = static_cast<std::size_t>(n);
      if (finite && scale > 0)
        quantize_values<F>({shifted, count}, Affine{scale, 0}, {codes, count});
      else
        std::fill_n(codes, n, std::uint8_t{0});
      ++scales, ++offsets, codes += n;
    }
  simd::pack_bits<Bits>(scratch, out, shape.rows * shape.cols);
}

template <int Bits>
void decode_kv_block(const KvBlockShape& shape, const std::byte* in, float* x, std::uint8_t* scratch) {
  const auto* scales = reinterpret_cast<const std::uint16_t*>(in + round_up(shape.code_bytes(Bits), 4));
  const std::uint16_t* offsets = scales + shape.groups();
  simd::unpack_bits<Bits>(in, scratch, shape.rows * shape.cols);
  const std::uint8_t* codes = scratch;
  float scale[static_cast<std::size_t>(simd::width)], offset[static_cast<std::size_t>(simd::width)];
  Index group = 0;
  for (Index r = 0; r < shape.rows; ++r)
    for (Index first = 0; first < shape.cols; first += kv_group, ++group) {
      const Index lane = group % simd::width;
      if (lane == 0) simd::store(scale, simd::load_f16(scales + group)), simd::store(offset, simd::load_f16(offsets + group));
      const simd::f32 s = simd::broadcast(scale[lane]), o = simd::broadcast(offset[lane]);
      const Index n = std::min(kv_group, shape.cols - first);
      float* to = x + r * shape.stride + first;
      // The last vector spills into the next group, which then writes over it, or into the row's padding.
      for (Index i = 0; i < n; i += simd::width) simd::store(to + i, simd::fma(s, simd::load_f32(codes + i), o));
      codes += n;
    }
}

/// Each value rounded to the nearest binary16; one beyond its range becomes infinity.
inline void encode_kv_halves(const KvBlockShape& shape, const float* x, std::byte* out, std::uint8_t*) {
  auto* to = reinterpret_cast<std::uint16_t*>(out);
  for (Index r = 0; r < shape.rows; ++r, x += shape.stride, to += shape.cols) {
    Index i = 0;
    for (; i + simd::width <= shape.cols; i += simd::width) simd::store_f16(to + i, simd::load(x + i));
    for (; i < shape.cols; ++i) to[i] = f32_to_f16(x[i]);
  }
}
inline void decode_kv_halves(const KvBlockShape& shape, const std::byte* in, float* x, std::uint8_t*) {
  const auto* from = reinterpret_cast<const std::uint16_t*>(in);
  for (Index r = 0; r < shape.rows; ++r, x += shape.stride, from += shape.cols)
    for (Index i = 0; i < shape.cols; i += simd::width) simd::store(x + i, simd::load_f16(from + i));  // spills into the padding
}

}  // namespace detail

/// Keys of a block and head are (head_dim, 32), so that a vector of positions meets one channel of a query: groups run along
/// positions. Values are (32, head_dim): groups run along channels.
inline KvBlockShape kv_keys_shape(Index head_dim) { return {head_dim, kv_block, kv_block}; }
inline KvBlockShape kv_values_shape(Index head_dim) { return {kv_block, head_dim, round_up(head_dim, 16)}; }

/// Codes of a block as bytes, row after row without gaps, and scales and offsets of all groups as floats: `scales` and then
/// `offsets` behind the bytes.
struct KvBytes {
  const std::uint8_t* codes = nullptr;
  const float *scales = nullptr, *offsets = nullptr;
};

namespace detail {

template <int Bits>
KvBytes unpack_kv_block(const KvBlockShape& shape, const std::byte* in, std::uint8_t* scratch) {
  simd::unpack_bits<Bits>(in, scratch, shape.rows * shape.cols);
  const auto* halves = reinterpret_cast<const std::uint16_t*>(in + round_up(shape.code_bytes(Bits), 4));
  auto* scales = reinterpret_cast<float*>(scratch + round_up(shape.rows * shape.cols, 64));
  // Scales and offsets lie one after the other in both places; the last vector reads and writes past them.
  for (Index i = 0; i < 2 * shape.groups(); i += simd::width) simd::store(scales + i, simd::load_f16(halves + i));
  return {scratch, scales, scales + shape.groups()};
}

}  // namespace detail

/// The two directions for one width. `scratch` has shape.scratch_bytes(). Decoding may write into the padding of rows. `unpack`
/// is half of the way back; there is none at 16 bits, whose codes are the values.
struct KvCodec {
  void (*encode)(const KvBlockShape&, const float* x, std::byte* out, std::uint8_t* scratch);
  void (*decode)(const KvBlockShape&, const std::byte* in, float* x, std::uint8_t* scratch);
  KvBytes (*unpack)(const KvBlockShape&, const std::byte* in, std::uint8_t* scratch);
};
/// bits: 16, 8, 4, 3 or 2.
inline KvCodec kv_codec(int bits) {
  switch (bits) {
    case 16: return {&detail::encode_kv_halves, &detail::decode_kv_halves, nullptr};
    case 8: return {&detail::encode_kv_block<8>, &detail::decode_kv_block<8>, &detail::unpack_kv_block<8>};
    case 4: return {&detail::encode_kv_block<4>, &detail::decode_kv_block<4>, &detail::unpack_kv_block<4>};
    case 3: return {&detail::encode_kv_block<3>, &detail::decode_kv_block<3>, &detail::unpack_kv_block<3>};
    default:
      ANYBIT_CHECK(bits == 2, "kv_codec: no such width");
      return {&detail::encode_kv_block<2>, &detail::decode_kv_block<2>, &detail::unpack_kv_block<2>};
  }
}

}  // namespace ANYBIT_CODE
}  // namespace anybit::kernel
ANYBIT_VECTOR_CODE_END

#include <anybit/core/macros_end.hpp>
