#pragma once
// Rotary position embedding (Su et al., arXiv:2104.09864). Readable twin: reference/rope.hpp. The rows of q and k are stored
// in one of two orders; a model keeps the order of its file, row by row. Scores do not depend on the order, as q and k are
// permuted alike.

#include <cmath>
#include <span>

#include <anybit/core/matrix.hpp>
#include <anybit/exec/executor.hpp>
#include <anybit/nn/rope_order.hpp>

namespace anybit::nn {
inline namespace ANYBIT_CODE {

struct RopeOptions {
  Index rotary_dim = 0;  ///< leading values of a head that are rotated, even
  float base = 10000;
  float scale = 1;                   ///< positions are divided by this (linear scaling)
  std::span<const float> factors{};  ///< empty, or rotary_dim / 2 divisors of the frequencies
  RopeOrder order = RopeOrder::pairs;
  float magnitude = 1;  ///< what cos and sin are multiplied by (YaRN, arXiv:2309.00071)
};

/// cos and sin, times the magnitude, of every angle of `tokens` positions from `first` on: position / scale * base^(-2i /
/// rotary_dim) / factor_i.
class RopeTable {
 public:
  RopeTable(const RopeOptions& c, Index first, Index tokens)
      : order_(c.order), pairs_(c.rotary_dim / 2), values_(tokens, c.rotary_dim) {
    for (Index i = 0; i < pairs_; ++i) {
      // In double: an error of the frequency grows with the position.
      double frequency = std::pow(static_cast<double>(c.base), -2.0 * static_cast<double>(i) / static_cast<double>(c.rotary_dim));
      frequency /= static_cast<double>(c.scale);
      if (!c.factors.empty()) frequency /= static_cast<double>(c.factors[static_cast<std::size_t>(i)]);
      for (Index t = 0; t < tokens; ++t) {
        const double angle = static_cast<double>(first + t) * frequency;
        values_(t, 2 * i) = static_cast<float>(std::cos(angle));
        values_(t, 2 * i + 1) = static_cast<float>(std::sin(angle));
      }
    }
    if (c.magnitude != 1)
      for (Index i = 0; i < values_.extents().size(); ++i) values_.data()[i] *= c.magnitude;
  }

  /// Rotates every head of every token in place; x is (tokens, heads * head_dim).
  void apply(MutableMatrix x, Index head_dim, ExecutorRef executor) const { turn_heads<1>(x, head_dim, executor); }
  /// The transposed matrices: turns the other way. Gradients of rotated values become those of the values.
  void apply_transposed(MutableMatrix x, Index head_dim, ExecutorRef executor) const { turn_heads<-1>(x, head_dim, executor); }

 private:
  /// With the direction known to the compiler, apply() multiplies and adds as it would alone: the same bits.
  template <int Direction>
  void turn_heads(MutableMatrix x, Index head_dim, ExecutorRef executor) const {
    ANYBIT_CHECK(x.rows == values_.rows() && x.cols % head_dim == 0, "RopeTable::apply: shapes differ");
    executor.parallel_for(x.rows, 16, [&](Index begin, Index end) {
      for (Index t = begin; t < end; ++t) {
        const float* table = values_.data() + t * values_.cols();
        for (Index head = 0; head < x.cols; head += head_dim) {
          float* v = x.data + t * x.stride + head;
          const auto turn = [&](Index i, float& first, float& second) {
            const float cosine = table[2 * i], sine = Direction > 0 ? table[2 * i + 1] : -table[2 * i + 1], a = first, b = second;
            first = a * cosine - b * sine;
            second = a * sine + b * cosine;
          };
          if (order_ == RopeOrder::pairs)
            for (Index i = 0; i < pairs_; ++i) turn(i, v[2 * i], v[2 * i + 1]);
          else
            for (Index i = 0; i < pairs_; ++i) turn(i, v[i], v[i + pairs_]);
        }
      }
    });
  }

  RopeOrder order_;
  Index pairs_;
  Matrix values_;  ///< (tokens, rotary_dim): cos, sin, cos, sin, ...
};

}  // namespace ANYBIT_CODE
}  // namespace anybit::nn
