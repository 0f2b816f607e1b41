#pragma once
// Codes in the 32-bit words of GPTQ, AWQ and compressed-tensors checkpoints. A word is little-endian, its lowest bits come first.

#include <anybit/core/macros_begin.hpp>

#include <algorithm>
#include <cstdint>

#include <anybit/core/types.hpp>

namespace anybit::io {
inline namespace ANYBIT_CODE {

/// The order of codes in words. At 1, 2, 4 and 8 bits all three are the same.
enum class WordLayout {
  dense,   ///< one bit stream: a code may begin in one word and end in the next
  padded,  ///< 32 / bits codes a word (rounded down); the bits left over are 0
  planar,  ///< 32 codes in `bits` words: planes of 1, 2, 4 bits, the highest power of two first, hold the code's low bits upwards
};

/// Words of n codes of 1 to 8 bits.
constexpr Index words_of(WordLayout layout, int bits, Index n) {
  if (layout == WordLayout::padded) return ceil_div(n, 32 / bits);
  return layout == WordLayout::planar ? ceil_div(n, 32) * bits : ceil_div(n * bits, 32);
}

namespace detail {

template <int Bits>
void unpack_stream(const std::uint32_t* words, Index stride, Index n, std::uint8_t* codes) {
  constexpr std::uint32_t mask = (1u << Bits) - 1;
  std::uint64_t window = 0;
  int filled = 0;
  for (Index i = 0; i < n; ++i) {
    if (filled < Bits) {
      window |= static_cast<std::uint64_t>(*words) << filled;
      words += stride;
      filled += 32;
    }
    codes[i] = static_cast<std::uint8_t>(window & mask);
    window >>= Bits;
    filled -= Bits;
  }
}
template <int Bits>
void unpack_whole(const std::uint32_t* words, Index stride, Index n, std::uint8_t* codes) {
  constexpr Index each = 32 / Bits;
  constexpr std::uint32_t mask = (1u << Bits) - 1;
  for (Index i = 0; i < n; i += each, words += stride)
    for (Index j = 0; j < std::min(each, n - i); ++j) codes[i + j] = static_cast<std::uint8_t>(*words >> (Bits * j) & mask);
}
/// The planes of a width, from the code's low bits upwards: use(first bit, bits of the plane, first word of the plane).
template <class Use>
void for_each_plane(int bits, Use use) {
  int low = 0;
  for (int plane = 8; plane > 0; plane /= 2)
    if (bits & plane) use(low, plane, static_cast<Index>(low)), low += plane;
}
inline void unpack_planes(int bits, const std::uint32_t* words, Index stride, Index n, std::uint8_t* codes) {
  std::fill(codes, codes + n, std::uint8_t{0});
  for (Index first = 0; first < n; first += 32, words += bits * stride)
    for_each_plane(bits, [&](int low, int plane, Index word) {
      const Index each = 32 / plane;
      const std::uint32_t mask = (1u << plane) - 1;
      for (Index j = 0; j < std::min<Index>(32, n - first); ++j)
        codes[first + j] |= static_cast<std::uint8_t>((words[(word + j / each) * stride] >> (plane * (j % each)) & mask) << low);
    });
}

}  // namespace detail

/// n codes of words[0], words[stride], words[2 * stride], ..; reads words_of(layout, bits, n) of them.
inline void unpack_words(WordLayout layout, int bits, const std::uint32_t* words, Index stride, Index n, std::uint8_t* codes) {
  const bool whole = layout == WordLayout::padded || 32 % bits == 0;
  const auto width = [&]<int Bits>() {
    return whole ? detail::unpack_whole<Bits>(words, stride, n, codes) : detail::unpack_stream<Bits>(words, stride, n, codes);
  };
  if (layout == WordLayout::planar && !(32 % bits == 0)) return detail::unpack_planes(bits, words, stride, n, codes);
  switch (bits) {
    case 1: return width.operator()<1>();
    case 2: return width.operator()<2>();
    case 3: return width.operator()<3>();
    case 4: return width.operator()<4>();
    case 5: return width.operator()<5>();
    case 6: return width.operator()<6>();
    case 7: return width.operator()<7>();
    default: return width.operator()<8>();
  }
}

/// The inverse: n codes below 2^bits into words, which it sets; a last word that is not full is filled with zeros.
inline void pack_words(WordLayout layout, int bits, const std::uint8_t* codes, Index n, std::uint32_t* words, Index stride) {
  for (Index w = 0; w < words_of(layout, bits, n); ++w) words[w * stride] = 0;
  if (layout == WordLayout::planar && 32 % bits != 0) {
    for (Index i = 0; i < n; ++i)
      detail::for_each_plane(bits, [&](int low, int plane, Index word) {
        const Index each = 32 / plane, j = i % 32;
        const std::uint32_t field = static_cast<std::uint32_t>(codes[i]) >> low & ((1u << plane) - 1);
        words[(i / 32 * bits + word + j / each) * stride] |= field << (plane * (j % each));
      });
    return;
  }
  const bool whole = layout == WordLayout::padded || 32 % bits == 0;
  const Index each = 32 / bits;
  for (Index i = 0; i < n; ++i) {
    const Index bit = whole ? i / each * 32 + i % each * bits : i * bits, shift = bit % 32;
    words[bit / 32 * stride] |= static_cast<std::uint32_t>(codes[i]) << shift;
    if (shift + bits > 32) words[(bit / 32 + 1) * stride] |= static_cast<std::uint32_t>(codes[i]) >> (32 - shift);
  }
}

}  // namespace ANYBIT_CODE
}  // namespace anybit::io

#include <anybit/core/macros_end.hpp>
