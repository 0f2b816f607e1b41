#pragma once
// The grids of all groups of a matrix, found on given weights, and the nearest codes on them.

#include <anybit/core/macros_begin.hpp>

#include <algorithm>
#include <span>
#include <string>
#include <vector>

#include <anybit/calibrate/stats.hpp>
#include <anybit/core/finite.hpp>
#include <anybit/grid/grid_fit.hpp>
#include <anybit/recipe/report.hpp>
#include <anybit/tensor/quantize.hpp>

namespace anybit::grid {
inline namespace ANYBIT_CODE {

inline Status check_weights(ConstMatrix w) {
  if (w.rows < 1 || w.cols < 1)
    return Error{ErrorCode::invalid_argument,
                 "weights are " + std::to_string(w.rows) + " x " + std::to_string(w.cols) + "; at least 1 x 1 is needed"};
  return calibrate::check_finite(w);
}

inline Status check_limits(const RoundingOps& scheme, ConstMatrix w, ConstMatrix limits) {
  if (limits.rows == 0) return Ok{};
  if (scheme.per_tensor)
    return Error{ErrorCode::unsupported,
                 "clip limits belong to the groups of a row; a scheme with one scale a tensor cannot use them"};
  if (limits.rows != w.rows || limits.cols != scheme.groups_per_row(w.cols))
    return Error{ErrorCode::shape_mismatch, "clip limits are " + std::to_string(limits.rows) + " x " +
                                                std::to_string(limits.cols) + "; the scheme has " + std::to_string(w.rows) +
                                                " x " + std::to_string(scheme.groups_per_row(w.cols)) + " groups"};
  return Ok{};
}

/// A weight cut off at its group's limit.
ANYBIT_INLINE float clipped(float w, float limit) { return std::clamp(w, -limit, limit); }
/// `values` of group g of row r cut off at its limit, if there are limits; then they stand in `cut`.
inline std::span<const float> cut_off(std::span<const float> values, ConstMatrix limits, Index r, Index g,
                                      std::vector<float>& cut) {
  if (limits.rows == 0) return values;
  cut.assign(values.begin(), values.end());
  for (float& v : cut) v = clipped(v, limits(r, g));
  return cut;
}

/// Groups for which the scheme has no grid: found from a group's weights, the affine that their range asks for, and the one that
/// the group has got.
struct GridLoss {
  Index vanished = 0, saturated = 0;
  /// For a joint store `got` is the affine before all are rounded, so that what they lose together is not seen here.
  void count(const RoundingOps& scheme, std::span<const float> values, Affine wanted, Affine got) {
    saturated += !scheme.no_scales && wanted.scale > scheme.largest_scale;
    vanished += becomes_zero(scheme.format, values, got);
  }
  GridLoss& operator+=(const GridLoss& other) {
    vanished += other.vanished;
    saturated += other.saturated;
    return *this;
  }
  void tell(Report& report, Index groups) const {
    const std::string of = " of " + std::to_string(groups);
    if (vanished > 0)
      report.fallbacks.push_back(std::to_string(vanished) + of +
                                 " groups have weights that are too small for the scheme, and became 0");
    if (saturated > 0)
      report.fallbacks.push_back(std::to_string(saturated) + of + " scales are too large for the scale store and were saturated");
  }

 private:
  /// Whether weights that are not all 0 become 0 together: then the outermost do.
  static bool becomes_zero(const FormatOps& format, std::span<const float> values, Affine a) {
    const LowHigh range = low_high(values);
    if (range.low == 0 && range.high == 0) return false;
    const float outermost[] = {range.low, range.high};
    float restored[2];
    format.round(outermost, 2, a, a, restored);
    return restored[0] == 0 && restored[1] == 0;
  }
};

/// Scales of a joint store are rounded all together.
inline void round_trip_joint(const AnyQuantized& q) {
  if (!q.scheme.joint_scales) return;
  std::vector<float> scales(q.affines.size());
  for (std::size_t i = 0; i < scales.size(); ++i) scales[i] = q.affines[i].scale;
  q.scheme.round_trip(scales);
  for (std::size_t i = 0; i < scales.size(); ++i) q.affines[i].scale = scales[i];
}

/// Fills q.affines, as stored, from w; q.extents are w's. Limits as in QuantizeOptions; importance is empty or one weight a
/// column.
inline void fit_groups(ConstMatrix w, const GridFit& fit, ConstMatrix limits, std::span<const float> importance,
                       const AnyQuantized& q, Report& report, ExecutorRef executor = {}) {
  std::vector<GridLoss> losses(static_cast<std::size_t>(w.rows));
  const auto fit_one = [&](std::span<const float> values, std::span<const float> weights, GridLoss& loss) {
    const Affine wanted = fit.plain(q.format(), values);
    const Affine a = fit.search == Search::none ? q.scheme.stored(wanted) : fit.fit(q.scheme, values, weights);
    loss.count(q.scheme, values, wanted, a);
    return a;
  };
  if (q.scheme.per_tensor) {
    const bool whole = w.stride == w.cols;
    const Matrix copy = whole ? Matrix() : Matrix(w);
    const float* const all = whole ? w.data : copy.data();
    std::vector<float> repeated;
    if (fit.search != Search::none && !importance.empty())
      for (Index r = 0; r < w.rows; ++r) repeated.insert(repeated.end(), importance.begin(), importance.end());
    q.affines[0] = fit_one({all, static_cast<std::size_t>(w.extents().size())}, repeated, losses[0]);
  } else {
    executor.parallel_for(w.rows, 1, [&](Index begin, Index end) {
      std::vector<float> cut;
      for (Index r = begin; r < end; ++r)
        for (Index g = 0; g < q.groups_per_row; ++g) {
          const auto first = static_cast<std::size_t>(g * q.group_cols),
                     count = static_cast<std::size_t>(q.end_of_group(g)) - first;
          const std::span<const float> values = cut_off(w.row(r).subspan(first, count), limits, r, g, cut);
          q.affine(r, g) = fit_one(values, importance.empty() ? importance : importance.subspan(first, count),
                                   losses[static_cast<std::size_t>(r)]);
        }
    });
  }
  round_trip_joint(q);
  GridLoss total;
  for (const GridLoss& l : losses) total += l;
  total.tell(report, static_cast<Index>(q.affines.size()));
}

/// Fills the codes with those nearest to w (cut off at the limits, if any) on the grids q.affines.
inline void encode_nearest(ConstMatrix w, ConstMatrix limits, const AnyQuantized& q, ExecutorRef executor = {}) {
  executor.parallel_for(w.rows, 1, [&](Index begin, Index end) {
    std::vector<float> cut;
    for (Index r = begin; r < end; ++r)
      for (Index g = 0; g < q.groups_per_row; ++g) {
        const Index first = g * q.group_cols, count = q.end_of_group(g) - first;
        const std::span<const float> values =
            cut_off(w.row(r).subspan(static_cast<std::size_t>(first), static_cast<std::size_t>(count)), limits, r, g, cut);
        q.format().encode(values.data(), count, q.affine(r, g), q.code(r, first));
      }
  });
}

/// The two in a row, without a report: what a search tries out.
template <AnyScheme S>
QuantizedMatrix<S> round_to_grid(ConstMatrix w, const GridFit& fit, ConstMatrix limits = {}, ExecutorRef executor = {}) {
  QuantizedMatrix<S> q(w.extents());
  const AnyQuantized any(q);
  Report ignored;
  fit_groups(w, fit, limits, {}, any, ignored, executor);
  encode_nearest(w, limits, any, executor);
  return q;
}

}  // namespace ANYBIT_CODE
}  // namespace anybit::grid

#include <anybit/core/macros_end.hpp>
