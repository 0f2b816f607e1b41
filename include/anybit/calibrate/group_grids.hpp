#pragma once
// Grids of all groups of a matrix, found on given weights, and the codes nearest to given weights on them.

#include <algorithm>
#include <span>
#include <string>
#include <vector>

#include <anybit/calibrate/report.hpp>
#include <anybit/calibrate/scale_search.hpp>
#include <anybit/calibrate/stats.hpp>
#include <anybit/tensor/quantize.hpp>

namespace anybit::calibrate::inline ANYBIT_CODE {

inline Status check_weights(ConstMatrix w) {
  if (w.rows < 1 || w.cols < 1)
    return Error{ErrorCode::invalid_argument,
                 "weights are " + std::to_string(w.rows) + " x " + std::to_string(w.cols) + "; at least 1 x 1 is needed"};
  if (const auto [row, column] = find_not_finite(w); row >= 0)
    return Error{ErrorCode::not_finite, "weight at row " + std::to_string(row) + ", column " + std::to_string(column) + " is " +
                                            std::to_string(w(row, column)) +
                                            "; the model file is damaged or was saved in too narrow a type"};
  return Ok{};
}

template <AnyScheme S>
Status check_limits(ConstMatrix w, ConstMatrix limits) {
  if (limits.rows == 0) return Ok{};
  if (std::is_same_v<typename S::granularity, PerTensor>)
    return Error{ErrorCode::unsupported,
                 "clip limits belong to the groups of a row; a scheme with one scale a tensor cannot use them"};
  if (limits.rows != w.rows || limits.cols != S::granularity::groups_per_row(w.cols))
    return Error{ErrorCode::shape_mismatch, "clip limits are " + std::to_string(limits.rows) + " x " +
                                                std::to_string(limits.cols) + "; the scheme has " + std::to_string(w.rows) +
                                                " x " + std::to_string(S::granularity::groups_per_row(w.cols)) + " groups"};
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

/// What rounding the scales to their store did to them.
struct StoreLoss {
  Index vanished = 0, saturated = 0;
  template <ScaleStore Store>
  void count(float wanted, float got) {
    if constexpr (std::is_same_v<Store, NoScale> || Store::joint) return;
    vanished += wanted > 0 && got == 0;
    saturated += got > 0 && got < wanted * 0.5f;  // no store but a saturated one is that far off
  }
  StoreLoss& operator+=(const StoreLoss& other) {
    vanished += other.vanished;
    saturated += other.saturated;
    return *this;
  }
  void tell(Report& report, Index groups) const {
    const std::string of = " of " + std::to_string(groups) + " scales ";
    if (vanished > 0)
      report.fallbacks.push_back(std::to_string(vanished) + of +
                                 "are too small for the scale store and became 0, their weights with them");
    if (saturated > 0)
      report.fallbacks.push_back(std::to_string(saturated) + of + "are too large for the scale store and were saturated");
  }
};

/// Scales of a joint store are rounded all together.
template <AnyScheme S>
void round_trip_joint(QuantizedMatrix<S>& q) {
  if constexpr (S::scale_store::joint) {
    std::vector<float> scales(q.affines.size());
    for (std::size_t i = 0; i < scales.size(); ++i) scales[i] = q.affines[i].scale;
    S::scale_store::round_trip(scales);
    for (std::size_t i = 0; i < scales.size(); ++i) q.affines[i].scale = scales[i];
  }
}

/// Fills q.affines, as stored, from w; q.extents are w's. Limits as in QuantizeOptions; importance is empty or one weight a
/// column.
template <AnyScheme S>
void fit_groups(ConstMatrix w, const GridFit& fit, ConstMatrix limits, std::span<const float> importance, QuantizedMatrix<S>& q,
                Report& report, ExecutorRef executor = {}) {
  using G = typename S::granularity;
  using Store = typename S::scale_store;
  std::vector<StoreLoss> losses(static_cast<std::size_t>(w.rows));
  const auto fit_one = [&](std::span<const float> values, std::span<const float> weights, StoreLoss& loss) {
    const Affine a = fit.fit<S>(values, weights);
    if (fit.search == Search::none) loss.count<Store>(fit.plain<typename S::format>(values).scale, a.scale);
    return a;
  };
  if constexpr (std::is_same_v<G, PerTensor>) {
    const Matrix all(w);
    std::vector<float> repeated;
    if (fit.search != Search::none && !importance.empty())
      for (Index r = 0; r < w.rows; ++r) repeated.insert(repeated.end(), importance.begin(), importance.end());
    q.affines[0] = fit_one({all.data(), static_cast<std::size_t>(w.extents().size())}, repeated, losses[0]);
  } else {
    const Index width = G::group_cols(w.cols), groups = G::groups_per_row(w.cols);
    executor.parallel_for(w.rows, 1, [&](Index begin, Index end) {
      std::vector<float> cut;
      for (Index r = begin; r < end; ++r)
        for (Index g = 0; g < groups; ++g) {
          const auto first = static_cast<std::size_t>(g * width),
                     count = static_cast<std::size_t>(std::min(width, w.cols - g * width));
          const std::span<const float> values = cut_off(w.row(r).subspan(first, count), limits, r, g, cut);
          q.affine(r, g) = fit_one(values, importance.empty() ? importance : importance.subspan(first, count),
                                   losses[static_cast<std::size_t>(r)]);
        }
    });
  }
  round_trip_joint(q);
  StoreLoss total;
  for (const StoreLoss& l : losses) total += l;
  total.tell(report, static_cast<Index>(q.affines.size()));
}

/// Fills q.codes with the codes nearest to w (cut off at the limits, if any) on the grids q.affines.
template <AnyScheme S>
void encode_nearest(ConstMatrix w, ConstMatrix limits, QuantizedMatrix<S>& q, ExecutorRef executor = {}) {
  using G = typename S::granularity;
  const Index width = G::group_cols(w.cols);
  executor.parallel_for(w.rows, 1, [&](Index begin, Index end) {
    std::vector<float> cut;
    for (Index r = begin; r < end; ++r)
      for (Index g = 0; g < G::groups_per_row(w.cols); ++g) {
        const auto first = static_cast<std::size_t>(g * width),
                   count = static_cast<std::size_t>(std::min(width, w.cols - g * width));
        const std::span<const float> values = cut_off(w.row(r).subspan(first, count), limits, r, g, cut);
        quantize_values<typename S::format>(values, q.affine(r, g), q.row(r).subspan(first, count));
      }
  });
}

/// The two in a row, without a report: what a search tries out.
template <AnyScheme S>
QuantizedMatrix<S> round_to_grid(ConstMatrix w, const GridFit& fit, ConstMatrix limits = {}, ExecutorRef executor = {}) {
  QuantizedMatrix<S> q(w.extents());
  Report ignored;
  fit_groups<S>(w, fit, limits, {}, q, ignored, executor);
  encode_nearest<S>(w, limits, q, executor);
  return q;
}

}  // namespace anybit::calibrate::inline ANYBIT_CODE
