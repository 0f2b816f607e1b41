#pragma once
// The loops behind Stats. Include calibrate/stats.hpp instead.

#include <anybit/core/macros_begin.hpp>

#include <algorithm>
#include <bit>
#include <cstdint>

#include <anybit/calibrate/stats.hpp>
#include <anybit/core/finite.hpp>
#include <anybit/dense/product.hpp>
#include <anybit/exec/executor.hpp>

namespace anybit::calibrate {
inline namespace ANYBIT_CODE {

/// Channels that one thread takes at a time where their sums do not depend on each other.
inline constexpr Index channel_grain = 64;

/// A power of two above the largest magnitude of each column of x, or 1.
inline std::vector<double> units(ConstMatrix x, ExecutorRef executor) {
  std::vector<double> unit(static_cast<std::size_t>(x.cols));
  parallel_tiles(executor, x.cols, channel_grain, [&](Index begin, Index end) {
    std::vector<float> largest(static_cast<std::size_t>(end - begin), 0);
    for (Index t = 0; t < x.rows; ++t)
      for (Index j = begin; j < end; ++j) {
        float& most = largest[static_cast<std::size_t>(j - begin)];
        most = std::max(most, std::fabs(x(t, j)));
      }
    for (Index j = begin; j < end; ++j) {
      const double most = double{largest[static_cast<std::size_t>(j - begin)]};
      unit[static_cast<std::size_t>(j)] = most > 0 ? std::ldexp(1.0, std::ilogb(most) + 1) : 1.0;
    }
  });
  return unit;
}

/// Each column of x divided by its unit. A float's inverse power of two may not be one, so the quotients are of doubles.
inline Matrix divided(ConstMatrix x, std::span<const double> unit, ExecutorRef executor) {
  Matrix out(x.rows, x.cols);
  parallel_tiles(executor, x.rows, 16, [&](Index begin, Index end) {
    for (Index t = begin; t < end; ++t)
      for (Index j = 0; j < x.cols; ++j) out(t, j) = static_cast<float>(double{x(t, j)} / unit[static_cast<std::size_t>(j)]);
  });
  return out;
}

/// The product runs in float over at most 256 tokens, and its result is added in double: relative
/// rounding stays near 1e-6 for any number of tokens, at the speed of a float product. Panels of columns are independent.
template <class Real>
void add_block(MatrixView<const Real> x, std::vector<double>& total, ExecutorRef executor) {
  const Index n = x.cols;
  // Each channel is brought below 1 by a power of two, so that no product leaves float's range; that costs no precision.
  const std::vector<double> unit = units(x, executor);
  const Matrix scaled = divided(x, unit, executor);

  constexpr Index panel = 128;
  const ConstMatrix all = scaled.view();
  executor.parallel_for(ceil_div(n, panel), 1, [&](Index begin_panel, Index end_panel) {
    for (Index first = begin_panel * panel; first < std::min(end_panel * panel, n); first += panel) {
      const Index end = std::min(first + panel, n);
      Matrix product(n - first, end - first);
      dense::add_transposed_product<Real>(all.col_range(first, n), all.col_range(first, end), product.view());
      for (Index i = first; i < n; ++i) {
        double* const row = total.data() + i * (i + 1) / 2;
        for (Index j = first; j < std::min(end, i + 1); ++j)
          row[j] += double{product(i - first, j - first)} * unit[static_cast<std::size_t>(i)] * unit[static_cast<std::size_t>(j)];
      }
    }
  });
}

/// As add_block(). Differences are small next to x, so each gets units of its own.
template <class Real>
void add_drift(MatrixView<const Real> x, MatrixView<const Real> original, std::vector<double>& total, ExecutorRef executor) {
  const Index n = x.cols;
  const std::vector<double> unit = units(x, executor);
  std::vector<double> apart(static_cast<std::size_t>(n), 0);
  parallel_tiles(executor, n, channel_grain, [&](Index begin, Index end) {
    for (Index t = 0; t < x.rows; ++t)
      for (Index j = begin; j < end; ++j) {
        double& most = apart[static_cast<std::size_t>(j)];
        most = std::max(most, std::fabs(double{original(t, j)} - double{x(t, j)}));
      }
    for (Index j = begin; j < end; ++j) {
      double& u = apart[static_cast<std::size_t>(j)];
      u = u > 0 ? std::ldexp(1.0, std::ilogb(u) + 1) : 1.0;
    }
  });
  const Matrix scaled = divided(x, unit, executor);
  Matrix difference(x.rows, n);
  parallel_tiles(executor, x.rows, 16, [&](Index begin, Index end) {
    for (Index t = begin; t < end; ++t)
      for (Index j = 0; j < n; ++j)
        difference(t, j) = static_cast<float>((double{original(t, j)} - double{x(t, j)}) / apart[static_cast<std::size_t>(j)]);
  });
  constexpr Index panel = 128;
  const ConstMatrix left = std::as_const(difference).view();
  executor.parallel_for(ceil_div(n, panel), 1, [&](Index begin_panel, Index end_panel) {
    for (Index first = begin_panel * panel; first < std::min(end_panel * panel, n); first += panel) {
      const Index end = std::min(first + panel, n);
      Matrix product(end - first, n);
      dense::add_transposed_product<Real>(left.col_range(first, end), scaled.view(), product.view());
      for (Index i = first; i < end; ++i)
        for (Index j = 0; j < n; ++j)
          total[static_cast<std::size_t>(i * n + j)] +=
              double{product(i - first, j)} * apart[static_cast<std::size_t>(i)] * unit[static_cast<std::size_t>(j)];
    }
  });
}

inline Status accumulate(Stats& s, ConstMatrix x, ConstMatrix original, ExecutorRef executor, AddBlock add,
                         AddDrift add_difference) {
  if (original.extents() != x.extents())
    return Error{ErrorCode::shape_mismatch, "activations are " + std::to_string(x.rows) + " x " + std::to_string(x.cols) +
                                                ", those of the float model " + std::to_string(original.rows) + " x " +
                                                std::to_string(original.cols) + "; pass the same tokens of the same layer"};
  if (const auto [token, channel] = find_not_finite(original); token >= 0)
    return Error{ErrorCode::not_finite, "the float model's activation of token " + std::to_string(s.tokens_ + token) +
                                            ", channel " + std::to_string(channel) + " is " +
                                            std::to_string(original(token, channel)) + "; it overflows on this text"};
  ANYBIT_TRY_STATUS(add_tokens(s, x, executor, add));
  if (!s.has(Needs::input_drift)) return Ok{};
  constexpr Index block = 256;
  for (Index t = 0; t < x.rows; t += block) {
    const Index end = std::min(t + block, x.rows);
    add_difference(x.row_range(t, end), original.row_range(t, end), s.sum_drift_, executor);
  }
  return Ok{};
}

inline Status accumulate(Stats& s, ConstMatrix x, ExecutorRef executor, AddBlock add) {
  if (s.has(Needs::input_drift))
    return Error{ErrorCode::insufficient_data,
                 "statistics with drift need the float model's activations too: accumulate(x, original)"};
  return add_tokens(s, x, executor, add);
}

inline Status add_tokens(Stats& s, ConstMatrix x, ExecutorRef executor, AddBlock add) {
  if (x.cols != s.inputs_)
    return Error{ErrorCode::shape_mismatch, "activations have " + std::to_string(x.cols) +
                                                " channels, but the statistics are of " + std::to_string(s.inputs_) +
                                                " inputs; pass what enters this very layer"};
  if (const auto [token, channel] = find_not_finite(x); token >= 0)
    return Error{ErrorCode::not_finite, "activation of token " + std::to_string(s.tokens_ + token) + ", channel " +
                                            std::to_string(channel) + " is " + std::to_string(x(token, channel)) +
                                            "; the model overflows on this text or its weights are damaged"};
  parallel_tiles(executor, x.cols, channel_grain, [&](Index begin, Index end) {
    for (Index t = 0; t < x.rows; ++t) {
      const float* const row = x.data + t * x.stride;
      const auto at = [](Index j) { return static_cast<std::size_t>(j); };
      if (s.has(Needs::abs_max))
        for (Index j = begin; j < end; ++j) s.abs_max_[at(j)] = std::max(s.abs_max_[at(j)], std::fabs(row[j]));
      if (s.has(Needs::mean_abs))
        for (Index j = begin; j < end; ++j) s.sum_abs_[at(j)] += double{std::fabs(row[j])};
      if (s.has(Needs::mean_square))
        for (Index j = begin; j < end; ++j) s.sum_square_[at(j)] += double{row[j]} * double{row[j]};
    }
  });
  if (s.has(Needs::samples))
    for (Index t = 0; t < x.rows; ++t)
      if ((s.tokens_ + t) % s.sample_stride_ == 0) {
        const auto row = x.row(t);
        s.samples_.insert(s.samples_.end(), row.begin(), row.end());
        thin_samples(s);
      }
  if (s.has(Needs::hessian) && s.inputs_ > 0) {
    constexpr Index block = 256;
    for (Index t = 0; t < x.rows; t += block) add(x.row_range(t, std::min(t + block, x.rows)), s.sum_product_, executor);
  }
  s.tokens_ += x.rows;
  return Ok{};
}

/// Keeps every other sample and doubles the stride until the cap holds.
inline void thin_samples(Stats& s) {
  if (s.inputs_ == 0) return s.samples_.clear();
  while (static_cast<Index>(s.samples_.size()) / s.inputs_ > s.sample_cap_) {
    const Index rows = static_cast<Index>(s.samples_.size()) / s.inputs_;
    for (Index r = 2; r < rows; r += 2)
      std::copy_n(s.samples_.begin() + r * s.inputs_, s.inputs_, s.samples_.begin() + r / 2 * s.inputs_);
    s.samples_.resize(static_cast<std::size_t>(ceil_div(rows, 2) * s.inputs_));
    s.sample_stride_ *= 2;
  }
}

inline Status merge(Stats& s, const Stats& other) {
  if (s.inputs_ != other.inputs_ || s.needs_ != other.needs_)
    return Error{ErrorCode::shape_mismatch, "statistics of " + std::to_string(other.inputs_) + " inputs (" +
                                                describe(other.needs_) + ") cannot join statistics of " +
                                                std::to_string(s.inputs_) + " (" + describe(s.needs_) + ")"};
  if (!s.fingerprint.empty() && !other.fingerprint.empty() && s.fingerprint != other.fingerprint)
    return Error{ErrorCode::invalid_argument,
                 "statistics of \"" + other.fingerprint + "\" cannot join statistics of \"" + s.fingerprint + "\""};
  if (s.fingerprint.empty()) s.fingerprint = other.fingerprint;
  for (std::size_t j = 0; j < s.abs_max_.size(); ++j) s.abs_max_[j] = std::max(s.abs_max_[j], other.abs_max_[j]);
  for (std::size_t j = 0; j < s.sum_abs_.size(); ++j) s.sum_abs_[j] += other.sum_abs_[j];
  for (std::size_t j = 0; j < s.sum_square_.size(); ++j) s.sum_square_[j] += other.sum_square_[j];
  for (std::size_t j = 0; j < s.sum_product_.size(); ++j) s.sum_product_[j] += other.sum_product_[j];
  for (std::size_t j = 0; j < s.sum_drift_.size(); ++j) s.sum_drift_[j] += other.sum_drift_[j];
  if (s.has(Needs::samples)) {  // equal density on both sides before they join
    Stats thinned = other;
    const auto halve = [](Stats& which) {
      const Index rows = which.inputs_ > 0 ? static_cast<Index>(which.samples_.size()) / which.inputs_ : 0;
      const Index cap = std::exchange(which.sample_cap_, std::max<Index>(1, rows - 1));
      if (rows > 1)
        thin_samples(which);
      else
        which.sample_stride_ *= 2;
      which.sample_cap_ = cap;
    };
    while (s.sample_stride_ < thinned.sample_stride_) halve(s);
    while (thinned.sample_stride_ < s.sample_stride_) halve(thinned);
    s.samples_.insert(s.samples_.end(), thinned.samples_.begin(), thinned.samples_.end());
    thin_samples(s);
  }
  s.tokens_ += other.tokens_;
  return Ok{};
}

inline void divide_inputs(Stats& s, std::span<const float> divisor) {
  ANYBIT_CHECK(static_cast<Index>(divisor.size()) == s.inputs_, "Stats::divide_inputs: one divisor per input");
  const auto n = static_cast<std::size_t>(s.inputs_);
  std::vector<double> inverse(n);
  for (std::size_t j = 0; j < n; ++j) inverse[j] = 1.0 / static_cast<double>(divisor[j]);
  for (std::size_t j = 0; j < s.abs_max_.size(); ++j) s.abs_max_[j] = s.abs_max_[j] / divisor[j];
  for (std::size_t j = 0; j < s.sum_abs_.size(); ++j) s.sum_abs_[j] *= inverse[j];
  for (std::size_t j = 0; j < s.sum_square_.size(); ++j) s.sum_square_[j] *= inverse[j] * inverse[j];
  if (!s.sum_product_.empty())
    for (std::size_t i = 0, at = 0; i < n; ++i)
      for (std::size_t j = 0; j <= i; ++j) s.sum_product_[at++] *= inverse[i] * inverse[j];
  for (std::size_t i = 0; i < s.sum_drift_.size(); ++i) s.sum_drift_[i] *= inverse[i / n] * inverse[i % n];
  for (std::size_t i = 0; i < s.samples_.size(); ++i) s.samples_[i] = s.samples_[i] / divisor[i % n];
}

inline void expand_hessian(const Stats& s, MatrixView<double> out) {
  ANYBIT_CHECK(out.rows == s.inputs_ && out.cols == s.inputs_, "Stats::hessian: the output is not inputs x inputs");
  const double factor = s.tokens_ > 0 ? 2.0 / static_cast<double>(s.tokens_) : 0.0;
  const double* at = s.sum_product_.data();
  for (Index i = 0; i < s.inputs_; ++i)
    for (Index j = 0; j <= i; ++j) out(i, j) = out(j, i) = *at++ * factor;
}

inline Status assign_hessian(Stats& s, MatrixView<const double> h, Index tokens) {
  if (h.rows != s.inputs_ || h.cols != s.inputs_)
    return Error{ErrorCode::shape_mismatch, "a Hessian of " + std::to_string(h.rows) + " x " + std::to_string(h.cols) +
                                                " was given for " + std::to_string(s.inputs_) + " inputs"};
  if (tokens < 1)
    return Error{ErrorCode::insufficient_data,
                 "a Hessian of " + std::to_string(tokens) + " tokens was given; at least 1 is needed"};
  for (Index i = 0; i < h.rows; ++i)
    for (Index j = 0; j < h.cols; ++j)
      if (!is_finite(h(i, j)))
        return Error{ErrorCode::not_finite,
                     "the Hessian's element (" + std::to_string(i) + ", " + std::to_string(j) + ") is not finite"};
  s.needs_ = s.needs_ | Needs::hessian;
  s.tokens_ = tokens;
  s.sum_product_.clear();
  for (Index i = 0; i < h.rows; ++i)
    for (Index j = 0; j <= i; ++j) s.sum_product_.push_back(h(i, j) * static_cast<double>(tokens) / 2);
  return Ok{};
}

}  // namespace ANYBIT_CODE
}  // namespace anybit::calibrate

namespace anybit {
inline namespace ANYBIT_CODE {

/// The statistics of one batch of activations.
template <Needs Wanted>
Result<Stats> accumulate(ConstMatrix x) {
  Stats s(x.cols, Wanted);
  ANYBIT_TRY_STATUS(s.accumulate(x));
  return s;
}

}  // namespace ANYBIT_CODE
}  // namespace anybit

#include <anybit/core/macros_end.hpp>
