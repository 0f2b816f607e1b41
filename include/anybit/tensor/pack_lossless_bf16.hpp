#pragma once
// bfloat16 values into the scheme LosslessBf16 and back. Readable twin of the bytes: reference/lossless_bf16.hpp.

#include <anybit/core/macros_begin.hpp>

#include <algorithm>
#include <bit>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <anybit/core/finite.hpp>
#include <anybit/core/half.hpp>
#include <anybit/core/result.hpp>
#include <anybit/core/view.hpp>
#include <anybit/scheme/lossless_bf16.hpp>
#include <anybit/tensor/decode_granules.hpp>
#include <anybit/tensor/packed_tensor.hpp>

namespace anybit::lossless {
inline namespace ANYBIT_CODE {

/// Whether a float is a bfloat16 value, to the bit.
inline bool is_bf16(const float& x) { return (std::bit_cast<std::uint32_t>(x) & 0xFFFFu) == 0; }

/// That all are; the error names the first that is none.
inline Status check_bf16(ConstMatrix w) {
  for (Index r = 0; r < w.rows; ++r)
    for (Index c = 0; c < w.cols; ++c)
      if (const float& x = w(r, c); !is_bf16(x)) {
        char text[64];
        std::snprintf(text, sizeof text, "%.9g (0x%08X)", static_cast<double>(x), std::bit_cast<std::uint32_t>(x));
        return Error{ErrorCode::invalid_argument,
                     "lossless_bf16: the value of row " + std::to_string(r) + ", column " + std::to_string(c) + " is " + text +
                         ", which bfloat16 does not have; ask for rounding to nearest, or take a scheme that holds it"};
      }
  return Ok{};
}

/// The nearest bfloat16; where that were infinite, the largest finite one.
inline float nearest_bf16(float x) {
  const float y = bf16_to_f32(f32_to_bf16(x));
  constexpr float largest = 0x1.FEp127f;
  return is_infinite(y) && !is_infinite(x) ? (x < 0 ? -largest : largest) : y;
}

/// word(r, c) is the bit pattern of a weight. Every one is kept.
template <class Word>
PackedTensor<LosslessBf16> pack_words(Extents e, const Word& word, std::string_view provenance) {
  using S = LosslessBf16;
  const auto exponent = [&](Index r, Index c) { return static_cast<std::uint8_t>(word(r, c) >> 7 & 0xFF); };
  huffman::Counts counts{};
  for (Index r = 0; r < e.rows; ++r)
    for (Index c = 0; c < e.cols; ++c) ++counts[exponent(r, c)];
  const huffman::Codes codes = huffman::codes_of(huffman::lengths_of(counts, S::longest_code));

  std::vector<std::uint64_t> starts;
  std::uint64_t end = 0;
  for (Index r = 0; r < e.rows; ++r)
    for (Index first = 0; first < e.cols; first += S::block) {
      starts.push_back(end);
      std::uint64_t bits = 0;
      for (Index c = first; c < std::min(first + S::block, e.cols); ++c) bits += codes.length[exponent(r, c)];
      end += (bits + 7) / 8;
    }
  auto sections = S::sections(e);
  sections[3].bytes = static_cast<Index>(end) + S::exponents_slack;
  PackedBytes bytes = PackedBytes::allocate(S::name, provenance, e, sections, 0);
  const auto section = [&](std::size_t i) { return bytes.mutable_section(bytes.section(sections[i].tag)).data(); };

  for (std::size_t i = 0; i < 128; ++i) section(0)[i] = std::byte(codes.length[2 * i] | codes.length[2 * i + 1] << 4);
  for (Index b = 0; b < S::blocks(e); ++b) {
    const std::uint64_t base = starts[static_cast<std::size_t>(b / S::blocks_per_base * S::blocks_per_base)];
    const auto offset = static_cast<std::uint16_t>(starts[static_cast<std::size_t>(b)] - base);
    std::memcpy(section(1) + 8 * (b / S::blocks_per_base), &base, 8);
    std::memcpy(section(1) + 8 * S::bases(e) + 2 * b, &offset, 2);
  }
  std::byte *rest = section(2), *to = section(3);
  for (Index r = 0; r < e.rows; ++r)
    for (Index first = 0; first < e.cols; first += S::block) {
      std::uint32_t window = 0;
      unsigned held = 0;
      for (Index c = first; c < std::min(first + S::block, e.cols); ++c) {
        const std::uint16_t w = word(r, c);
        *rest++ = std::byte((w >> 8 & 0x80) | (w & 0x7F));
        const std::uint8_t x = exponent(r, c);
        window = window << codes.length[x] | codes.code[x], held += codes.length[x];
        for (; held >= 8; held -= 8) *to++ = std::byte(window >> (held - 8) & 0xFF);
      }
      if (held > 0) *to++ = std::byte(window << (8 - held) & 0xFF);
    }
  return PackedTensor<S>(PackedTensor<S>::Checked{}, std::move(bytes));
}

}  // namespace ANYBIT_CODE
}  // namespace anybit::lossless

namespace anybit {
inline namespace ANYBIT_CODE {

/// Bit patterns of bfloat16, any of the 65536.
inline PackedTensor<LosslessBf16> pack_lossless_bf16(MatrixView<const std::uint16_t> words, std::string_view provenance = "") {
  return lossless::pack_words(words.extents(), [=](Index r, Index c) { return words(r, c); }, provenance);
}

/// Floats that are bfloat16 values to the bit. The error names the first that is none.
inline Result<PackedTensor<LosslessBf16>> pack_lossless_bf16(ConstMatrix w, std::string_view provenance = "") {
  ANYBIT_TRY_STATUS(lossless::check_bf16(w));
  return lossless::pack_words(
      w.extents(), [=](Index r, Index c) { return static_cast<std::uint16_t>(std::bit_cast<std::uint32_t>(w(r, c)) >> 16); },
      provenance);
}

/// Rows begin .. end - 1 as floats; `out` is (end - begin, cols).
inline void dequantize_rows(const PackedTensor<LosslessBf16>& t, Index begin, Index end, MutableMatrix out) {
  ANYBIT_CHECK(0 <= begin && begin <= end && end <= t.rows() && out.rows == end - begin && out.cols == t.cols(),
               "dequantize_rows: no such rows, or another shape");
  const PackedTensor<LosslessBf16>::SectionsOf sections(t.bytes());
  if (end > begin) decode_granules<LosslessBf16>(sections, t.extents(), begin, end - begin, 0, t.cols(), out.data, out.stride);
}

}  // namespace ANYBIT_CODE
}  // namespace anybit

#include <anybit/core/macros_end.hpp>
