#pragma once
// Packed codes of one row to weights: the code that dequantize() and the kernels share.

#include <anybit/core/macros_begin.hpp>

#include <algorithm>
#include <array>
#include <bit>

#include <anybit/tensor/unpack.hpp>
#include <anybit/tensor/vector_decode.hpp>

#if defined(ANYBIT_UNPACK_VBMI)
#define ANYBIT_DEQUANTIZE_AT_ONCE
#include <anybit/simd/x86/dequantize_vbmi.hpp>
#elif defined(ANYBIT_UNPACK_AVX2)
#define ANYBIT_DEQUANTIZE_AT_ONCE
#include <anybit/simd/x86/dequantize_avx2.hpp>
#endif

namespace anybit::decoding {
inline namespace ANYBIT_CODE {

/// Columns that are decoded at once.
inline constexpr Index block_cols = 512;
/// Elements past the end of a decoded stretch that some functions here may overwrite.
inline constexpr Index decode_slack = 64;

/// Codes first .. first + n - 1 in a buffer of its own, followed by zeros; `first` need not suit the layout.
template <AnyScheme S>
class Codes {
 public:
  ANYBIT_INLINE void read(const PackedTensor<S>& t, Index row, Index first, Index n) {
    lead_ = first % S::layout::granule;
    unpack_codes(t, row, first - lead_, std::span(buffer_).first(static_cast<std::size_t>(n + lead_)));
    std::memset(buffer_.data() + lead_ + n, 0, static_cast<std::size_t>(decode_slack) * sizeof(typename S::code));
  }
  ANYBIT_INLINE typename S::code* data() { return buffer_.data() + lead_; }

 private:
  alignas(64) std::array<typename S::code, static_cast<std::size_t>(block_cols + S::layout::granule + decode_slack)> buffer_;
  Index lead_ = 0;
};

/// Scales first .. first + n - 1. May write up to decode_slack floats past them.
template <AnyScheme S>
ANYBIT_INLINE void read_scales(const PackedTensor<S>& t, Index first, Index n, float* out) {
  if constexpr (std::is_same_v<typename S::scale_store, ScaleF16>) {
    const std::byte* p = t.bytes().scales().data() + 2 * first;  // at any address: viewed bytes may start anywhere
    // Whole vectors, as long as the section goes on.
    const Index readable = S::granularity::count(t.extents()) - first;
    Index i = 0;
    for (; i < n && i + simd::width <= readable; i += simd::width) simd::store(out + i, simd::load_f16(p + 2 * i));
    for (; i < n; ++i) {
      std::uint16_t half;
      std::memcpy(&half, p + 2 * i, 2);
      out[i] = f16_to_f32(half);
    }
  } else {
    t.load_scales(first, {out, static_cast<std::size_t>(n)});
  }
}

/// Calls use(levels) with the cheaper decoder if no special value was seen.
template <Format F, class Use>
ANYBIT_INLINE void with_levels(bool special, Use use) {
  if constexpr (Levels<F>::has_specials)
    if (special) return use(Levels<F, true>());
  use(Levels<F, false>());
}

/// Zero points first .. first + n - 1 of all, at most 512.
template <AnyScheme S>
ANYBIT_INLINE void read_zeros(const PackedTensor<S>& t, Index first, Index n, float* out) {
  const Index lead = first % BitStream::granule;
  std::array<typename S::code, 512 + BitStream::granule> codes;
  unpack_row<BitStream, S::bits>(t.bytes().zeros().data(), 0, first - lead,
                                 std::span(codes).first(static_cast<std::size_t>(lead + n)));
  for (Index i = 0; i < n; ++i) out[i] = static_cast<float>(codes[static_cast<std::size_t>(lead + i)]);
}

namespace detail {

/// Columns of the fast bodies at once: few enough that the scales of groups of 16 are a small buffer.
inline constexpr Index long_block = 4096;

#if defined(ANYBIT_DEQUANTIZE_AT_ONCE)
/// How the bodies that go from packed codes to floats at once read a scheme.
enum class Body { none, lookup, steps, bf16 };
template <Format F>
constexpr bool has_exact_steps() {
  if constexpr (UniformFormat<F> && has_integer_dot_v<F>) {
    constexpr float step = F::step;
    return (std::bit_cast<std::uint32_t>(step) & 0x7FFFFF) == 0 && step >= 0x1p-60f && step <= 0x1p60f &&
           (!has_zero_point_v<F> || step == 1);
  }
  return false;
}
#endif
#if defined(ANYBIT_UNPACK_VBMI)
template <AnyScheme S>
constexpr Body body() {
  using F = typename S::format;
  if (!std::is_same_v<typename S::layout, BitStream> || S::bits > 8) return Body::none;
  if constexpr (S::bits <= 4) return Body::lookup;
  if constexpr (has_exact_steps<F>())
    if (S::bits < 8 || level_map<F>() != LevelMap::table) return Body::steps;
  if constexpr (S::bits >= 5 && S::bits <= 8)
    if (!has_zero_point_v<F> && byte_tables_v<F>.bf16) return Body::bf16;
  return Body::none;
}

/// n codes; may change the scales, of which there are `count`. False where they ask for the way through bytes.
template <AnyScheme S>
ANYBIT_INLINE bool run_body(const std::byte* in, Index n, float*, Index, const simd::Groups& groups, float* out) {
  using F = typename S::format;
  constexpr Body how = body<S>();
  if constexpr (how == Body::lookup) {
    simd::x86::dequantize_lookup_vbmi<S::bits>(in, n, decode_table_v<F>.data(), groups, out);
  } else if constexpr (how == Body::steps) {
    constexpr LevelMap map = level_map<F>();
    simd::x86::dequantize_steps_vbmi<S::bits, S::bits == 8 && map == LevelMap::sign_magnitude>(
        in, n, level_bytes_v<F>.bytes.data(), map == LevelMap::flip_sign_bit ? 128 : 0, level_grid_v<F>.lowest, F::step, groups,
        out);
  } else if constexpr (how == Body::bf16) {
    simd::x86::dequantize_bf16_vbmi<S::bits>(in, n, byte_tables_v<F>.high.data(), byte_tables_v<F>.low.data(), groups, out);
  }
  return true;
}
#elif defined(ANYBIT_UNPACK_AVX2)
template <AnyScheme S>
constexpr Body body() {
  using F = typename S::format;
  // Bytes need no unpacking; 1 bit is the table's.
  if constexpr (std::is_same_v<typename S::layout, BitStream> && S::bits >= 2 && S::bits <= 7 && has_exact_steps<F>())
    if (level_map<F>() != LevelMap::table) return Body::steps;
  return Body::none;
}
template <AnyScheme S>
ANYBIT_INLINE bool run_body(const std::byte* in, Index n, float* scales, Index count, const simd::Groups& groups, float* out) {
  using F = typename S::format;
  using simd::x86::Sign;
  constexpr LevelMap map = level_map<F>();
  constexpr Sign sign = map == LevelMap::sign_magnitude  ? Sign::magnitude
                        : map == LevelMap::flip_sign_bit ? Sign::twos_complement
                                                         : Sign::none;
  constexpr int lowest = sign == Sign::none ? level_grid_v<F>.lowest : 0;
  constexpr float unit = simd::x86::unit_of_steps<S::bits, sign>(F::step);
  for (Index g = 0; g < count; ++g) {
    const float scale = scales[g];
    scales[g] *= unit;
    if (scales[g] * (1.0f / unit) != scale) return false;  // subnormal now, and lost places
  }
  simd::x86::dequantize_steps_avx2<S::bits, sign, S::has_zero_point || lowest != 0>(in, n, lowest, groups, out);
  return true;
}
#endif

/// scale * (level - zero) of prepared codes, in whole vectors where `room` floats may be written, to the end where fewer.
template <Format F, class L>
ANYBIT_INLINE void write_group(const L& levels, const code_t<F>* codes, Affine a, Index n, Index room, float* out) {
  const auto run = [&](auto weights) __attribute__((always_inline)) {
    const Index whole = std::min(n, room - simd::width + 1);
    Index j = 0;
    for (; j < whole; j += simd::width) simd::store(out + j, weights(levels(codes + j)));
    for (; j < n; j += simd::width) simd::store_partial(out + j, weights(levels(codes + j)), std::min(simd::width, room - j));
  };
  const float with_factor = a.scale * L::factor;
  const simd::f32 scale = simd::broadcast(with_factor);
  if constexpr (has_zero_point_v<F>) {
    const simd::f32 zero = simd::broadcast(a.zero);
    run([&](simd::f32 level) { return scale * (level - zero); });
  } else if (L::factor == 1.0f || with_factor >= std::numeric_limits<float>::min()) {
    run([&](simd::f32 level) { return scale * level; });
  } else {  // a subnormal scale would lose places to the factor
    const simd::f32 alone = simd::broadcast(a.scale), factor = simd::broadcast(L::factor);
    run([&](simd::f32 level) { return alone * (factor * level); });
  }
}

/// Columns first .. first + n - 1, 1 <= n <= block_cols, for every scheme.
template <AnyScheme S>
inline void dequantize_block(const PackedTensor<S>& t, Index row, Index first, Index n, float* out) {
  using F = typename S::format;
  Codes<S> codes;
  codes.read(t, row, first, n);
  const bool special = Levels<F>::prepare(codes.data(), n);
  const Index group = S::granularity::group_cols(t.cols()), first_group = first / group,
              groups = (first + n - 1) / group - first_group + 1;
  float scales[static_cast<std::size_t>(block_cols + decode_slack)];
  const Index index = S::granularity::index(t.extents(), row, first_group);
  read_scales(t, index, groups, scales);
  with_levels<F>(special, [&](const auto& levels) {
    Index i = 0;
    for (Index g = 0; g < groups; ++g) {
      // The last vector of a group may spill into the next group, which then writes over it.
      const Index end = std::min(n, (first_group + g + 1) * group - first);
      write_group<F>(levels, codes.data() + i, {scales[g], t.zero(index + g)}, end - i, n - i, out + i);
      i = end;
    }
  });
}

}  // namespace detail

/// How packed codes of a scheme become weights, with the instructions that this translation unit may use: from the bit stream at
/// once, or by way of a byte (or two) for each code.
template <AnyScheme S>
constexpr std::string_view decode_plan() {
#if defined(ANYBIT_DEQUANTIZE_AT_ONCE)
  using detail::Body;
  constexpr Body how = detail::body<S>();
  if constexpr (how == Body::lookup) return "at once: looks scaled levels up";
  if constexpr (how == Body::steps) return "at once: converts integers";
  if constexpr (how == Body::bf16) return "at once: looks bfloat16 levels up";
#endif
  return Levels<typename S::format>::name;
}

/// dequantize_value<F> of n codes that share an affine.
template <Format F>
inline void dequantize_codes(const code_t<F>* codes, Affine a, Index n, float* out) {
  alignas(64) std::array<code_t<F>, static_cast<std::size_t>(block_cols + decode_slack)> some;
  for (Index done = 0; done < n; done += block_cols) {
    const Index count = std::min(block_cols, n - done);
    std::memcpy(some.data(), codes + done, static_cast<std::size_t>(count) * sizeof(code_t<F>));
    std::memset(some.data() + count, 0, static_cast<std::size_t>(decode_slack) * sizeof(code_t<F>));
    const bool special = Levels<F>::prepare(some.data(), count);
    with_levels<F>(special,
                   [&](const auto& levels) { detail::write_group<F>(levels, some.data(), a, count, count, out + done); });
  }
}

/// Weights of columns first .. first + n - 1 of a row, in stored order. Writes nothing past them.
template <AnyScheme S>
inline void dequantize_columns(const PackedTensor<S>& t, Index row, Index first, Index n, float* out) {
  const auto by_blocks = [&](Index from, Index count, float* to) {
    for (Index done = 0; done < count; done += block_cols)
      detail::dequantize_block(t, row, from + done, std::min(block_cols, count - done), to + done);
  };
#if defined(ANYBIT_DEQUANTIZE_AT_ONCE)
  if constexpr (detail::body<S>() != detail::Body::none) {
    const Index group = S::granularity::group_cols(t.cols());
    if (first % 16 == 0 && (group % 16 == 0 || group >= t.cols())) {
      for (Index done = 0; done < n; done += detail::long_block) {
        const Index from = first + done, count = std::min(detail::long_block, n - done), g = from / group;
        const Index groups = (from + count - 1) / group - g + 1, index = S::granularity::index(t.extents(), row, g);
        float scales[static_cast<std::size_t>(detail::long_block / 16 + decode_slack)],
            zeros[static_cast<std::size_t>(S::has_zero_point ? detail::long_block / 16 + 1 : 1)];
        read_scales(t, index, groups, scales);
        if constexpr (S::has_zero_point) read_zeros(t, index, groups, zeros);
        if (!detail::run_body<S>(t.row_codes(row) + from / 8 * S::bits, count, scales, groups,
                                 {scales, S::has_zero_point ? zeros : nullptr, (g + 1) * group - from, group}, out + done))
          by_blocks(from, count, out + done);
      }
      return;
    }
  }
#endif
  by_blocks(first, n, out);
}

}  // namespace ANYBIT_CODE
}  // namespace anybit::decoding

#include <anybit/core/macros_end.hpp>
