#pragma once
// Double quantization of QLoRA (arXiv 2305.14314, section 3): scales stored in 8 bits.

#include <anybit/core/macros_begin.hpp>

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <span>
#include <vector>

#include <anybit/core/fixed_string.hpp>
#include <anybit/core/stable_sort.hpp>
#include <anybit/core/types.hpp>
#include <anybit/format/codebook.hpp>

namespace anybit::double_quant {
inline namespace ANYBIT_ABI {

/// The signed dynamic map of bitsandbytes (7 exponent bits), sorted: zero at 127, 1 at 255. In decade 10^(i-6), i = 0 .. 6, stand
/// the 2^i means of neighbours in linspace(0.1, 1, 2^i + 1), with both signs. Rounded as torch.linspace does: bit for bit equal.
constexpr ANYBIT_INLINE std::array<float, 256> signed_dynamic_map() {
  constexpr float powers[] = {1e-6f, 1e-5f, 1e-4f, 1e-3f, 1e-2f, 1e-1f, 1.0f};
  std::array<float, 256> map{};
  map[255] = 1;
  std::size_t k = 0;
  for (std::size_t i = 0; i < 7; ++i) {
    const int cells = 1 << i;
    const double step = static_cast<double>((1.0f - 0.1f) / static_cast<float>(cells));
    const auto boundary = [&](int j) {
      return static_cast<float>(j < (cells + 1) / 2 ? static_cast<double>(0.1f) + step * j : 1.0 - step * (cells - j));
    };
    for (int j = 0; j < cells; ++j, ++k) {
      map[128 + k] = powers[i] * ((boundary(j) + boundary(j + 1)) / 2);
      map[126 - k] = -map[128 + k];
    }
  }
  return map;
}
inline constexpr Codebook<256> map{signed_dynamic_map()};
inline constexpr Code map_zero = 127;

/// max(0, level * block_scale + offset). The product is exact in double, so contraction to a fused multiply-add changes nothing.
constexpr ANYBIT_INLINE float restore(Code c, float block_scale, float offset) {
  const double v = static_cast<double>(map.decode(c)) * static_cast<double>(block_scale) + static_cast<double>(offset);
  constexpr float largest = std::numeric_limits<float>::max();
  return v > 0 ? v < static_cast<double>(largest) ? static_cast<float>(v) : largest : 0.0f;
}

}  // namespace ANYBIT_ABI
}  // namespace anybit::double_quant

namespace anybit::double_quant {
inline namespace ANYBIT_CODE {

/// How the scales of one matrix are quantized: scale = max(0, map[code] * block_scales[i / Block] + offset).
///
/// Restored scales must quantize to themselves again: algorithms work with them and pack() stores them afterwards. So the
/// offset is one of the scales, and block scales lie on a grid coarse enough (2^-21 of the largest scale) that the restored
/// extremes give them away; recover() then finds both from the restored scales alone.
struct Plan {
  float offset = 0;
  std::vector<float> block_scales;
  std::vector<std::uint8_t> codes;
};

/// map.encode(), which counts the thresholds below x, from a count that the first bits of x give.
class MapEncoder {
 public:
  MapEncoder() {
    for (std::size_t c = 0; c < 255; ++c)
      thresholds_[c] = 0.5f * map.decode(static_cast<Code>(c)) + 0.5f * map.decode(static_cast<Code>(c + 1));
    thresholds_[255] = std::numeric_limits<float>::infinity();
    for (std::uint32_t i = 0; i < parts; ++i) {  // of the least x of each part
      start_[0][i] = static_cast<std::uint8_t>(map.encode(i == 0 ? 0.0f : std::bit_cast<float>((first + i) << shift)));
      start_[1][i] = i + 1 < parts ? static_cast<std::uint8_t>(map.encode(-std::bit_cast<float>((first + i + 1) << shift))) : 0;
    }
  }
  Code encode(float x) const {
    if (!(x == x)) x = 0;
    const auto bits = std::bit_cast<std::uint32_t>(x), magnitude = (bits & 0x7FFFFFFF) >> shift;
    std::size_t below = start_[bits >> 31][std::clamp(magnitude, first, first + parts - 1) - first];
    below += thresholds_[below] < x;  // no part has two thresholds; a loop would be mispredicted at every other scale
    return static_cast<Code>(below);
  }

 private:
  static constexpr std::uint32_t shift = 17, first = (127 - 24) << 6, parts = (24 << 6) + 1;  // 64 parts in each power of two
  std::array<float, 256> thresholds_;
  std::array<std::uint8_t, parts> start_[2];
};
inline const MapEncoder& map_encoder() {
  static const MapEncoder encoder;
  return encoder;
}

/// The code whose value, restored(code), is nearest to s, and how far off that is. The map's own nearest code can be one off
/// after rounding.
struct NearestCode {
  Code code;
  float error;
};
template <class Restored>
ANYBIT_INLINE NearestCode nearest_code(float s, float block_scale, float offset, const MapEncoder& encoder, Restored restored) {
  const int nearest = encoder.encode((s - offset) / block_scale), below = nearest - (nearest > 0),
            above = nearest + (nearest < 255);
  const auto error = [&](int c) { return std::abs(restored(static_cast<Code>(c)) - s); };
  const float at_nearest = error(nearest), at_below = error(below), at_above = error(above);
  const float one = std::min(at_nearest, at_below), least = std::min(one, at_above);
  return {static_cast<Code>(at_above < one ? above : at_below < at_nearest ? below : nearest), least};
}
inline Code nearest_code(float s, float block_scale, float offset) {
  if (block_scale == 0) return map_zero;
  return nearest_code(s, block_scale, offset, map_encoder(), [&](Code c) { return restore(c, block_scale, offset); }).code;
}

/// nearest_code of a block of scales. Whether all restore exactly.
inline bool nearest_codes(std::span<const float> s, float block_scale, float offset, std::uint8_t* codes) {
  bool exact = true;
  if (block_scale == 0) {
    std::fill_n(codes, s.size(), static_cast<std::uint8_t>(map_zero));
    for (const float v : s) exact &= restore(map_zero, 0, offset) == v;
    return exact;
  }
  const MapEncoder& encoder = map_encoder();
  // All by value: bytes that are stored might be those of anything that is referred to.
  const auto all = [s, block_scale, offset, codes, &encoder](auto restored) {
    float largest_error = 0;
    for (std::size_t i = 0, n = s.size(); i < n; ++i) {
      const NearestCode c = nearest_code(s[i], block_scale, offset, encoder, restored);
      codes[i] = static_cast<std::uint8_t>(c.code);
      largest_error = std::max(largest_error, c.error);
    }
    return largest_error == 0;
  };
  if (s.size() < 64) return all([block_scale, offset](Code c) { return restore(c, block_scale, offset); });
  float levels[256];
  for (std::size_t c = 0; c < 256; ++c) levels[c] = restore(static_cast<Code>(c), block_scale, offset);
  return all([&levels](Code c) { return levels[c]; });
}

struct Range {
  float low, high;
};

/// Grid of the block scales next to scales as large as `top`, a power of two: four units in its last place.
inline double block_scale_grid(float top) {
  const auto exponent = std::bit_cast<std::uint32_t>(top > 0 ? top : 0.0f) >> 23;  // biased by 127; 0 below the normal numbers
  return std::bit_cast<double>(static_cast<std::uint64_t>(std::max(exponent, 1u) + (1023 - 127 - 21)) << 52);
}

/// The block scale with which the deviation `distance` from the offset becomes the level 1 / stretch.
inline float on_grid(double distance, double stretch, double grid) {
  const double per_grid = std::bit_cast<double>((std::uint64_t{2046} << 52) - std::bit_cast<std::uint64_t>(grid));  // 1 / grid
  return static_cast<float>(std::nearbyint(distance * stretch * per_grid) * grid);
}

inline constexpr double lowest_level_stretch = 1.0 / 0.99296875;  // the map ends at 1 above and at -0.99296875 below

/// Largest deviation from the offset. A block that deviates by less than 2^-13 of its scales is flat: block scale 0.
inline float fit_block_scale(Range r, float offset) {
  const double up = static_cast<double>(r.high) - static_cast<double>(offset),
               down = static_cast<double>(offset) - static_cast<double>(r.low);
  const float top = up >= down ? r.high : offset;
  double grid = block_scale_grid(top);
  const double deviation = std::max(up, down);
  if (deviation < 256 * grid) return 0;
  float scale = on_grid(deviation, 1, grid);
  if (up >= down && block_scale_grid(restore(255, scale, offset)) > grid) scale = on_grid(deviation, 1, 2 * grid);
  return scale;
}

template <int Block>
std::span<const float> block_of(std::span<const float> s, std::size_t block) {
  return s.subspan(block * Block, std::min<std::size_t>(Block, s.size() - block * Block));
}

/// Whether scales between `low` and `high` may all be restored ones: codes restore in order, so the ends have the outer codes, or
/// none gives them.
inline bool may_restore(Range r, float block_scale, float offset) {
  if (!(block_scale >= 0)) return false;
  const bool high = restore(255, block_scale, offset) == r.high || !(restore(254, block_scale, offset) < r.high);
  return high && (restore(0, block_scale, offset) == r.low || !(restore(1, block_scale, offset) > r.low));
}

/// The block scales that may have given scales in such a range.
inline std::array<float, 3> possible_block_scales(Range r, float offset) {
  const double up = static_cast<double>(r.high) - static_cast<double>(offset),
               down = static_cast<double>(offset) - static_cast<double>(r.low);
  return {0.0f, on_grid(up, 1, block_scale_grid(r.high)), on_grid(down, lowest_level_stretch, block_scale_grid(offset))};
}

/// False only where no possible block scale may restore a block: for three of four offsets by which it was not made. The further
/// end of the range must have the outer code, so the block scale, which is rounded to its grid, is off by at most an eighth of
/// it; or all is within a few steps of the grid, or the ends are about as far. Without branches, since nothing predicts the
/// answers.
ANYBIT_INLINE bool ends_may_fit(Range r, float offset) {
  constexpr double near = 0.13, few = 128, alike = 0.02, shift = 0x1.8p52;
  constexpr double exact_stretch =
      -1 / static_cast<double>(map.decode(0));  // steps are up to 2^22: the other is off by a tenth there
  const double v = static_cast<double>(offset), up = static_cast<double>(r.high) - v, down = v - static_cast<double>(r.low);
  const double grid = block_scale_grid(up > down ? r.high : offset),
               steps = std::max(up, down * exact_stretch) *
                       std::bit_cast<double>((std::uint64_t{2046} << 52) - std::bit_cast<std::uint64_t>(grid)),
               off = steps - ((steps + shift) - shift);
  const bool clamped = (r.low == 0) | (r.high == std::numeric_limits<float>::max());
  const double from_grid = std::abs(off), between = std::abs(up - down);
  return (from_grid <= near) | (steps <= few) | (between <= alike * (up + down)) | clamped;
}

/// Those of `s` that may be the offset, as far as the ranges of blocks tell; each once, in order.
inline std::vector<float> possible_offsets(std::span<const float> s, std::span<const Range> ranges) {
  std::vector<float> left(s.begin(), s.end());
  for (const Range r : ranges.first(std::min<std::size_t>(ranges.size(), 4))) {
    std::size_t kept = 0;
    for (const float v : left) {
      left[kept] = v;
      kept += ends_may_fit(r, v);
    }
    left.resize(kept);
  }
  std::sort(left.begin(), left.end());
  left.erase(std::unique(left.begin(), left.end()), left.end());
  std::erase_if(left, [&](float v) {
    return !std::all_of(ranges.begin(), ranges.end(), [v](Range r) {
      const auto scales = possible_block_scales(r, v);
      return std::any_of(scales.begin(), scales.end(), [&](float scale) { return may_restore(r, scale, v); });
    });
  });
  return left;
}

/// The plan that gives exactly these scales, if they are restored ones: of several the one whose offset is next to the mean.
template <int Block>
bool recover(std::span<const float> s, std::span<const Range> ranges, double mean, float nearest_to_mean, Plan& plan) {
  const auto try_offset = [&](float offset) {
    plan.offset = offset;
    for (std::size_t b = 0; b < ranges.size(); ++b) {
      const auto gives_block = [&](float scale) {
        plan.block_scales[b] = scale;
        return may_restore(ranges[b], scale, offset) &&
               nearest_codes(block_of<Block>(s, b), scale, offset, plan.codes.data() + b * Block);
      };
      const auto scales = possible_block_scales(ranges[b], offset);
      if (std::none_of(scales.begin(), scales.end(), gives_block)) return false;
    }
    return true;
  };
  if (try_offset(nearest_to_mean)) return true;
  std::vector<float> candidates = possible_offsets(s, ranges);
  const auto distance = [mean](float v) { return std::abs(static_cast<double>(v) - mean); };
  anybit::stable_sort(candidates.begin(), candidates.end(), [&](float a, float b) { return distance(a) < distance(b); });
  return std::any_of(candidates.begin(), candidates.end(), try_offset);
}

template <int Block>
Plan make_plan(std::span<const float> s) {
  Plan plan;
  if (s.empty()) return plan;
  const auto blocks = static_cast<std::size_t>(ceil_div(static_cast<Index>(s.size()), Block));
  plan.block_scales.resize(blocks);
  plan.codes.resize(s.size());
  std::vector<Range> ranges(blocks);
  double sum = 0;
  for (std::size_t b = 0; b < blocks; ++b) {
    const auto block = block_of<Block>(s, b);
    Range r{block[0], block[0]};
    for (const float v : block) {
      sum += static_cast<double>(v);
      r = {std::min(r.low, v), std::max(r.high, v)};
    }
    ranges[b] = r;
  }
  const double mean = sum / static_cast<double>(s.size());
  // The first of those nearest to the mean is the offset of scales that were never restored; to recover one, the least is tried
  // first.
  float first = s[0], least = s[0];
  double distance = std::abs(static_cast<double>(s[0]) - mean);
  for (const float v : s) {
    const double d = std::abs(static_cast<double>(v) - mean);
    if (d > distance) continue;
    least = d < distance ? v : std::min(least, v);
    first = d < distance ? v : first;
    distance = d;
  }
  if (recover<Block>(s, ranges, mean, least, plan)) return plan;
  plan.offset = first;
  for (std::size_t b = 0; b < blocks; ++b) {
    plan.block_scales[b] = fit_block_scale(ranges[b], plan.offset);
    nearest_codes(block_of<Block>(s, b), plan.block_scales[b], plan.offset, plan.codes.data() + b * Block);
  }
  return plan;
}

template <int Block>
void round_trip(std::span<float> s) {
  const Plan plan = make_plan<Block>(s);
  for (std::size_t i = 0; i < s.size(); ++i) s[i] = restore(plan.codes[i], plan.block_scales[i / Block], plan.offset);
}

template <int Block>
void store(std::span<const float> s, std::byte* out) {
  if (s.empty()) return;
  const Plan plan = make_plan<Block>(s);
  std::memcpy(out, &plan.offset, sizeof(float));
  out += sizeof(float);
  std::memcpy(out, plan.block_scales.data(), plan.block_scales.size() * sizeof(float));
  out += plan.block_scales.size() * sizeof(float);
  std::memcpy(out, plan.codes.data(), plan.codes.size());
}

}  // namespace ANYBIT_CODE
}  // namespace anybit::double_quant

namespace anybit {
inline namespace ANYBIT_ABI {

/// An offset for the whole matrix (float), a block scale for every Block scales (float), and for each scale the 8-bit code of
/// its deviation from the offset in the signed dynamic map. With groups of 64 weights and Block = 256 that is
/// 8/64 + 32/(64*256) = 0.127 bits a weight instead of the 0.5 of float scales.
///
/// Where this differs from bitsandbytes: the offset is the scale nearest to their mean, not the mean itself, so that restored
/// scales quantize to themselves again; the code is always the nearest (their CPU code takes the neighbour for about 0.3 % of the
/// scales); restored scales are never below 0.
template <int Block>
struct DoubleQuant {
  static_assert(Block >= 1, "anybit: DoubleQuant<Block> needs at least 1 scale in a block");
  static constexpr auto name = "dq" + decimal<Block>();
  static constexpr bool joint = true;
  static constexpr float largest = std::numeric_limits<float>::max();
  static constexpr Index bytes(Index n) { return n > 0 ? 4 + 4 * ceil_div(n, Block) + n : 0; }
  static ANYBIT_INLINE void round_trip(std::span<float> s) { double_quant::round_trip<Block>(s); }
  static ANYBIT_INLINE void store(std::span<const float> s, std::byte* out) { double_quant::store<Block>(s, out); }
  static ANYBIT_INLINE void load(const std::byte* in, Index n, Index first, std::span<float> out) {
    if (out.empty()) return;
    float offset;
    std::memcpy(&offset, in, sizeof offset);
    const std::byte* const block_scales = in + 4;
    const std::byte* const codes = block_scales + 4 * ceil_div(n, Block);
    for (std::size_t i = 0; i < out.size(); ++i) {
      const std::size_t at = static_cast<std::size_t>(first) + i;
      float block_scale;
      std::memcpy(&block_scale, block_scales + at / Block * 4, sizeof block_scale);
      out[i] = double_quant::restore(std::to_integer<Code>(codes[at]), block_scale, offset);
    }
  }
};

}  // namespace ANYBIT_ABI
}  // namespace anybit

#include <anybit/core/macros_end.hpp>
