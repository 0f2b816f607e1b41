#pragma once
// LDLQ on trellis codes from statistics to bytes, compiled once for all schemes. Ldlq<Trellis<..>> in algorithm/ldlq.hpp is the
// public form.

#include <anybit/core/macros_begin.hpp>

#include <algorithm>
#include <array>
#include <cmath>
#include <string>
#include <vector>

#include <anybit/algorithm/ldlq_options.hpp>
#include <anybit/algorithm/ldlq_tiles.hpp>
#include <anybit/exec/executor.hpp>
#include <anybit/grid/group_grids.hpp>
#include <anybit/recipe/objective.hpp>
#include <anybit/recipe/siblings.hpp>

namespace anybit::ldlq {
inline namespace ANYBIT_CODE {

/// One matrix. `trellis` and the scales, one for each group, are the result.
template <class Real = float>
class Method {
 public:
  Method(const TileFunctions& scheme, const Options& options, ConstMatrix w, std::span<std::byte> trellis, ExecutorRef executor)
      : o_(options),
        w_(w),
        trellis_(trellis),
        executor_(executor),
        scales_(static_cast<std::size_t>(scheme.count(w.extents()))),
        values_(w.rows, w.cols),
        coding_{scheme, w.extents(), scheme.make_values(), {}, {}, options.exact} {}

  /// Every tile by itself.
  void code_nearest(Report& report) {
    find_scales(report);
    const Index rows = dense::task_rows(w_.rows);
    parallel_tiles(executor_, w_.rows, rows,
                   [&](Index begin, Index end) { ldlq::code_nearest(coding_, w_, begin, end, trellis_.data(), values_.view()); });
  }
  /// With feedback, where the Hessian has a factor.
  void code(const Stats& stats, Report& report) {
    const Index n = w_.cols;
    AlignedBuffer hessian(static_cast<std::size_t>(n * n) * sizeof(double), AlignedBuffer::Uninitialized{});
    stats.hessian(MatrixView<double>(hessian.as<double>(), n, n));
    code(MatrixView<const double>(hessian.as<double>(), n, n), report);
  }
  void code(MatrixView<const double> h, Report& report) {
    const Index n = w_.cols;
    auto prepared = gptq::prepare<double>(w_, h, static_cast<double>(o_.damp), 0, gptq::ColumnOrder::natural, 1, report);
    if (!prepared) {
      report.fallbacks.push_back("tiles were coded without feedback");
      return code_nearest(report);
    }
    find_scales(report);
    const std::vector<float> costs = column_costs(prepared->factor);
    std::vector<float> roots;
    for (const float c : costs) roots.push_back(std::sqrt(c));
    if (o_.weighted) coding_.column_roots = roots;
    const Index rows = dense::task_rows(w_.rows);
    parallel_tiles(executor_, w_.rows, rows, [&](Index begin, Index end) {
      for (Index r = begin; r < end; r += rows)
        code_with_feedback<Real>(coding_, prepared->weights.view(), prepared->factor, r, std::min(r + rows, end), trellis_.data(),
                                 values_.view());
    });
    coding_.column_roots = {};
    if (!o_.refine_scales || coding_.scheme.joint_scales || coding_.scheme.per_tensor) return;
    double largest = 0;
    for (Index j = 0; j < n; ++j) largest = std::max(largest, h(j, j));
    Matrix narrow(n, n);
    for (Index i = 0; i < n; ++i)
      for (Index j = 0; j < n; ++j) narrow(i, j) = static_cast<float>(h(i, j) / largest);
    parallel_tiles(executor_, w_.rows, rows, [&](Index begin, Index end) {
      for (Index r = begin; r < end; r += rows)
        ldlq::refine_scales<Real>(coding_.scheme, w_, std::as_const(values_).view(), std::as_const(narrow).view(), r,
                                  std::min(r + rows, end), scales_);
    });
  }

  std::span<const float> scales() const { return scales_; }
  /// The weights of rows begin .. end - 1, decoded from the bytes.
  void weights(Index begin, Index end, MutableMatrix out) const {
    for (Index r = begin; r < end; ++r)
      for (Index c = 0; c < w_.cols; ++c) out(r - begin, c) = coding_.scale(r, c) * values_(r, c);
  }

 private:
  /// A group's scale is its root mean square over gain times that of the codebook's values, as stored. The gain is the best of
  /// some on a few tiles, unless it is given.
  void find_scales(Report& report) {
    std::vector<double> squares(scales_.size()), counts(scales_.size());
    const Index width = coding_.scheme.group_cols(w_.cols);
    for (Index r = 0; r < w_.rows; ++r)
      for (Index c = 0; c < w_.cols; ++c) {
        const auto i = static_cast<std::size_t>(coding_.scheme.index(w_.extents(), r, c / width));
        squares[i] += double{w_(r, c)} * double{w_(r, c)}, ++counts[i];
      }
    const auto with_gain = [&](double gain) {
      std::vector<float> s(scales_.size());
      for (std::size_t i = 0; i < s.size(); ++i)
        s[i] = counts[i] > 0 ? static_cast<float>(std::sqrt(squares[i] / counts[i]) / (gain * coding_.scheme.deviation())) : 0.0f;
      coding_.scheme.round_trip(s);
      return s;
    };
    double gain = static_cast<double>(o_.gain);
    if (!(gain > 0)) {
      constexpr std::array<double, 6> candidates{0.8, 0.88, 0.96, 1.04, 1.12, 1.2};
      std::array<double, 6> errors{};
      executor_.parallel_for(static_cast<Index>(candidates.size()), 1, [&](Index begin, Index end) {
        for (Index i = begin; i < end; ++i)
          errors[static_cast<std::size_t>(i)] = sample_error(with_gain(candidates[static_cast<std::size_t>(i)]));
      });
      gain = candidates[static_cast<std::size_t>(std::min_element(errors.begin(), errors.end()) - errors.begin())];
      report.remarks.push_back("ldlq: scales for a gain of " + gptq::detail::number(gain) + ", the best on a sample of tiles");
    }
    scales_ = with_gain(gain);
    coding_.scales = scales_;
  }
  /// The squared error of some tiles, coded by themselves on these scales.
  double sample_error(std::span<const float> scales) const {
    constexpr Index most = 24;
    Coding coding = coding_;
    coding.scales = scales;
    coding.exact = false;
    const auto search = coding.scheme.make_search(coding.values.get());
    std::vector<std::byte> bytes(static_cast<std::size_t>(coding.scheme.tile_bytes));
    const Index across = ceil_div(w_.cols, tile), tiles = across * ceil_div(w_.rows, tile);
    double sum = 0;
    for (Index i = 0, count = std::min(most, tiles); i < count; ++i) {
      const Index at = i * tiles / count, row = at / across * tile, col = at % across * tile;
      encode_tile(
          coding, search.get(), row, col, [&](Index r, Index c) { return w_(row + r, col + c); }, bytes.data(),
          [&](Index r, Index c, float v) {
            const double d = double{w_(row + r, col + c)} - double{coding.scale(row + r, col + c)} * double{v};
            sum += d * d;
          });
    }
    return sum;
  }

  const Options o_;
  ConstMatrix w_;
  std::span<std::byte> trellis_;
  ExecutorRef executor_;
  std::vector<float> scales_;
  Matrix values_;
  Coding coding_;
};

}  // namespace ANYBIT_CODE
}  // namespace anybit::ldlq

#include <anybit/core/macros_end.hpp>
