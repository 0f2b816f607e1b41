#pragma once
// What quantization did to one linear layer, in the two portable measures: of the weights, and of the outputs for given
// inputs. Neither ranks methods by itself: the least output error of each layer need not be the best model.

#include <cmath>

#include <anybit/core/view.hpp>
#include <anybit/evaluate/statistics.hpp>

namespace anybit::evaluate::inline ANYBIT_CODE {

/// A running ||reference - approximation||_F / ||reference||_F, summed in double. Sums of parts add.
struct RelativeError {
  double error = 0, reference = 0;  ///< sums of squares

  void add(ConstMatrix exact, ConstMatrix approximate) {
    ANYBIT_CHECK(exact.extents() == approximate.extents(), "RelativeError::add: matrices of one shape");
    for (Index r = 0; r < exact.rows; ++r) add(exact.row(r), approximate.row(r));
  }
  void add(std::span<const float> exact, std::span<const float> approximate) {
    const Index n = static_cast<Index>(exact.size());
    const float *w = exact.data(), *q = approximate.data();
    error += lane_sum(n, [w, q](Index i) {
      const double d = double{w[i]} - double{q[i]};
      return d * d;
    });
    reference += lane_sum(n, [w](Index i) { return double{w[i]} * double{w[i]}; });
  }
  void add(const RelativeError& part) {
    error += part.error;
    reference += part.reference;
  }
  /// 0 for nothing at all, infinity where a zero reference got an error.
  double value() const { return error == 0 ? 0 : std::sqrt(error / reference); }
};

/// ||W - Q||_F / ||W||_F.
inline double weight_error(ConstMatrix w, ConstMatrix q) {
  RelativeError e;
  e.add(w, q);
  return e.value();
}

/// ||(W - Q) X||_F / ||W X||_F for inputs x (tokens, inputs), by the definition; for sizes where a product matters, compute
/// the two outputs with a fast one and use RelativeError on them.
inline double output_error(ConstMatrix w, ConstMatrix q, ConstMatrix x) {
  ANYBIT_CHECK(w.extents() == q.extents() && x.cols == w.cols, "output_error: W and Q of one shape, X with as many columns");
  RelativeError e;
  for (Index t = 0; t < x.rows; ++t)
    for (Index r = 0; r < w.rows; ++r) {
      double exact = 0, off = 0;
      for (Index j = 0; j < w.cols; ++j) {
        exact += double{w(r, j)} * double{x(t, j)};
        off += (double{w(r, j)} - double{q(r, j)}) * double{x(t, j)};
      }
      e.error += off * off;
      e.reference += exact * exact;
    }
  return e.value();
}

}  // namespace anybit::evaluate::inline ANYBIT_CODE
