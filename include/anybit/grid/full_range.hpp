#pragma once
// The grid that spans a group's whole range, as every search's starting point; and that range cut or widened by a factor.

#include <anybit/core/macros_begin.hpp>

#include <algorithm>
#include <cmath>
#include <limits>
#include <span>
#include <string>

#include <anybit/core/result.hpp>
#include <anybit/tensor/rounding_ops.hpp>

namespace anybit {
inline namespace ANYBIT_ABI {

/// Which range of a group its grid spans. Formats without a zero point know only `format`.
enum class Range {
  format,     ///< the format's own fit; with a zero point: from min(0, w) to max(0, w), as GPTQ's asymmetric grid
  symmetric,  ///< GPTQ's symmetric grid: zero = 2^(b-1), scale = 2 max|w| / (2^b - 1). Half the range if no weight is negative,
              ///< as published.
  min_max,    ///< AWQ: from min(w) to max(w), zero clamped to the grid, width at least 1e-5
};

}  // namespace ANYBIT_ABI
}  // namespace anybit

namespace anybit::grid {
inline namespace ANYBIT_CODE {

struct MinMax {
  float low = 0, high = 0;
};

inline MinMax min_max(std::span<const float> values) {
  if (values.empty()) return {};
  MinMax m{values[0], values[0]};
  for (const float v : values) {
    m.low = std::min(m.low, v);
    m.high = std::max(m.high, v);
  }
  return m;
}

/// The grid of a format with a zero point over [low, high] = the least and greatest weight, cut to `kept` of its width.
/// Single precision step by step: ties of the zero point are decided by these very roundings.
inline Affine span_range(int bits, Range range, MinMax m, float kept) {
  const float max_code = static_cast<float>((1 << bits) - 1), middle = static_cast<float>(1 << (bits - 1));
  if (range == Range::min_max) {
    const float width = std::max((m.high - m.low) * kept, 1e-5f);
    const float scale = std::min(width, std::numeric_limits<float>::max()) / max_code;
    return {scale, std::clamp(round_half_even(-(m.low * kept) / scale), 0.0f, max_code)};
  }
  m = {std::min(m.low, 0.0f), std::max(m.high, 0.0f)};
  if (range == Range::symmetric) {
    m.high = std::max(-m.low, m.high);
    if (m.low < 0) m.low = -m.high;
  }
  if (m.low == 0 && m.high == 0) m = {-1, 1};  // any grid will do; error feedback may still bring values into the group
  const float low = m.low * kept, high = m.high * kept;
  float scale = (high - low) / max_code;
  if (!(scale <= std::numeric_limits<float>::max())) scale = high / max_code - low / max_code;  // the width alone overflows
  if (range == Range::symmetric) return {scale, middle};
  return {scale, scale > 0 ? std::clamp(round_half_even(-low / scale), 0.0f, max_code) : 0.0f};
}

/// The full range of one group, before the scale store, and its candidates: the same range times a factor.
class FullRange {
 public:
  FullRange(const FormatOps& format, Range range, std::span<const float> values) : format_(format), range_(range) {
    if (format.zero_point)
      extremes_ = min_max(values), affine_ = span_range(format.bits, range, extremes_, 1.0f);
    else
      affine_ = format.fit(values);
  }
  Affine affine() const { return affine_; }
  /// Cut to `kept` < 1 of its width, or widened.
  Affine times(float kept) const {
    if (format_.zero_point) return span_range(format_.bits, range_, extremes_, kept);
    return {affine_.scale * kept, affine_.zero};
  }
  /// The zero point may move: the grid is not held symmetric.
  bool free_zero() const { return range_ != Range::symmetric; }

 private:
  const FormatOps& format_;
  Range range_;
  MinMax extremes_;
  Affine affine_;
};

}  // namespace ANYBIT_CODE
}  // namespace anybit::grid

namespace anybit {
inline namespace ANYBIT_CODE {

/// Formats without a zero point have one way to span a range.
inline Status check_range(const FormatOps& format, Range range) {
  if (format.zero_point || range == Range::format) return Ok{};
  return Error{ErrorCode::invalid_argument, "range: only formats with a zero point can choose their range; " +
                                                std::string(format.name) + " has none, leave Range::format"};
}
template <Format F>
Status check_range(Range range) {
  return check_range(format_ops_v<F>, range);
}

}  // namespace ANYBIT_CODE
}  // namespace anybit

#include <anybit/core/macros_end.hpp>
