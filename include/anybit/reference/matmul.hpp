#pragma once
// Products of activations and weights.
//
//   Y = X W^T                             times_transposed() in matrix.hpp, sums in double
//   Y = s_x s_w (X8 W8^T)                 activations rounded to 8 bits: X8 = clamp(round(x / s), -127, 127), ties to even,
//                                         s = max|x| / 127 per token, or per run of columns, or one given scale
// A run of zeros has s = 0 and codes 0. A run with NaN or infinity has s = NaN and codes 0, so that it spoils its own outputs
// and no others. Source: SmoothQuant (arXiv:2211.10438, equation 1; per token as in its code).

#include <anybit/core/macros_begin.hpp>

#include <algorithm>
#include <cmath>
#include <limits>

#include <anybit/core/finite.hpp>
#include <anybit/reference/matrix.hpp>

namespace anybit::reference {
inline namespace ANYBIT_CODE {

/// Codes and scales of activations, both tokens x inputs. value = scale * code, exact in double.
struct RoundedActivations {
  Table<int> codes;
  Table<float> scales;
  Matrix values() const {
    Matrix x(codes.rows, codes.cols);
    for (Index t = 0; t < x.rows; ++t)
      for (Index k = 0; k < x.cols; ++k) x(t, k) = codes(t, k) * static_cast<double>(scales(t, k));
    return x;
  }
};

/// end_of(k) is where the run that starts at column k ends; x.cols for one scale per token. `given` > 0 takes the place of
/// every scale, also of 0. Scales and quotients are floats, as documented, so that codes are the same on every machine.
template <class End>
RoundedActivations round_activations(ConstMatrix x, End end_of, float given = 0) {
  RoundedActivations r{Table<int>(x.rows, x.cols), Table<float>(x.rows, x.cols)};
  for (Index t = 0; t < x.rows; ++t)
    for (Index first = 0, end = 0; first < x.cols; first = end) {
      end = std::min(end_of(first), x.cols);
      float largest = 0;
      bool finite = true;
      for (Index k = first; k < end; ++k) {
        finite = finite && is_finite(x(t, k));
        largest = std::fmax(largest, std::fabs(x(t, k)));
      }
      const float scale = !finite ? std::numeric_limits<float>::quiet_NaN() : given > 0 ? given : largest / 127.0f;
      for (Index k = first; k < end; ++k) {
        r.scales(t, k) = scale;
        if (scale > 0) r.codes(t, k) = static_cast<int>(std::fmin(std::fmax(std::nearbyint(x(t, k) / scale), -127.0f), 127.0f));
      }
    }
  return r;
}

}  // namespace ANYBIT_CODE
}  // namespace anybit::reference

#include <anybit/core/macros_end.hpp>
