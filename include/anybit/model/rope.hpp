#pragma once
// Rotary position embedding. Readable twin: reference/rope.hpp. Pairs are neighbours (2i, 2i + 1), as in the paper. GGUF and
// llama2.c store the rows of q and k in that order, so weights stay as in the file, row by row; only Hugging Face's order
// (pairs i and i + d/2) needs a permutation of rows at load. Scores do not depend on the choice, as q and k are permuted alike.

#include <cmath>
#include <vector>

#include <anybit/core/matrix.hpp>
#include <anybit/exec/executor.hpp>
#include <anybit/model/config.hpp>

namespace anybit::model {
inline namespace ANYBIT_CODE {

/// cos and sin of every angle of `tokens` positions from `first` on: position / scale * base^(-2i / rotary_dim) / factor_i.
class RopeTable {
 public:
  RopeTable(const DecoderConfig& c, Index first, Index tokens) : pairs_(c.rotary_dim / 2), values_(tokens, c.rotary_dim) {
    for (Index i = 0; i < pairs_; ++i) {
      // In double: an error of the frequency grows with the position.
      double frequency =
          std::pow(static_cast<double>(c.rope_base), -2.0 * static_cast<double>(i) / static_cast<double>(c.rotary_dim));
      frequency /= static_cast<double>(c.rope_scale);
      if (!c.rope_factors.empty()) frequency /= static_cast<double>(c.rope_factors[static_cast<std::size_t>(i)]);
      for (Index t = 0; t < tokens; ++t) {
        const double angle = static_cast<double>(first + t) * frequency;
        values_(t, 2 * i) = static_cast<float>(std::cos(angle));
        values_(t, 2 * i + 1) = static_cast<float>(std::sin(angle));
      }
    }
  }

  /// Rotates every head of every token in place; x is (tokens, heads * head_dim).
  void apply(MutableMatrix x, Index head_dim, ExecutorRef executor) const {
    ANYBIT_CHECK(x.rows == values_.rows() && x.cols % head_dim == 0, "RopeTable::apply: shapes differ");
    executor.parallel_for(x.rows, 16, [&](Index begin, Index end) {
      for (Index t = begin; t < end; ++t) {
        const float* table = values_.data() + t * values_.cols();
        for (Index head = 0; head < x.cols; head += head_dim) {
          float* v = x.data + t * x.stride + head;
          for (Index i = 0; i < pairs_; ++i) {
            const float cosine = table[2 * i], sine = table[2 * i + 1], a = v[2 * i], b = v[2 * i + 1];
            v[2 * i] = a * cosine - b * sine;
            v[2 * i + 1] = a * sine + b * cosine;
          }
        }
      }
    });
  }

 private:
  Index pairs_;
  Matrix values_;  ///< (tokens, rotary_dim): cos, sin, cos, sin, ...
};

}  // namespace ANYBIT_CODE
}  // namespace anybit::model
