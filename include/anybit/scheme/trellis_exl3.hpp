#pragma once
// EXL3, the format of exllamav3: a trellis code of 16-bit states between two Hadamard transforms of 128 points.

#include <anybit/core/macros_begin.hpp>

#include <array>
#include <bit>
#include <cstring>
#include <string>
#include <utility>

#include <anybit/core/finite.hpp>
#include <anybit/core/half.hpp>
#include <anybit/core/result.hpp>
#include <anybit/scheme/trellis.hpp>

namespace anybit {
inline namespace ANYBIT_ABI {

namespace section_tags {
inline constexpr SectionTag input_scales{'s', 'u', 'h', ' '}, output_scales{'s', 'v', 'h', ' '};
}

/// W = (diag(suh) H Q H diag(svh))^T, Q (inputs x outputs) the decoded trellis, H blocks of the Sylvester matrix of order 128
/// over sqrt(128). The sections are the tensors of a checkpoint, byte for byte: `trellis` (inputs / 16, outputs / 16, 16 K words
/// of 16 bits), `suh` and `svh` (binary16). They are padded to multiples of 128 inputs and outputs; extents are the real ones.
template <int K, TrellisCodebook Book>
struct Exl3 {
  static_assert(K >= 1 && K <= 8, "anybit: EXL3 has 1 to 8 bits a weight");
  using code = BitshiftTrellis<16, K, true>;
  using codebook = Book;
  static constexpr auto name = "exl3/" + decimal<K>() + "/" + fixed_name<Book>();
  static constexpr Index tile = 16, block = 128, tile_bytes = code::bytes(tile * tile);

  static constexpr Extents padded(Extents e) { return {round_up(e.rows, block), round_up(e.cols, block)}; }
  static constexpr std::array<SectionSize, 3> sections(Extents e) {
    const Extents p = padded(e);
    return {{{section_tags::trellis, p.rows / tile * (p.cols / tile) * tile_bytes},
             {section_tags::input_scales, 2 * p.cols},
             {section_tags::output_scales, 2 * p.rows}}};
  }
  /// The place in the sequence of the weight (input, output) of a tile: element e = 0..7 of lane t = 0..31 of a tensor core's
  /// fragment comes at 8 t + e.
  static constexpr Index step_of(Index input, Index output) {
    return 8 * (output % 8 * 4 + input % 8 / 2) + output / 8 * 4 + input / 8 * 2 + input % 2;
  }
  /// Q of the tile of inputs col .. col + 15 and outputs row .. row + 15, both multiples of 16: out[output][input].
  static ANYBIT_INLINE void decode_inner(Sections s, Extents e, Index row, Index col, float* out, Index stride = tile) {
    std::uint16_t states[static_cast<std::size_t>(tile * tile)];
    const Index at = col / tile * (padded(e).rows / tile) + row / tile;
    code::read(s[0].data() + at * tile_bytes, states);
    const auto& table = trellis_table<Book, 16>();
    for (Index o = 0; o < tile; ++o)
      for (Index i = 0; i < tile; ++i) out[o * stride + i] = table[states[step_of(i, o)]];
  }
  static float input_scale(Sections s, Index input) { return half_at(s[1], input); }
  static float output_scale(Sections s, Index output) { return half_at(s[2], output); }

  /// v = H v for the Sylvester matrix of `order` over sqrt(128), of vectors whose elements are `stride` apart, `count` vectors
  /// side by side.
  template <class T>
  static ANYBIT_INLINE void hadamard(T* v, Index order, Index stride, Index count, T scale) {
    for (Index half = 1; half < order; half *= 2)
      for (Index first = 0; first < order; first += 2 * half)
        for (Index i = first; i < first + half; ++i)
          for (Index j = 0; j < count; ++j) {
            T &a = v[i * stride + j], &b = v[(i + half) * stride + j];
            const T sum = a + b, difference = a - b;
            a = sum, b = difference;
          }
    for (Index i = 0; i < order; ++i)
      for (Index j = 0; j < count; ++j) v[i * stride + j] *= scale;
  }

  /// 16 outputs need the 64 tiles of their block, so that decoding row after row does the work eight times: products transform
  /// activations instead (Inner).
  static constexpr Index granule_rows = tile, granule_cols = block;
  static ANYBIT_INLINE void decode(Sections s, Extents e, Index row, Index col, float* out) {
    // The 16 outputs row .. of H Q: with o = 16 g + j, H_128 = H_8 (x) H_16.
    const Index first = row / block * block, g = row % block / tile;
    float one[static_cast<std::size_t>(tile * block)];
    for (Index i = 0; i < tile * block; ++i) out[i] = 0;
    for (Index h = 0; h < block / tile; ++h) {
      for (Index i = 0; i < block; i += tile) decode_inner(s, e, first + h * tile, col + i, one + i, block);
      const bool minus = std::popcount(static_cast<std::size_t>(g & h)) % 2 != 0;
      for (Index i = 0; i < tile * block; ++i) out[i] += minus ? -one[i] : one[i];
    }
    constexpr float root = 0.08838834764831845f;  // 1 / sqrt(128)
    hadamard(out, tile, block, block, root);
    for (Index o = 0; o < tile; ++o) {
      float* const v = out + o * block;
      hadamard(v, block, 1, 1, root);
      const float by = output_scale(s, row + o);
      for (Index i = 0; i < block; ++i) v[i] = v[i] * input_scale(s, col + i) * by;
    }
  }

  /// Q alone, as a scheme on the same sections: the weights that rotated activations meet.
  struct Inner {
    static constexpr auto name = Exl3::name + "/inner";
    static constexpr auto sections(Extents e) { return Exl3::sections(e); }
    static constexpr Index granule_rows = tile, granule_cols = tile;
    static ANYBIT_INLINE void decode(Sections s, Extents e, Index row, Index col, float* out) {
      decode_inner(s, e, row, col, out);
    }
  };

  static Status check(Sections s, Extents e) {
    const Extents p = padded(e);
    for (const bool outputs : {false, true})
      for (Index i = 0; i < (outputs ? p.rows : p.cols); ++i)
        if (const float v = half_at(s[outputs ? 2 : 1], i); !is_finite(v))
          return Error{ErrorCode::not_finite, std::string(outputs ? "svh" : "suh") + " of " + (outputs ? "output " : "input ") +
                                                  std::to_string(i) + " is " + std::to_string(v) +
                                                  "; scales are finite: convert the model again"};
    return Ok{};
  }

 private:
  static float half_at(std::span<const std::byte> section, Index i) {
    std::uint16_t h;
    std::memcpy(&h, section.data() + 2 * i, 2);
    return f16_to_f32(h);
  }
};

template <class S>
constexpr bool is_exl3_v = false;
template <int K, class Book>
constexpr bool is_exl3_v<Exl3<K, Book>> = true;

/// f(Exl3<K, Book>{}) for every K and codebook.
template <class F>
constexpr void for_each_exl3(F&& f) {
  const auto with_book = [&]<class Book>(Book, F& g) {
    [&]<int... K>(std::integer_sequence<int, K...>) { (g(Exl3<K + 1, Book>{}), ...); }(std::make_integer_sequence<int, 8>{});
  };
  with_book(ThreeInst{}, f), with_book(Mcg{}, f), with_book(Mul1{}, f);
}

}  // namespace ANYBIT_ABI
}  // namespace anybit

#include <anybit/core/macros_end.hpp>
