#pragma once
// Losses over a vocabulary and their gradients by logits: against a label, and against a teacher's distribution.

#include <anybit/core/macros_begin.hpp>

#include <cmath>
#include <cstdint>
#include <span>
#include <vector>

#include <anybit/core/eigen_view.hpp>
#include <anybit/exec/executor.hpp>

namespace anybit::train::backward {
inline namespace ANYBIT_CODE {

namespace detail {

/// Turns logits into probabilities and returns log sum_j e^(logit_j). A NaN or plus infinity among the logits makes it NaN or
/// infinity.
inline double softmax_in_place(Eigen::Map<Eigen::ArrayXf> x) {
  const float top = x.maxCoeff();
  x = (x - top).exp();
  const float sum = x.sum();
  x *= 1.0f / sum;
  return static_cast<double>(top) + std::log(static_cast<double>(sum));
}

/// The sum of value(row) over rows, in their order; rows are computed in parallel.
template <class F>
double sum_of_rows(Index rows, ExecutorRef executor, F&& value) {
  std::vector<double> values(static_cast<std::size_t>(rows));
  executor.parallel_for(rows, 1, [&](Index begin, Index end) {
    for (Index t = begin; t < end; ++t) values[static_cast<std::size_t>(t)] = value(t);
  });
  double sum = 0;
  for (const double v : values) sum += v;
  return sum;
}

}  // namespace detail

/// No prediction is counted at this position.
inline constexpr std::int32_t no_label = -1;

/// L_t = log sum_j e^(z_tj) - z_t,label  and  dz_tj = weight (softmax(z_t)_j - [j = label]); zero where the label is no_label.
/// Overwrites logits (positions, vocabulary) by dz and returns sum_t L_t, not weighted. It is not finite where a logit is not.
inline double cross_entropy(MutableMatrix logits, std::span<const std::int32_t> labels, float weight, ExecutorRef executor) {
  ANYBIT_CHECK(static_cast<Index>(labels.size()) == logits.rows, "backward::cross_entropy: one label per position");
  return detail::sum_of_rows(logits.rows, executor, [&](Index t) {
    Eigen::Map<Eigen::ArrayXf> row(logits.data + t * logits.stride, logits.cols);
    const std::int32_t label = labels[static_cast<std::size_t>(t)];
    if (label == no_label) {
      row.setZero();
      return 0.0;
    }
    ANYBIT_CHECK(label >= 0 && label < logits.cols, "backward::cross_entropy: a label outside the vocabulary");
    const double right = static_cast<double>(row[label]), loss = detail::softmax_in_place(row) - right;
    row[label] -= 1.0f;
    row *= weight;
    return loss;
  });
}

/// With p = softmax(z / T) and r = softmax(teacher / T):  L_t = T^2 sum_j r_j (log r_j - log p_j),  dz_tj = weight T (p_j - r_j)
/// (Hinton et al., arXiv:1503.02531; T^2 keeps gradients of one size). Both matrices are (positions, vocabulary); logits become
/// dz, the teacher's become r. Returns sum_t L_t.
inline double kl_to_teacher(MutableMatrix logits, MutableMatrix teacher, float temperature, float weight, ExecutorRef executor) {
  ANYBIT_CHECK(logits.extents() == teacher.extents(), "backward::kl_to_teacher: shapes differ");
  const double square = static_cast<double>(temperature) * static_cast<double>(temperature);
  return detail::sum_of_rows(logits.rows, executor, [&](Index t) {
    Eigen::Map<Eigen::ArrayXf> z(logits.data + t * logits.stride, logits.cols);
    Eigen::Map<Eigen::ArrayXf> r(teacher.data + t * teacher.stride, teacher.cols);
    z *= 1.0f / temperature;
    r *= 1.0f / temperature;
    // sum_j r_j ((r's logit - its normalizer) - (z's logit - its normalizer))
    const Eigen::ArrayXf difference = r - z;
    const double normalizers = detail::softmax_in_place(r) - detail::softmax_in_place(z);
    const double loss = (difference.cast<double>() * r.cast<double>()).sum() - normalizers;
    z = (weight * temperature) * (z - r);
    return square * loss;
  });
}

}  // namespace ANYBIT_CODE
}  // namespace anybit::train::backward

#include <anybit/core/macros_end.hpp>
