#pragma once
// Normalizations of rows: RMSNorm (Zhang and Sennrich, arXiv:1910.07467) and LayerNorm (Ba et al., arXiv:1607.06450). Readable
// twins: reference/norms.hpp.

#include <cmath>
#include <span>

#include <anybit/core/eigen_view.hpp>
#include <anybit/exec/executor.hpp>
#include <anybit/nn/elementwise.hpp>

namespace anybit::nn {
inline namespace ANYBIT_CODE {

/// y_tj = x_tj gain_j / sqrt(mean_j(x_tj^2) + epsilon), for each token t. `unit_offset`: the gains are stored less 1 (Gemma).
inline void rms_norm(ConstMatrix x, std::span<const float> gain, float epsilon, MutableMatrix y, ExecutorRef executor,
                     bool unit_offset = false) {
  ANYBIT_CHECK(static_cast<Index>(gain.size()) == x.cols && x.extents() == y.extents(), "rms_norm: shapes differ");
  executor.parallel_for(x.rows, token_grain, [&](Index begin, Index end) {
    for (Index t = begin; t < end; ++t) {
      const float mean_square = as_eigen(x).row(t).squaredNorm() / static_cast<float>(x.cols);
      const float factor = 1.0f / std::sqrt(mean_square + epsilon);
      const float* in = x.data + t * x.stride;
      float* out = y.data + t * y.stride;
      if (unit_offset)
        for (Index j = 0; j < x.cols; ++j) out[j] = in[j] * factor * (1.0f + gain[static_cast<std::size_t>(j)]);
      else
        for (Index j = 0; j < x.cols; ++j) out[j] = in[j] * factor * gain[static_cast<std::size_t>(j)];
    }
  });
}

/// y_tj = (x_tj - mean_j) gain_j / sqrt(variance_j + epsilon) + bias_j, for each token t; without bias where it is empty.
inline void layer_norm(ConstMatrix x, std::span<const float> gain, std::span<const float> bias, float epsilon, MutableMatrix y,
                       ExecutorRef executor) {
  ANYBIT_CHECK(
      static_cast<Index>(gain.size()) == x.cols && x.extents() == y.extents() && (bias.empty() || bias.size() == gain.size()),
      "layer_norm: shapes differ");
  executor.parallel_for(x.rows, token_grain, [&](Index begin, Index end) {
    for (Index t = begin; t < end; ++t) {
      const auto row = as_eigen(x).row(t).array();
      const float mean = row.mean(), variance = (row - mean).square().mean();
      const float factor = 1.0f / std::sqrt(variance + epsilon);
      const float* in = x.data + t * x.stride;
      float* out = y.data + t * y.stride;
      for (Index j = 0; j < x.cols; ++j) {
        const auto i = static_cast<std::size_t>(j);
        out[j] = (in[j] - mean) * factor * gain[i] + (bias.empty() ? 0.0f : bias[i]);
      }
    }
  });
}

}  // namespace ANYBIT_CODE
}  // namespace anybit::nn
