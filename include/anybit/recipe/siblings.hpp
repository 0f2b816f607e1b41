#pragma once
// Matrices that share one input, and the changes that a transform may make to them.

#include <anybit/core/macros_begin.hpp>

#include <algorithm>
#include <span>
#include <string>
#include <vector>

#include <anybit/calibrate/stats.hpp>
#include <anybit/grid/grid_fit.hpp>
#include <anybit/recipe/report.hpp>

namespace anybit {
inline namespace ANYBIT_ABI {

/// A matrix of somebody else's until it is written to; then a copy. It must outlive this.
class SeenMatrix {
 public:
  explicit SeenMatrix(ConstMatrix matrix) : seen_(matrix) {}
  ConstMatrix view() const { return copied_ ? copy_.view() : seen_; }
  MutableMatrix own() {
    if (!copied_) copy_ = Matrix(seen_), copied_ = true;
    return copy_.view();
  }

 private:
  ConstMatrix seen_;
  Matrix copy_;
  bool copied_ = false;
};

/// The same of statistics, whose Hessian is as large as a matrix.
class SeenStats {
 public:
  explicit SeenStats(const Stats& stats) : seen_(&stats) {}
  const Stats& operator*() const { return copied_ ? copy_ : *seen_; }
  const Stats* operator->() const { return &**this; }
  Stats& own() {
    if (!copied_) copy_ = *seen_, copied_ = true;
    return copy_;
  }

 private:
  const Stats* seen_;
  Stats copy_;
  bool copied_ = false;
};

/// The matrices that transforms rewrite: W' = W diag(s) and X' = X / s give the same outputs. Nothing is copied before a
/// transform writes to it.
struct Siblings {
  Siblings(std::span<const ConstMatrix> matrices, const Stats& input) : weights(matrices.begin(), matrices.end()), stats(input) {}

  std::vector<SeenMatrix> weights;
  SeenStats stats;
  std::vector<float> input_scale;    ///< s so far; empty means all 1
  std::vector<Matrix> clip_limits;   ///< one a sibling, or none at all; see QuantizeOptions
  std::vector<std::string> remarks;  ///< go into the report of every sibling
  std::vector<std::string> fallbacks;

  std::vector<ConstMatrix> views() const {
    std::vector<ConstMatrix> v;
    for (const SeenMatrix& w : weights) v.push_back(w.view());
    return v;
  }
};

}  // namespace ANYBIT_ABI
}  // namespace anybit

namespace anybit::recipe {
inline namespace ANYBIT_CODE {

inline Status check_siblings(std::span<const ConstMatrix> weights) {
  if (weights.empty())
    return Error{ErrorCode::invalid_argument, "the list of siblings is empty; pass 1 or more matrices that share the input"};
  for (std::size_t i = 1; i < weights.size(); ++i)
    if (weights[i].cols != weights[0].cols)
      return Error{ErrorCode::shape_mismatch, "sibling " + std::to_string(i) + " has " + std::to_string(weights[i].cols) +
                                                  " inputs, sibling 0 has " + std::to_string(weights[0].cols) +
                                                  "; siblings share one input"};
  return Ok{};
}

/// Statistics that a method cannot do without.
inline Status check_stats(const Stats& stats, Needs needs, Index inputs, std::string_view who) {
  const std::string text(who);
  if (needs == Needs::none) return Ok{};
  if (stats.inputs() != inputs)
    return Error{ErrorCode::shape_mismatch, text + ": statistics are of " + std::to_string(stats.inputs()) +
                                                " inputs, the weights have " + std::to_string(inputs) +
                                                "; they are of another layer"};
  if (!stats.has(needs))
    return Error{ErrorCode::insufficient_data, text + ": needs " + describe(needs) + ", but the statistics hold " +
                                                   describe(stats.needs()) + "; accumulate what the recipe needs"};
  if (stats.tokens() < 1)
    return Error{ErrorCode::insufficient_data,
                 text + ": the statistics have seen 0 tokens; at least 1 is needed, some thousand are usual"};
  return Ok{};
}

inline Status check_tied(std::span<const Index> tied, Index inputs) {
  if (tied.empty()) return Ok{};
  if (static_cast<Index>(tied.size()) != inputs)
    return Error{ErrorCode::invalid_argument, "QuantizeOptions::tied has " + std::to_string(tied.size()) + " entries for " +
                                                  std::to_string(inputs) + " inputs; give one each, or none"};
  for (std::size_t j = 0; j < tied.size(); ++j)
    if (tied[j] < 0 || tied[j] >= inputs)
      return Error{ErrorCode::invalid_argument, "QuantizeOptions::tied has " + std::to_string(tied[j]) + " for input " +
                                                    std::to_string(j) + "; it must be 0 to " + std::to_string(inputs - 1)};
  return Ok{};
}

/// Tied inputs get the mean of their values.
inline std::vector<float> mean_of_tied(std::vector<float> values, std::span<const Index> tied) {
  if (tied.empty()) return values;
  std::vector<double> sum(values.size()), count(values.size());
  for (std::size_t j = 0; j < values.size(); ++j) {
    sum[static_cast<std::size_t>(tied[j])] += static_cast<double>(values[j]);
    ++count[static_cast<std::size_t>(tied[j])];
  }
  for (std::size_t j = 0; j < values.size(); ++j)
    values[j] = static_cast<float>(sum[static_cast<std::size_t>(tied[j])] / count[static_cast<std::size_t>(tied[j])]);
  return values;
}

/// Tied inputs get the largest of their values, which are not negative.
inline std::vector<float> max_of_tied(std::vector<float> values, std::span<const Index> tied) {
  if (tied.empty()) return values;
  std::vector<float> largest(values.size());
  for (std::size_t j = 0; j < values.size(); ++j) {
    float& to = largest[static_cast<std::size_t>(tied[j])];
    to = std::max(to, values[j]);
  }
  for (std::size_t j = 0; j < values.size(); ++j) values[j] = largest[static_cast<std::size_t>(tied[j])];
  return values;
}

/// Says in the report how many inputs `who` left at scale 1 because their `statistic` is 0: a fallback, for nobody knows what
/// they carry later.
inline void report_unscaled(const std::string& who, std::span<const float> statistic, Siblings& set) {
  const auto dead = std::count(statistic.begin(), statistic.end(), 0.0f);
  if (dead > 0)
    set.fallbacks.push_back(who + ": " + std::to_string(dead) + " of " + std::to_string(statistic.size()) +
                            " inputs were 0 on all calibration tokens and were not scaled");
}

/// Columns times s, statistics divided by s.
inline void scale_inputs(Siblings& set, std::span<const float> s) {
  for (SeenMatrix& seen : set.weights) {
    const MutableMatrix w = seen.own();
    for (Index r = 0; r < w.rows; ++r)
      for (Index c = 0; c < w.cols; ++c) w(r, c) *= s[static_cast<std::size_t>(c)];
  }
  set.stats.own().divide_inputs(s);
  if (set.input_scale.empty())
    set.input_scale.assign(s.begin(), s.end());
  else
    for (std::size_t j = 0; j < s.size(); ++j) set.input_scale[j] *= s[j];
}

}  // namespace ANYBIT_CODE
}  // namespace anybit::recipe

#include <anybit/core/macros_end.hpp>
