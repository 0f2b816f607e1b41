#pragma once
// The types of ggml in which weights can be chosen code by code, as grids: which values a block can express, and its bytes.

#include <anybit/core/macros_begin.hpp>

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>

#include <anybit/io/ggml_encode_search.hpp>

namespace anybit {
inline namespace ANYBIT_CODE {

namespace ggml_blocks {

/// A ggml type as groups of equal steps (or of iq4's levels) with scales that are whole multiples of the block's.
struct GgmlGrid {
  std::string_view type;
  int group, groups;                  ///< values that share a scale; groups in a block
  int low, high;                      ///< the first and last level
  bool iq4 = false;                   ///< levels are iq4_levels, and codes their places
  bool minimum = false;               ///< a value is scale * level - minimum
  int scale_low = 1, scale_high = 1;  ///< of the multiples; 1 to 1: the block has one scale
  int minimum_high = 1;

  int values() const { return group * groups; }
};

inline constexpr std::array ggml_grids = {
    GgmlGrid{"Q4_0", 32, 1, -8, 7},
    GgmlGrid{"Q5_0", 32, 1, -16, 15},
    GgmlGrid{"Q4_1", 32, 1, 0, 15, false, true},
    GgmlGrid{"Q5_1", 32, 1, 0, 31, false, true},
    GgmlGrid{"Q8_0", 32, 1, -127, 127},
    GgmlGrid{"IQ4_NL", 32, 1, 0, 15, true},
    GgmlGrid{"IQ4_XS", 32, 8, 0, 15, true, false, -32, 31},
    GgmlGrid{"Q2_K", 16, 16, 0, 3, false, true, 0, 15, 15},
    GgmlGrid{"Q3_K", 16, 16, -4, 3, false, false, -32, 31},
    GgmlGrid{"Q4_K", 32, 8, 0, 15, false, true, 0, 63, 63},
    GgmlGrid{"Q5_K", 32, 8, 0, 31, false, true, 0, 63, 63},
    GgmlGrid{"Q6_K", 16, 16, -32, 31, false, false, -128, 127},
};

/// One block: value = scale * d * level - low * dmin.
struct GgmlBlock {
  float d = 0, dmin = 0;
  std::array<int, 16> scales{}, lows{};
  std::array<std::int8_t, 256> levels{};  ///< places in iq4_levels where the grid is theirs
};

/// Rounds values to a grid whose scale and minimum are known.
struct GgmlRounder {
  const GgmlGrid& grid;
  float scale, low;  ///< as floats
  float inverse = io::ggml::inverse(scale);

  int level(float x) const {
    if (grid.iq4) return io::ggml::nearest_iq4(inverse * x);
    return io::ggml::nearest_code((x + low) * inverse, grid.low, grid.high);
  }
  float value(int level) const { return scale * static_cast<float>(grid.iq4 ? io::ggml::iq4_levels[level] : level) - low; }
  float error(std::span<const float> x, std::span<const float> weights) const {
    float sum = 0;
    for (std::size_t i = 0; i < x.size(); ++i) {
      const float e = value(level(x[i])) - x[i];
      sum += weights[i] * e * e;
    }
    return sum;
  }
};

/// The block's bytes.
inline void pack(const GgmlGrid& grid, const GgmlBlock& block, std::byte* b) {
  namespace g = io::ggml;
  const auto code = [&](int i) { return block.levels[static_cast<std::size_t>(i)] - (grid.iq4 ? 0 : grid.low); };
  std::array<std::int8_t, 256> codes{};
  for (int i = 0; i < grid.values(); ++i) codes[static_cast<std::size_t>(i)] = static_cast<std::int8_t>(code(i));
  if (grid.type == "Q4_K" || grid.type == "Q5_K") {
    std::array<g::SubScale, 8> scales;
    for (std::size_t j = 0; j < 8; ++j) scales[j] = {block.scales[j], block.lows[j]};
    if (grid.type == "Q4_K")
      g::put_q45_k<false>(b, block.d, block.dmin, scales, codes);
    else
      g::put_q45_k<true>(b, block.d, block.dmin, scales, codes);
  } else if (grid.type == "Q2_K") {
    for (std::size_t j = 0; j < 16; ++j) g::put_u8(b + j, block.scales[j] | block.lows[j] << 4);
    g::put_pairs(b + 16, codes.data());
    g::put_f16(b + 80, block.d), g::put_f16(b + 82, block.dmin);
  } else if (grid.type == "Q3_K") {
    g::put_q3_k(b, block.d, block.scales, codes);
  } else if (grid.type == "Q6_K") {
    g::put_q6_k(b, block.d, block.scales, codes);
  } else if (grid.type == "IQ4_XS") {
    std::array<int, 8> scales;
    std::copy_n(block.scales.begin(), 8, scales.begin());
    g::put_iq4_xs(b, block.d, scales, code);
  } else {
    g::put_f16(b, block.d), b += 2;
    if (grid.minimum) g::put_f16(b, -block.dmin), b += 2;
    if (grid.type == "Q8_0") {
      for (int j = 0; j < 32; ++j) g::put_u8(b + j, block.levels[static_cast<std::size_t>(j)]);
      return;
    }
    if (grid.type.starts_with("Q5")) g::put_fifth_bits(b, code), b += 4;
    g::put_nibbles(b, code);
  }
}

}  // namespace ggml_blocks

}  // namespace ANYBIT_CODE
}  // namespace anybit

#include <anybit/core/macros_end.hpp>
