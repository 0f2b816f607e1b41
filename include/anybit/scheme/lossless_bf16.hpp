#pragma once
// bfloat16 without loss in about 11 bits (DFloat11: Zhang et al. 2025, arXiv:2504.11651): sign and mantissa as they are, the
// exponent, which carries little information, in a Huffman code of the tensor's own. Readable twin: reference/lossless_bf16.hpp.

#include <anybit/core/macros_begin.hpp>

#include <algorithm>
#include <array>
#include <bit>
#include <cstdint>
#include <cstring>
#include <span>
#include <string>
#include <string_view>

#include <anybit/core/result.hpp>
#include <anybit/scheme/concepts.hpp>
#include <anybit/scheme/huffman_code.hpp>

namespace anybit {
inline namespace ANYBIT_ABI {

namespace section_tags {
inline constexpr SectionTag code_lengths{'h', 'u', 'f', 'l'}, offsets{'o', 'f', 'f', 's'}, signs_mantissas{'s', 'g', 'm', 'a'},
    exponents{'e', 'x', 'p', 'o'};
}

/// Every bit pattern comes back: infinities, payloads of NaN, -0, subnormals. Each block of 512 weights of a row, the last one
/// shorter, has a run of whole bytes of its own among the exponents, so rows decode in any order.
///   code_lengths      4 bits for each of the 256 exponents, the even one lower: bits of its code, 0 to 12. The code is canonical
///                     and complete.
///   offsets           where blocks start, row after row: 8 bytes for every 64th block, then 2 bytes for every block, which
///                     count from the last 8
///   signs_mantissas   a byte for each weight: sign, then 7 bits of mantissa
///   exponents         codes, the first bit in a byte's highest; 8 zero bytes end it, so that readers may load 8 at a time
struct LosslessBf16 {
  static constexpr std::string_view name = "lossless_bf16";
  static constexpr int longest_code = 12;  ///< a table of all windows has 8 KB and fits any first-level cache
  static constexpr Index block = 512, blocks_per_base = 64, exponents_slack = 8;

  static constexpr Index blocks_per_row(Index cols) { return ceil_div(cols, block); }
  static constexpr Index blocks(Extents e) { return e.rows * blocks_per_row(e.cols); }
  static constexpr Index bases(Extents e) { return ceil_div(blocks(e), blocks_per_base); }
  /// The exponents take what they take: at most a byte each and a byte more for every block, as in the code of 8 bits for all.
  static constexpr std::array<SectionSize, 4> sections(Extents e) {
    return {{{section_tags::code_lengths, 128},
             {section_tags::offsets, 8 * bases(e) + 2 * blocks(e)},
             {section_tags::signs_mantissas, e.size()},
             {section_tags::exponents, e.size() + blocks(e) + exponents_slack, true}}};
  }
  static ANYBIT_INLINE huffman::Lengths lengths(Sections s) {
    huffman::Lengths out{};
    for (std::size_t i = 0; i < 128; ++i) {
      const auto two = std::to_integer<std::uint8_t>(s[0][i]);
      out[2 * i] = two & 15, out[2 * i + 1] = two >> 4;
    }
    return out;
  }
  /// The first byte of a block's exponents.
  static ANYBIT_INLINE std::uint64_t start(Sections s, Extents e, Index of_block) {
    std::uint64_t base;
    std::uint16_t offset;
    std::memcpy(&base, s[1].data() + 8 * (of_block / blocks_per_base), 8);
    std::memcpy(&offset, s[1].data() + 8 * bases(e) + 2 * of_block, 2);
    return base + offset;
  }

  /// Four rows are decoded in turns: a code's place follows from the code before it, so one row alone would wait for itself.
  static constexpr Index granule_rows = 4, granule_cols = block;

  /// Tables for decoding, built once by callers that read many granules.
  class Decoder {
   public:
    explicit ANYBIT_INLINE Decoder(Sections s) {
      // Codes of a length follow each other, behind all shorter ones. Most exponents have none: eight bytes at a time are passed.
      std::size_t at[17] = {};
      const auto for_each_code = [s](auto&& f) {
        for (std::size_t i = 0; i < 128; i += 8) {
          std::uint64_t sixteen;
          std::memcpy(&sixteen, s[0].data() + i, 8);
          for (std::size_t e = 2 * i; sixteen != 0; ++e, sixteen >>= 4)
            if ((sixteen & 15) != 0) f(e, sixteen & 15);
        }
      };
      for_each_code([&](std::size_t, std::uint64_t bits) { at[bits + 1] += windows >> bits; });
      for (std::size_t bits = 1; bits < 17; ++bits) at[bits] += at[bits - 1];
      // More than all windows only in bytes that check() refuses; fewer there and in blank ones, where nothing moves on.
      const auto fill = [this](std::size_t from, std::size_t to, std::uint16_t entry) {
        std::fill(table_.begin() + static_cast<std::ptrdiff_t>(std::min(from, windows)),
                  table_.begin() + static_cast<std::ptrdiff_t>(std::min(to, windows)), entry);
      };
      fill(at[16], windows, 0);
      for_each_code([&](std::size_t e, std::uint64_t bits) {
        const std::size_t from = at[bits];
        at[bits] += windows >> bits;
        fill(from, at[bits], static_cast<std::uint16_t>(e << 8 | bits));
      });
    }

    /// As LosslessBf16::decode.
    ANYBIT_INLINE void operator()(Sections s, Extents e, Index row, Index col, float* out) const {
      const Index rows = std::min(granule_rows, e.rows - row), n = std::min(block, e.cols - col);
      std::uint64_t at[granule_rows];
      for (Index r = 0; r < rows; ++r) at[r] = 8 * start(s, e, (row + r) * blocks_per_row(e.cols) + col / block);
      std::uint8_t exponents[granule_rows][block];
      if (rows == granule_rows)
        read<granule_rows>(s[3].data(), at, n, exponents);
      else
        for (Index r = 0; r < rows; ++r) read<1>(s[3].data(), at + r, n, exponents + r);
      for (Index r = 0; r < rows; ++r) {
        std::uint8_t rest[block];
        std::memcpy(rest, s[2].data() + (row + r) * e.cols + col, static_cast<std::size_t>(n));
        for (Index i = n; i % 16 != 0; ++i) rest[i] = exponents[r][i] = 0;
        for (Index i = 0; i < n; i += 16)
          for (Index j = i; j < i + 16; ++j)  // constant length: compilers vectorize it at -O2 too
            out[r * block + j] =
                std::bit_cast<float>(std::uint32_t{rest[j] & 0x80u} << 24 | std::uint32_t{exponents[r][j]} << 23 |
                                     std::uint32_t{rest[j] & 0x7Fu} << 16);
      }
    }

    /// The bit behind n exponents that start at bit `at` of the section. More than `end`, the bit where the slack begins, if they
    /// do not end before it.
    ANYBIT_INLINE std::uint64_t skip(const std::byte* exponents, std::uint64_t at, Index n, std::uint64_t end) const {
      for (Index i = 0; i < n; i += 4) {
        if (at >= end) return end + 1;
        std::uint64_t window = load(exponents, at);
        for (Index j = i; j < std::min(i + 4, n); ++j) at += std::uint64_t{next(window)} & 63;
      }
      return at;
    }

   private:
    static constexpr std::size_t windows = std::size_t{1} << longest_code;

    /// 64 bits from bit `at` on, at least 57 of which are read.
    static ANYBIT_INLINE std::uint64_t load(const std::byte* from, std::uint64_t at) {
      const std::byte* const p = from + at / 8;
      const auto byte = [p](int i) { return std::to_integer<std::uint64_t>(p[i]) << (56 - 8 * i); };
      // Spelled out, compilers see one load of 8 bytes in it.
      return (byte(0) | byte(1) | byte(2) | byte(3) | byte(4) | byte(5) | byte(6) | byte(7)) << (at % 8);
    }
    /// The entry of the code that a window begins with, and the window behind it.
    ANYBIT_INLINE std::uint16_t next(std::uint64_t& window) const {
      const std::uint16_t found = table_[static_cast<std::size_t>(window >> (64 - longest_code))];
      window <<= found & 63;
      return found;
    }
    /// n exponents of each of `count` rows. A window of 57 bits holds four codes, and its last bit, which none of them has, tells
    /// how far it was shifted.
    template <Index count>
    ANYBIT_INLINE void read(const std::byte* from, const std::uint64_t* starts, Index n, std::uint8_t (*out)[block]) const {
      std::uint64_t at[static_cast<std::size_t>(count)];
      for (Index r = 0; r < count; ++r) at[r] = starts[r];
      Index i = 0;
      for (; i + 4 <= n; i += 4) {
        std::uint64_t window[static_cast<std::size_t>(count)];
#pragma GCC unroll 4
        for (Index r = 0; r < count; ++r) window[r] = load(from, at[r]) | 1;
#pragma GCC unroll 4
        for (Index j = 0; j < 4; ++j)
#pragma GCC unroll 4
          for (Index r = 0; r < count; ++r) out[r][i + j] = static_cast<std::uint8_t>(next(window[r]) >> 8);
#pragma GCC unroll 4
        for (Index r = 0; r < count; ++r) at[r] += static_cast<std::uint64_t>(std::countr_zero(window[r]));
      }
      for (Index r = 0; r < count; ++r) {
        std::uint64_t window = i < n ? load(from, at[r]) : 0;
        for (Index j = i; j < n; ++j) out[r][j] = static_cast<std::uint8_t>(next(window) >> 8);
      }
    }

    /// For every 12 bits 256 times the exponent whose code they begin with, and its length.
    alignas(64) std::array<std::uint16_t, windows> table_;
  };

  static ANYBIT_INLINE void decode(Sections s, Extents e, Index row, Index col, float* out) {
    const Decoder decoder(s);
    decoder(s, e, row, col, out);
  }

  /// Reads every code once, so that decoding need not look for ends.
  template <class = UnderTheseFlags>
  static Status check(Sections s, Extents e) {
    const auto damaged = [](std::string what) {
      return Error{ErrorCode::corrupt_data, "lossless_bf16: " + std::move(what) + "; the file is damaged, fetch it again"};
    };
    std::uint32_t sum = 0;
    const huffman::Lengths all = lengths(s);
    for (std::size_t i = 0; i < all.size(); ++i) {
      if (all[i] > longest_code)
        return damaged("the code of exponent " + std::to_string(i) + " has " + std::to_string(all[i]) + " bits, 12 are the most");
      if (all[i] > 0) sum += 1u << (longest_code - all[i]);
    }
    if (sum != 1u << longest_code)
      return damaged("the code is not complete: 2^-length of all exponents is " + std::to_string(sum) + "/4096 and not 1");
    const std::uint64_t size = s[3].size();
    if (size < static_cast<std::uint64_t>(exponents_slack)) return damaged("the exponents have no end");
    const std::uint64_t last = size - static_cast<std::uint64_t>(exponents_slack);
    const Decoder decoder(s);
    std::uint64_t expected = 0;
    for (Index b = 0; b < blocks(e); ++b) {
      const Index first = b % blocks_per_row(e.cols) * block, row = b / blocks_per_row(e.cols);
      const auto where = [&] { return "block of row " + std::to_string(row) + ", column " + std::to_string(first); };
      if (const std::uint64_t at = start(s, e, b); at != expected)
        return damaged(where() + " starts at byte " + std::to_string(at) + ", the one before it ends at " +
                       std::to_string(expected));
      const std::uint64_t bits = decoder.skip(s[3].data(), 8 * expected, std::min(block, e.cols - first), 8 * last);
      expected = (bits + 7) / 8;
      if (expected > last) return damaged(where() + " runs past the end of the exponents");
    }
    if (expected != last)
      return damaged("the exponents have " + std::to_string(last) + " bytes, and end at " + std::to_string(expected));
    return Ok{};
  }
};

}  // namespace ANYBIT_ABI
}  // namespace anybit

#include <anybit/core/macros_end.hpp>
