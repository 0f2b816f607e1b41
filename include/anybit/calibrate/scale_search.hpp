#pragma once
// How the Affine of one group is found: from its range, or by a search for the range that costs least.

#include <algorithm>
#include <cmath>
#include <limits>
#include <span>
#include <vector>

#include <anybit/core/result.hpp>
#include <anybit/scheme/scheme.hpp>
#include <anybit/tensor/dequantize.hpp>
#include <anybit/tensor/quantize.hpp>

namespace anybit::inline ANYBIT_ABI {

/// Which range of a group its grid spans. Formats without a zero point know only `format`.
enum class Range {
  format,     ///< the format's own fit; with a zero point: from min(0, w) to max(0, w), as GPTQ's asymmetric grid
  symmetric,  ///< GPTQ's symmetric grid: zero = 2^(b-1), scale = 2 max|w| / (2^b - 1). Half the range if no weight is negative,
              ///< as published.
  min_max,    ///< AWQ: from min(w) to max(w), zero clamped to the grid, width at least 1e-5
};

enum class Search {
  none,
  mse,  ///< shrink the range step by step and keep the one with the least sum |w - q|^norm
};

/// Candidates are the full range times 1 - i / steps for i = 0 .. shrink * steps - 1 (GPTQ's defaults).
struct ShrinkSearch {
  float shrink = 0.8f;
  int steps = 100;
  float norm = 2.4f;
  int candidates() const { return static_cast<int>(static_cast<double>(shrink) * steps + 1e-6); }
};

ANYBIT_INLINE Status check_search(const ShrinkSearch& s) {
  if (!(s.shrink > 0 && s.shrink < 1))
    return Error{ErrorCode::invalid_argument, "search: shrink is " + std::to_string(s.shrink) + "; it must lie between 0 and 1"};
  if (s.steps < 1 || s.steps > 100000)
    return Error{ErrorCode::invalid_argument, "search: steps is " + std::to_string(s.steps) + "; it must be 1 to 100000"};
  if (!(s.norm > 0 && s.norm <= 16))
    return Error{ErrorCode::invalid_argument, "search: norm is " + std::to_string(s.norm) + "; it must lie above 0, up to 16"};
  return Ok{};
}

}  // namespace anybit::inline ANYBIT_ABI

namespace anybit::inline ANYBIT_CODE {

/// The affine as the scheme's store will give it back. Joint stores need all scales at once: here they are left alone.
template <AnyScheme S>
Affine stored(Affine a) {
  if constexpr (!S::scale_store::joint) S::scale_store::round_trip(std::span<float>(&a.scale, 1));
  return a;
}

namespace detail {

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
template <Format F>
Affine span_range(Range range, MinMax m, float kept) {
  constexpr float max_code = static_cast<float>((1 << F::bits) - 1), middle = static_cast<float>(1 << (F::bits - 1));
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

/// Sum of importance * |got - wanted|^norm, in 16 interleaved sums; importance may be null. Stops early, with some larger or
/// equal number, once the sum reaches `enough`: terms are never negative.
inline double power_sum(const float* got, const float* wanted, const float* importance, Index n, float norm, double enough) {
  constexpr Index lanes = 16, stretch = 64;
  double total = 0;
  for (Index first = 0; first < n && !(total >= enough); first += stretch) {
    double sums[static_cast<std::size_t>(lanes)] = {};
    const Index end = std::min(first + stretch, n);
    const auto add = [&](Index at, Index lane) {
      const float d = got[at] - wanted[at];
      // A square of floats is exact in double. It stands apart because it is the usual case outside GPTQ's parity.
      const double p =
          norm == 2.0f ? static_cast<double>(d) * static_cast<double>(d) : static_cast<double>(std::pow(std::fabs(d), norm));
      sums[lane] += importance ? static_cast<double>(importance[at]) * p : p;
    };
    Index i = first;
    if (norm == 2.0f && !importance) {
      for (; i + lanes <= end; i += lanes)
        for (Index j = 0; j < lanes; ++j) {  // constant length: vectorized at -O2 too
          const double d = static_cast<double>(got[i + j] - wanted[i + j]);
          sums[j] += d * d;
        }
    }
    for (; i < end; ++i) add(i, (i - first) % lanes);
    for (Index half = lanes / 2; half > 0; half /= 2)
      for (Index j = 0; j < half; ++j) sums[j] += sums[j + half];
    total += sums[0];
  }
  return total;
}

}  // namespace detail

/// A rule from the weights of one group to its Affine.
struct GridFit {
  Range range = Range::format;
  Search search = Search::none;
  ShrinkSearch shrink{};

  /// The full range, before the store.
  template <Format F>
  Affine plain(std::span<const float> values) const {
    if constexpr (has_zero_point_v<F>)
      return detail::span_range<F>(range, detail::min_max(values), 1.0f);
    else
      return F::fit(values);
  }

  /// The affine as stored (see stored()). `importance`, empty or one weight >= 0 a value, multiplies the errors in a search.
  template <AnyScheme S>
  Affine fit(std::span<const float> values, std::span<const float> importance = {}) const {
    using F = typename S::format;
    if (search == Search::none || std::is_same_v<typename S::scale_store, NoScale>) return stored<S>(plain<F>(values));
    const Affine full = plain<F>(values);
    const detail::MinMax m = detail::min_max(values);
    Affine best = stored<S>(full);
    std::vector<code_t<F>> codes(values.size());
    std::vector<float> rounded(values.size());
    const auto n = static_cast<Index>(values.size());
    double least = std::numeric_limits<double>::infinity();
    for (int i = 0; i < shrink.candidates(); ++i) {
      const float kept = static_cast<float>(1.0 - static_cast<double>(i) / shrink.steps);
      Affine a = full;
      if constexpr (has_zero_point_v<F>)
        a = detail::span_range<F>(range, m, kept);
      else
        a.scale *= kept;
      a = stored<S>(a);
      quantize_values<F>(values, a, codes);
      decoding::dequantize_codes<F>(codes.data(), a, n, rounded.data());
      const double error = detail::power_sum(rounded.data(), values.data(), importance.empty() ? nullptr : importance.data(), n,
                                             shrink.norm, least);
      if (error < least) {
        least = error;
        best = a;
      }
    }
    return best;
  }
};

/// Formats without a zero point have one way to span a range.
template <Format F>
Status check_range(Range range) {
  if (has_zero_point_v<F> || range == Range::format) return Ok{};
  return Error{ErrorCode::invalid_argument, "range: only formats with a zero point can choose their range; " +
                                                std::string(std::string_view(F::name)) + " has none, leave Range::format"};
}

}  // namespace anybit::inline ANYBIT_CODE
