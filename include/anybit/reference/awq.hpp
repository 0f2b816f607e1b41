#pragma once
// AWQ (Lin et al. 2023, arXiv:2306.00978): input channels with large activations get finer steps. Clipping is
// in awq_clip.hpp.
//
// Scale:  x_j = mean over tokens |X_j|,   s_j = max(x_j^a, 1e-4),   s <- s / sqrt(max s min s),   a = 0, 1/20, .. 19/20
//         the first a with the least mean of (Y - Y^)^2,   Y^ = Q(W diag(s)) (X / s);   a = 0 is plain rounding
// Y is the output of the module that reads X (attention, MLP or one linear); all linears that read X share s.
//
// Grid:   s = max(hi - lo, 1e-5) / (2^b - 1),  z = clamp(round(-lo / s), 0, 2^b - 1), with lo = min w, hi = max w: 0 may lie
// outside. A clipped group has -lo / s and hi / s half-way between two integers, so grids and codes are found in float, as in
// AWQ's code: in double some per cent of the groups choose another clip step.

#include <anybit/core/macros_begin.hpp>

#include <limits>

#include <anybit/reference/nearest.hpp>

namespace anybit::reference {
inline namespace ANYBIT_CODE {

inline UniformGrid awq_grid(const Vector& w, int bits) {
  const auto [lo, hi] = std::minmax_element(w.begin(), w.end());
  const float low = static_cast<float>(*lo), top = std::exp2(static_cast<float>(bits)) - 1,
              scale = std::max(static_cast<float>(*hi) - low, 1e-5f) / top;
  return {double{scale}, static_cast<double>(std::clamp(std::nearbyint(-low / scale), 0.0f, top)), double{top}};
}

inline double awq_round(double w, const UniformGrid& g) {
  const float level = std::nearbyint(static_cast<float>(w) / static_cast<float>(g.scale));
  return value_of(std::clamp(double{level} + g.zero, 0.0, g.top), g);
}

/// Q(W diag(s)) diag(s)^-1.
inline Matrix awq_rounded(const Matrix& w, const Vector& s, int bits, Index group) {
  Matrix out(w.rows, w.cols);
  for (Index r = 0; r < w.rows; ++r)
    for (Index first = 0; first < w.cols; first += group) {
      Vector scaled = w.row(r, first, std::min(first + group, w.cols));
      for (Index c = 0; c < scaled.size(); ++c) scaled[c] *= s[first + c];
      const UniformGrid g = awq_grid(scaled, bits);
      for (Index c = 0; c < scaled.size(); ++c) out(r, first + c) = awq_round(scaled[c], g) / s[first + c];
    }
  return out;
}

inline Vector mean_abs(const Matrix& x) {
  Vector mean(x.cols);
  for (Index t = 0; t < x.rows; ++t)
    for (Index j = 0; j < x.cols; ++j) mean[j] += std::abs(x(t, j)) / static_cast<double>(x.rows);
  return mean;
}

inline Vector awq_scale(const Vector& x_mean, double a) {
  Vector s = x_mean;
  for (double& v : s) v = std::max(std::pow(v, a), 1e-4);
  const auto [lo, hi] = std::minmax_element(s.begin(), s.end());
  const double middle = std::sqrt(*lo * *hi);
  for (double& v : s) v /= middle;
  return s;
}

struct AwqChoice {
  Vector losses, scale;
};
/// loss(s) is the mean squared error of the module's output when its linears are awq_rounded(.., s).
template <class Loss>
AwqChoice awq_search(const Vector& x_mean, Loss loss) {
  AwqChoice best{Vector(20), {}};
  double least = std::numeric_limits<double>::infinity();
  for (Index i = 0; i < 20; ++i) {
    const Vector s = awq_scale(x_mean, static_cast<double>(i) / 20);
    if ((best.losses[i] = loss(s)) < least) least = best.losses[i], best.scale = s;
  }
  return best;
}

}  // namespace ANYBIT_CODE
}  // namespace anybit::reference

#include <anybit/core/macros_end.hpp>
