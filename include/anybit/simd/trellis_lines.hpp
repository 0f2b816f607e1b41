#pragma once
// A tile of a trellis code with a linear codebook as lines of 64 bytes: four columns of 16 rows, as dot products of bytes want
// them.

#include <anybit/core/macros_begin.hpp>

#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>

#include <anybit/core/isa.hpp>
#include <anybit/simd/arm/trellis_lines_neon.hpp>
#include <anybit/simd/linear_codebook.hpp>
#include <anybit/simd/x86/trellis_lines_avx2.hpp>
#include <anybit/simd/xsimd_compat.hpp>

ANYBIT_VECTOR_CODE_BEGIN
namespace anybit::simd {
inline namespace ANYBIT_CODE {

/// Byte 4 r + j of line q is level + 128 of the weight of row r and column 4 q + j. Bits as BitshiftTrellis<L, K> has them, steps
/// through four columns of each row; 256 of them.
template <int L, int K, class Book>
class TileLines {
  static constexpr std::size_t tile_bytes = 32 * K;
  using Tables = LinearTables<L, Book>;

 public:
#if ANYBIT_HAS_GFNI
  /// One instruction takes 64 windows of 8 bits from anywhere in eight words of 64, another maps each by a matrix of bits.
  static constexpr bool in_registers = K <= 4;
#endif

  explicit ANYBIT_INLINE TileLines(const std::byte* tile) : tile_(tile) {
#if ANYBIT_HAS_GFNI
    if constexpr (K == 1)
      low_ = _mm512_castsi256_si512(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(tile)));
    else if constexpr (in_registers)
      low_ = _mm512_loadu_si512(tile);
    if constexpr (K == 3) high_ = _mm512_castsi256_si512(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(tile + 64)));
    if constexpr (K == 4) high_ = _mm512_loadu_si512(tile + 64);
#endif
  }
  /// A line as a vector of 64 bytes.
  template <class Bytes>
  ANYBIT_INLINE Bytes line(Index q) const {
    Bytes out;
    static_assert(sizeof out == 64);
#if ANYBIT_HAS_GFNI
    if constexpr (in_registers) {
      const auto constant = [](const auto& a) { return _mm512_load_si512(a.data()); };
      const __m512i places = constant(sources[static_cast<std::size_t>(q)]);
      __m512i bits;
      if constexpr (K <= 2)
        bits = _mm512_permutexvar_epi8(places, low_);
      else
        bits = _mm512_permutex2var_epi8(low_, places, high_);
      constexpr int other = Tables::zero;
      __m512i index = mapped<other>(_mm512_multishift_epi64_epi8(constant(windows<0>), bits), matrix(0));
      if constexpr (L > 8)
        index = _mm512_xor_si512(index, mapped<0>(_mm512_multishift_epi64_epi8(constant(windows<8>), bits), matrix(8)));
      const auto part = [&](std::size_t i) { return _mm512_load_si512(shifted_levels.data() + 64 * i); };
      const __m512i upper = _mm512_permutex2var_epi8(part(2), index, part(3));
      const __mmask64 upper_bit = _mm512_movepi8_mask(index);
      __m512i bytes;
      if constexpr (Tables::symmetric)
        bytes = _mm512_mask_sub_epi8(upper, upper_bit, _mm512_setzero_si512(), upper);
      else
        bytes = _mm512_mask_blend_epi8(upper_bit, _mm512_permutex2var_epi8(part(0), index, part(1)), upper);
      std::memcpy(&out, &bytes, sizeof out);
      return out;
    }
#endif
#if ANYBIT_HAS_AVX2
    if constexpr (TrellisLinesAvx2<L, K, Book>::usable) {
      const auto parts = TrellisLinesAvx2<L, K, Book>::line(tile_, q);
      static_assert(sizeof parts == sizeof out);
      std::memcpy(&out, &parts, sizeof out);
      return out;
    }
#elif ANYBIT_HAS_NEON
    if constexpr (TrellisLinesNeon<L, K, Book>::usable) {
      const auto parts = TrellisLinesNeon<L, K, Book>::line(tile_, q);
      static_assert(sizeof parts == sizeof out);
      std::memcpy(&out, &parts, sizeof out);
      return out;
    }
#endif
    std::uint8_t bytes[64];
    constexpr std::size_t steps = 64;
    for (std::size_t i = 0; i < steps; ++i) {
      // The last bit of the step's state, from the end of the tile's number, and up to 24 bits from its byte on, in the loop.
      const std::size_t at = (steps * static_cast<std::size_t>(3 - q) + steps - 1 - i) * K;
      std::uint32_t window = 0;
      for (std::size_t b = 0; b < 3; ++b) window |= std::to_integer<std::uint32_t>(tile_[(at / 8 + b) % tile_bytes]) << (8 * b);
      bytes[i] = by_state[window >> (at % 8) & ((std::uint32_t{1} << L) - 1)];
    }
    std::memcpy(&out, bytes, sizeof out);
    return out;
  }

 private:
  alignas(64) static constexpr std::array<std::uint8_t, 256> shifted_levels = [] {
    std::array<std::uint8_t, 256> s{};
    for (std::size_t i = 0; i < 256; ++i) s[i] = static_cast<std::uint8_t>(Book::levels[i] + 128);
    return s;
  }();
  static inline const std::array<std::uint8_t, std::size_t{1} << L> by_state = [] {
    std::array<std::uint8_t, std::size_t{1} << L> s{};
    for (std::size_t i = 0; i < s.size(); ++i) s[i] = static_cast<std::uint8_t>(Book::value(static_cast<std::uint32_t>(i)) + 128);
    return s;
  }();

#if ANYBIT_HAS_GFNI
  using Places = std::array<std::uint8_t, 64>;
  struct alignas(64) Aligned : Places {};
  /// Of each line: the bytes that its eight words of 64 bits are made of. Word i has the steps of rows 2 i and 2 i + 1, the last
  /// one in its lowest bits, and the bits before them.
  static constexpr std::array<Aligned, 4> sources = [] {
    std::array<Aligned, 4> s{};
    for (std::size_t q = 0; q < 4; ++q)
      for (std::size_t i = 0; i < 8; ++i)
        for (std::size_t j = 0; j < 8; ++j)
          s[q][8 * i + j] = static_cast<std::uint8_t>((8 * K * (3 - q) + (7 - i) * K + j) % tile_bytes);
    return s;
  }();
  /// Where the bits from `From` on of a word's eight states begin.
  template <int From>
  static constexpr Aligned windows = [] {
    Aligned w{};
    for (std::size_t i = 0; i < 64; ++i) w[i] = static_cast<std::uint8_t>((7 - i % 8) * K + From);
    return w;
  }();
  /// Bits from .. from + 7 of the state into the index, for vgf2p8affineqb: row b of its matrix, for bit b, is byte 7 - b.
  static constexpr std::uint64_t matrix(std::size_t from) {
    std::uint64_t m = 0;
    for (std::size_t b = 0; b < 8; ++b)
      for (std::size_t i = 0; i < 8 && from + i < L; ++i)
        m |= static_cast<std::uint64_t>(Tables::exchanged(Book::hash[from + i]) >> b & 1) << (8 * (7 - b) + i);
    return m;
  }
  template <int Exchanged>
  static ANYBIT_INLINE __m512i mapped(__m512i bytes, std::uint64_t matrix) {
    return _mm512_gf2p8affine_epi64_epi8(bytes, _mm512_set1_epi64(static_cast<long long>(matrix)), Exchanged);
  }
  __m512i low_, high_;
#endif
  const std::byte* tile_;
};

}  // namespace ANYBIT_CODE
}  // namespace anybit::simd
ANYBIT_VECTOR_CODE_END

#include <anybit/core/macros_end.hpp>
