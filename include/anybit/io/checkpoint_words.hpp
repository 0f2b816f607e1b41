#pragma once
// Codes in the 32-bit words of GPTQ, AWQ and compressed-tensors checkpoints. A word is little-endian, its lowest bits come first.

#include <anybit/core/macros_begin.hpp>

#include <algorithm>
#include <array>
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
  std::array<std::uint8_t, 32> fields;
  for (Index first = 0; first < n; first += 32, words += bits * stride) {
    const Index count = std::min<Index>(32, n - first);
    std::fill(codes + first, codes + first + count, std::uint8_t{0});
    for_each_plane(bits, [&](int low, int plane, Index word) {
      const auto unpack = plane == 4 ? &unpack_whole<4> : plane == 2 ? &unpack_whole<2> : &unpack_whole<1>;
      unpack(words + word * stride, stride, count, fields.data());
      for (Index i = 0; i < count; ++i)
        codes[first + i] = static_cast<std::uint8_t>(codes[first + i] | fields[static_cast<std::size_t>(i)] << low);
    });
  }
}

template <int Bits>
void pack_stream(const std::uint8_t* codes, Index n, std::uint32_t* words, Index stride) {
  std::uint64_t window = 0;
  int filled = 0;
  for (Index i = 0; i < n; ++i) {
    window |= static_cast<std::uint64_t>(codes[i]) << filled;
    filled += Bits;
    if (filled < 32) continue;
    *words = static_cast<std::uint32_t>(window);
    words += stride;
    window >>= 32;
    filled -= 32;
  }
  if (filled > 0) *words = static_cast<std::uint32_t>(window);
}
template <int Bits>
void pack_whole(const std::uint8_t* codes, Index n, std::uint32_t* words, Index stride) {
  constexpr Index each = 32 / Bits;
  for (Index i = 0; i < n; i += each, words += stride) {
    std::uint32_t word = 0;
    for (Index j = 0; j < std::min(each, n - i); ++j) word |= static_cast<std::uint32_t>(codes[i + j]) << (Bits * j);
    *words = word;
  }
}
inline void pack_planes(int bits, const std::uint8_t* codes, Index n, std::uint32_t* words, Index stride) {
  std::array<std::uint8_t, 32> fields;
  for (Index first = 0; first < n; first += 32, words += bits * stride)
    for_each_plane(bits, [&](int low, int plane, Index word) {
      fields.fill(0);
      for (Index i = 0; i < std::min<Index>(32, n - first); ++i)
        fields[static_cast<std::size_t>(i)] = static_cast<std::uint8_t>(codes[first + i] >> low & ((1 << plane) - 1));
      const auto pack = plane == 4 ? &pack_whole<4> : plane == 2 ? &pack_whole<2> : &pack_whole<1>;
      pack(fields.data(), 32, words + word * stride, stride);
    });
}

/// use<bits>() of a width that is known at run time.
template <class Use>
void with_width(int bits, Use use) {
  switch (bits) {
    case 1: return use.template operator()<1>();
    case 2: return use.template operator()<2>();
    case 3: return use.template operator()<3>();
    case 4: return use.template operator()<4>();
    case 5: return use.template operator()<5>();
    case 6: return use.template operator()<6>();
    case 7: return use.template operator()<7>();
    default: return use.template operator()<8>();
  }
}

}  // namespace detail

/// n codes of words[0], words[stride], words[2 * stride], ..; reads words_of(layout, bits, n) of them.
inline void unpack_words(WordLayout layout, int bits, const std::uint32_t* words, Index stride, Index n, std::uint8_t* codes) {
  const bool whole = layout == WordLayout::padded || 32 % bits == 0;
  if (layout == WordLayout::planar && !whole) return detail::unpack_planes(bits, words, stride, n, codes);
  detail::with_width(bits, [&]<int Bits>() {
    whole ? detail::unpack_whole<Bits>(words, stride, n, codes) : detail::unpack_stream<Bits>(words, stride, n, codes);
  });
}

/// The inverse: n codes below 2^bits into words, which it sets; a last word that is not full is filled with zeros.
inline void pack_words(WordLayout layout, int bits, const std::uint8_t* codes, Index n, std::uint32_t* words, Index stride) {
  const bool whole = layout == WordLayout::padded || 32 % bits == 0;
  if (layout == WordLayout::planar) {  // whole runs of 32 codes, also at the widths that have one plane
    for (Index w = 0; w < words_of(layout, bits, n); ++w) words[w * stride] = 0;
    if (!whole) return detail::pack_planes(bits, codes, n, words, stride);
  }
  detail::with_width(bits, [&]<int Bits>() {
    whole ? detail::pack_whole<Bits>(codes, n, words, stride) : detail::pack_stream<Bits>(codes, n, words, stride);
  });
}

}  // namespace ANYBIT_CODE
}  // namespace anybit::io

#include <anybit/core/macros_end.hpp>
