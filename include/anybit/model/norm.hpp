#pragma once

#include <cmath>
#include <span>

#include <anybit/core/eigen_view.hpp>
#include <anybit/exec/executor.hpp>

namespace anybit::model {
inline namespace ANYBIT_CODE {

/// Rows that a thread takes at least in loops over tokens; a slice of less work than this costs more than it saves.
inline constexpr Index token_grain = 4;

/// RMSNorm: y_tj = x_tj * gain_j / sqrt(mean_j(x_tj^2) + epsilon), for each token t. Readable twin: reference/norms.hpp.
inline void rms_norm(ConstMatrix x, std::span<const float> gain, float epsilon, MutableMatrix y, ExecutorRef executor) {
  ANYBIT_CHECK(static_cast<Index>(gain.size()) == x.cols && x.extents() == y.extents(), "rms_norm: shapes differ");
  executor.parallel_for(x.rows, token_grain, [&](Index begin, Index end) {
    for (Index t = begin; t < end; ++t) {
      const float mean_square = as_eigen(x).row(t).squaredNorm() / static_cast<float>(x.cols);
      const float factor = 1.0f / std::sqrt(mean_square + epsilon);
      const float* in = x.data + t * x.stride;
      float* out = y.data + t * y.stride;
      for (Index j = 0; j < x.cols; ++j) out[j] = in[j] * factor * gain[static_cast<std::size_t>(j)];
    }
  });
}

}  // namespace ANYBIT_CODE
}  // namespace anybit::model
