#pragma once
// Hessians of one linear layer weighted by the gradient of the end loss (GuidedQuant: Kim et al. 2025, arXiv:2505.07004, equation
// 8). X is (tokens, inputs), g_ti the gradient of the loss by output i of token t, J_k the k-th of `groups` neighbouring parts of
// the outputs, n the number of tokens:
//
//   H_k = 2/n sum_t s(k, t) x_t x_t^T,   s(k, t) = 1/|J_k| sum_{i in J_k} g_ti^2
//
// The rows of W in J_k are quantized with H_k. Readable twin: reference/guided_hessian.hpp.

#include <anybit/core/macros_begin.hpp>

#include <algorithm>
#include <cmath>
#include <string>
#include <utility>
#include <vector>

#include <anybit/calibrate/stats.hpp>
#include <anybit/core/finite.hpp>

namespace anybit {
inline namespace ANYBIT_CODE {

/// Streaming: accumulate() may be called with any cut of the tokens. Memory: 4 n^2 bytes per group for n inputs.
class GuidedHessian {
 public:
  GuidedHessian() = default;
  /// For weights of these extents (outputs, inputs); an error for fewer outputs than groups.
  static Result<GuidedHessian> make(Extents weights, Index groups) {
    if (groups < 1 || groups > weights.rows)
      return Error{ErrorCode::invalid_argument, "guided: " + std::to_string(groups) + " groups of " +
                                                    std::to_string(weights.rows) + " outputs; give 1 to " +
                                                    std::to_string(weights.rows)};
    GuidedHessian out;
    out.extents_ = weights;
    for (Index k = 0; k < groups; ++k) out.parts_.emplace_back(weights.cols, Needs::hessian);
    return out;
  }

  /// Adds the tokens of x (tokens, inputs) with the gradients dy (tokens, outputs) of the loss by the layer's outputs. A unit of
  /// the loss is a factor of all Hessians, so it must be the same in every call. A NaN or an infinity is an error that names its
  /// token and channel, and then nothing has been added. The same bits for any number of threads.
  Status accumulate(ConstMatrix x, ConstMatrix dy, ExecutorRef executor = {}) {
    if (x.rows != dy.rows || x.cols != extents_.cols || dy.cols != extents_.rows)
      return Error{ErrorCode::shape_mismatch,
                   "guided: activations of " + std::to_string(x.rows) + " x " + std::to_string(x.cols) + " and gradients of " +
                       std::to_string(dy.rows) + " x " + std::to_string(dy.cols) + " for a layer of " +
                       std::to_string(extents_.cols) + " inputs and " + std::to_string(extents_.rows) + " outputs"};
    const auto bad = [this](const char* what, const char* axis, ConstMatrix m, Index t, Index j) {
      return Error{ErrorCode::not_finite, "guided: the " + std::string(what) + " of token " + std::to_string(tokens() + t) +
                                              ", " + axis + " " + std::to_string(j) + " is " + std::to_string(m(t, j)) +
                                              "; the model overflows on this text or its weights are damaged"};
    };
    if (const auto [t, j] = find_not_finite(dy); t >= 0) return bad("gradient", "output", dy, t, j);
    if (const auto [t, j] = find_not_finite(x); t >= 0) return bad("activation", "input", x, t, j);
    Matrix weighted(x.rows, x.cols);
    for (Index k = 0; k < groups(); ++k) {
      executor.parallel_for(x.rows, 16, [&](Index first, Index last) {
        for (Index t = first; t < last; ++t) {
          const double root = std::sqrt(
              mean_square(dy.row(t).subspan(static_cast<std::size_t>(begin(k)), static_cast<std::size_t>(end(k) - begin(k)))));
          for (Index j = 0; j < x.cols; ++j) weighted(t, j) = static_cast<float>(root * double{x(t, j)});
        }
      });
      Stats& part = parts_[static_cast<std::size_t>(k)];
      if (auto added = part.accumulate(weighted.view(), executor); !added) return in_context(added.error(), "guided");
    }
    return Ok{};
  }

  Index groups() const { return static_cast<Index>(parts_.size()); }
  Extents extents() const { return extents_; }
  Index tokens() const { return parts_.empty() ? 0 : parts_.front().tokens(); }
  /// Rows begin(k) .. end(k) - 1 of the weights are group k. Sizes differ by at most one.
  Index begin(Index k) const { return k * extents_.rows / groups(); }
  Index end(Index k) const { return begin(k + 1); }
  /// Holds H_k as Needs::hessian.
  const Stats& at(Index k) const { return parts_[static_cast<std::size_t>(k)]; }
  /// Whether no token had a gradient by these outputs: then H_k is 0 and says nothing.
  bool silent(Index k) const { return !(at(k).largest_hessian_diagonal() > 0); }

  /// `plain`, statistics of the same inputs, with H_k in place of their Hessian.
  Result<Stats> stats(Index k, const Stats& plain) const {
    const Index n = extents_.cols;
    ANYBIT_CHECK(plain.inputs() == n, "GuidedHessian::stats: statistics of another layer");
    std::vector<double> h(static_cast<std::size_t>(n * n));
    const MatrixView<double> view(h.data(), n, n);
    at(k).hessian(view);
    Stats out = plain;
    ANYBIT_TRY_STATUS(out.set_hessian(MatrixView<const double>(h.data(), n, n), std::max<Index>(plain.tokens(), 1)));
    return out;
  }

 private:
  static double mean_square(std::span<const float> g) {
    double sum = 0;
    for (const float v : g) sum += double{v} * double{v};
    return sum / static_cast<double>(g.size());
  }

  Extents extents_{};
  std::vector<Stats> parts_;
};

}  // namespace ANYBIT_CODE
}  // namespace anybit

#include <anybit/core/macros_end.hpp>
