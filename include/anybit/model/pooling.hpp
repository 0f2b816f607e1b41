#pragma once
// One vector per text out of an encoder's states.

#include <anybit/core/macros_begin.hpp>

#include <cmath>
#include <vector>

#include <anybit/core/eigen_view.hpp>
#include <anybit/model/decoder.hpp>

namespace anybit::model {
inline namespace ANYBIT_CODE {

/// The mean of all states, divided by its length (Sentence-BERT, arXiv:1908.10084). A mean of zeros stays zeros.
inline std::vector<float> mean_unit(ConstMatrix states) {
  std::vector<float> out(static_cast<std::size_t>(states.cols), 0.0f);
  if (states.rows == 0) return out;
  Eigen::Map<Eigen::RowVectorXf> mean(out.data(), states.cols);
  mean = as_eigen(states).colwise().mean();
  const float length = mean.norm();
  if (length > 0) mean /= length;
  return out;
}

/// tanh(W state of the first token + b), BERT's own (arXiv:1810.04805, section 3.1). Empty where the model has no pooler.
inline std::vector<float> pooled(const Decoder& d, ConstMatrix states, ExecutorRef executor = {}) {
  if (!d.config.form.pooler || states.rows == 0) return {};
  const nn::Linear& linear = d[d.weight("pooler.weight")].linear;
  if (linear.extents().size() == 0) return {};
  std::vector<float> out(static_cast<std::size_t>(linear.extents().rows));
  const MutableMatrix y(out.data(), 1, linear.extents().rows);
  Workspace workspace;
  linear.apply(states.row_range(0, 1), y, executor, workspace);
  for (float& value : out) value = std::tanh(value);
  return out;
}

}  // namespace ANYBIT_CODE
}  // namespace anybit::model

#include <anybit/core/macros_end.hpp>
