#pragma once
// The relative error of an approximation.

#include <cmath>
#include <limits>
#include <span>

#include <anybit/core/config.hpp>
#include <anybit/core/view.hpp>

namespace anybit {
inline namespace ANYBIT_CODE {

/// term(0) + ... + term(n - 1) in double, in eight running sums joined in a fixed order, so that compilers vectorize it.
template <class Term>
double lane_sum(Index n, Term term) {
  constexpr Index lanes = 8;
  double sums[lanes] = {}, rest = 0;
  const Index whole = n / lanes * lanes;
  for (Index i = 0; i < whole; i += lanes)
    for (Index l = 0; l < lanes; ++l) sums[l] += term(i + l);
  for (Index i = whole; i < n; ++i) rest += term(i);
  return ((sums[0] + sums[1]) + (sums[2] + sums[3])) + ((sums[4] + sums[5]) + (sums[6] + sums[7])) + rest;
}

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
  /// 0 if there is no error, infinity where a reference of 0 got one.
  double value() const {
    return error <= 0 ? 0 : reference > 0 ? std::sqrt(error / reference) : std::numeric_limits<double>::infinity();
  }
};

/// ||W - Q||_F / ||W||_F.
inline double relative_error(ConstMatrix w, ConstMatrix q) {
  RelativeError e;
  e.add(w, q);
  return e.value();
}

}  // namespace ANYBIT_CODE
}  // namespace anybit
