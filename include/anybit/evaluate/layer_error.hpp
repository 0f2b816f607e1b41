#pragma once
// The error of one quantized linear layer in two portable measures: of its weights, and of its outputs for given
// inputs. Neither ranks methods alone: the least output error of each layer need not be the best model.

#include <anybit/core/distance.hpp>

namespace anybit::evaluate {
inline namespace ANYBIT_CODE {

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

}  // namespace ANYBIT_CODE
}  // namespace anybit::evaluate
