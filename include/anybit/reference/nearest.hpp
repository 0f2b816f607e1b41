#pragma once
// Rounding to nearest on a uniform grid of b bits. For a group w of weights,
//
//   lo = min(0, min w),   hi = max(0, max w)
//   s  = (hi - lo) / (2^b - 1),   z = round(-lo / s)
//   q  = clamp(round(w / s) + z, 0, 2^b - 1),   w^ = s (q - z)
//
// round takes ties to even. Symmetric grids have hi = max|w|, lo = -hi if any weight is negative, and z = 2^(b-1): they
// are not centred, the largest positive weight is cut. A group of zeros has lo = -1, hi = 1.
// Source: the quantizer of GPTQ's code (Frantar et al. 2023, arXiv:2210.17323). AWQ's grid is in awq.hpp.

#include <anybit/core/macros_begin.hpp>

#include <algorithm>
#include <cmath>

#include <anybit/reference/matrix.hpp>

namespace anybit::reference {
inline namespace ANYBIT_CODE {

/// value = scale (code - zero), code = 0 .. top.
struct UniformGrid {
  double scale = 1, zero = 0, top = 0;
};

inline double code_of(double w, const UniformGrid& g) { return std::clamp(std::nearbyint(w / g.scale) + g.zero, 0.0, g.top); }
inline double value_of(double code, const UniformGrid& g) { return g.scale * (code - g.zero); }
inline double round_to(double w, const UniformGrid& g) { return value_of(code_of(w, g), g); }

/// The grid from lo to hi, as above; both ends times `kept` (1: the whole range).
inline UniformGrid min_max_grid(const Vector& w, int bits, bool symmetric = false, double kept = 1) {
  double lo = std::min(0.0, *std::min_element(w.begin(), w.end())), hi = std::max(0.0, *std::max_element(w.begin(), w.end()));
  if (symmetric) {
    hi = std::max(-lo, hi);
    if (lo < 0) lo = -hi;
  }
  if (lo == 0 && hi == 0) lo = -1, hi = 1;
  UniformGrid g;
  g.top = std::exp2(bits) - 1;
  g.scale = kept * (hi - lo) / g.top;
  g.zero = symmetric ? std::exp2(bits - 1) : std::nearbyint(-kept * lo / g.scale);
  return g;
}

/// The index of the nearest of `levels`, which ascend (NF4 and other codebooks); of two equally near ones the lower.
inline Index nearest_level(double x, const Vector& levels) {
  Index best = 0;
  for (Index i = 1; i < levels.size(); ++i)
    if (std::abs(x - levels[i]) < std::abs(x - levels[best])) best = i;
  return best;
}

/// w^ for groups of `group` columns.
inline Matrix nearest(const Matrix& w, int bits, Index group, bool symmetric = false) {
  Matrix out(w.rows, w.cols);
  for (Index r = 0; r < w.rows; ++r)
    for (Index first = 0; first < w.cols; first += group) {
      const Index last = std::min(first + group, w.cols);
      const UniformGrid g = min_max_grid(w.row(r, first, last), bits, symmetric);
      for (Index c = first; c < last; ++c) out(r, c) = round_to(w(r, c), g);
    }
  return out;
}

}  // namespace ANYBIT_CODE
}  // namespace anybit::reference

#include <anybit/core/macros_end.hpp>
