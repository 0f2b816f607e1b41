#pragma once
// Gradients of RMSNorm and LayerNorm; their forwards are in nn/norm.hpp. With n columns, f_t = 1 / sqrt(mean_j(.)^2 + epsilon),
// z_tj the normalized value and h_tj = dy_tj gain_j:
//
//   RMSNorm    z = x f            dx_tj += f_t (h_tj - z_tj mean_j(h z))
//   LayerNorm  z = (x - mean) f   dx_tj += f_t (h_tj - mean_j(h) - z_tj mean_j(h z))
//   both       dgain_j += sum_t dy_tj z_tj,   dbias_j += sum_t dy_tj

#include <anybit/core/macros_begin.hpp>

#include <cmath>
#include <span>
#include <vector>

#include <anybit/core/eigen_view.hpp>
#include <anybit/nn/elementwise.hpp>
#include <anybit/train/backward/column_sums.hpp>

namespace anybit::train::backward {
inline namespace ANYBIT_CODE {

/// x, dy, dx (tokens, width). Adds to dx and to dgain, which may be empty: then the gain is frozen. `unit_offset` as in the
/// forward. dx must not overlap dy.
inline void rms_norm(ConstMatrix x, std::span<const float> gain, float epsilon, ConstMatrix dy, MutableMatrix dx,
                     std::span<float> dgain, ExecutorRef executor, bool unit_offset = false) {
  ANYBIT_CHECK(static_cast<Index>(gain.size()) == x.cols && x.extents() == dy.extents() && x.extents() == dx.extents() &&
                   (dgain.empty() || dgain.size() == gain.size()),
               "backward::rms_norm: shapes differ");
  const float offset = unit_offset ? 1.0f : 0.0f, width = static_cast<float>(x.cols);
  std::vector<float> factors(static_cast<std::size_t>(x.rows));
  executor.parallel_for(x.rows, nn::token_grain, [&](Index begin, Index end) {
    const Eigen::Map<const Eigen::ArrayXf> g(gain.data(), x.cols);
    for (Index t = begin; t < end; ++t) {
      const Eigen::Map<const Eigen::ArrayXf> in(x.data + t * x.stride, x.cols), d(dy.data + t * dy.stride, x.cols);
      Eigen::Map<Eigen::ArrayXf> out(dx.data + t * dx.stride, x.cols);
      const float f = 1.0f / std::sqrt(in.square().sum() / width + epsilon);
      const float along = (d * (g + offset) * in).sum() * f / width;  // mean_j(h z)
      out += f * (d * (g + offset) - in * (f * along));
      factors[static_cast<std::size_t>(t)] = f;
    }
  });
  if (dgain.empty()) return;
  add_column_sums(x.rows, dgain, executor,
                  [&](Index t, Index j) { return dy(t, j) * x(t, j) * factors[static_cast<std::size_t>(t)]; });
}

/// The same of LayerNorm; dbias may be empty, too.
inline void layer_norm(ConstMatrix x, std::span<const float> gain, float epsilon, ConstMatrix dy, MutableMatrix dx,
                       std::span<float> dgain, std::span<float> dbias, ExecutorRef executor) {
  ANYBIT_CHECK(static_cast<Index>(gain.size()) == x.cols && x.extents() == dy.extents() && x.extents() == dx.extents() &&
                   (dgain.empty() || dgain.size() == gain.size()) && (dbias.empty() || dbias.size() == gain.size()),
               "backward::layer_norm: shapes differ");
  struct Row {
    float mean, factor;
  };
  const float width = static_cast<float>(x.cols);
  std::vector<Row> rows(static_cast<std::size_t>(x.rows));
  executor.parallel_for(x.rows, nn::token_grain, [&](Index begin, Index end) {
    const Eigen::Map<const Eigen::ArrayXf> g(gain.data(), x.cols);
    for (Index t = begin; t < end; ++t) {
      const Eigen::Map<const Eigen::ArrayXf> in(x.data + t * x.stride, x.cols), d(dy.data + t * dy.stride, x.cols);
      Eigen::Map<Eigen::ArrayXf> out(dx.data + t * dx.stride, x.cols);
      const float mean = in.mean(), f = 1.0f / std::sqrt((in - mean).square().mean() + epsilon);
      const float level = (d * g).sum() / width, along = (d * g * (in - mean)).sum() * f / width;
      out += f * (d * g - level - (in - mean) * (f * along));
      rows[static_cast<std::size_t>(t)] = {mean, f};
    }
  });
  if (!dgain.empty())
    add_column_sums(x.rows, dgain, executor, [&](Index t, Index j) {
      const Row& r = rows[static_cast<std::size_t>(t)];
      return dy(t, j) * (x(t, j) - r.mean) * r.factor;
    });
  if (!dbias.empty()) add_column_sums(dy, dbias, executor);
}

}  // namespace ANYBIT_CODE
}  // namespace anybit::train::backward

#include <anybit/core/macros_end.hpp>
