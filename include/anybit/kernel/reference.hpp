#pragma once
// The slow twins: plain loops over scalar definitions, sums in double.

#include <cmath>
#include <limits>
#include <vector>

#include <anybit/core/view.hpp>
#include <anybit/tensor/packed_tensor.hpp>

namespace anybit::reference::inline ANYBIT_CODE {

/// One row of codes by the layout's scalar unpacker.
template <AnyScheme S>
std::vector<typename S::code> row_codes(const PackedTensor<S>& w, Index row) {
  std::vector<typename S::code> codes(static_cast<std::size_t>(w.cols()));
  w.unpack_codes(row, 0, codes);
  return codes;
}

/// y(token, row) in double, tokens x rows, row-major.
template <AnyScheme S>
std::vector<double> matmul(const PackedTensor<S>& w, ConstMatrix x) {
  std::vector<double> y(static_cast<std::size_t>(x.rows * w.rows()));
  const Index group = S::granularity::group_cols(w.cols());
  for (Index r = 0; r < w.rows(); ++r) {
    const auto codes = row_codes(w, r);
    for (Index k = 0; k < w.cols(); ++k) {
      const double weight =
          static_cast<double>(dequantize_value<typename S::format>(codes[static_cast<std::size_t>(k)], w.affine(r, k / group)));
      for (Index t = 0; t < x.rows; ++t) y[static_cast<std::size_t>(t * w.rows() + r)] += weight * static_cast<double>(x(t, k));
    }
  }
  return y;
}

/// Activations as Compute::int8_per_token rounds them: scale = largest magnitude / 127 in float, code = x / scale, ties to
/// even; a token of zeros has scale 0, one with NaN or infinity scale NaN, and codes 0.
struct Rounded {
  std::vector<int> codes;  ///< tokens x cols
  std::vector<float> scales;
};
inline Rounded round_activations(ConstMatrix x) {
  Rounded r;
  r.codes.resize(static_cast<std::size_t>(x.rows * x.cols));
  for (Index t = 0; t < x.rows; ++t) {
    float largest = 0;
    bool finite = true;
    for (const float v : x.row(t)) finite = finite && std::isfinite(v), largest = std::fmax(largest, std::fabs(v));
    float scale = finite ? largest / 127.0f : std::numeric_limits<float>::quiet_NaN();
    for (Index k = 0; k < x.cols && scale > 0; ++k)
      r.codes[static_cast<std::size_t>(t * x.cols + k)] =
          static_cast<int>(std::fmin(std::fmax(std::nearbyint(x(t, k) / scale), -127.0f), 127.0f));
    r.scales.push_back(scale);
  }
  return r;
}

/// The product with rounded activations. With an integer form this is the scale times exact integers.
template <AnyScheme S>
std::vector<double> matmul_int8(const PackedTensor<S>& w, ConstMatrix x) {
  const Rounded rounded = round_activations(x);
  std::vector<double> y(static_cast<std::size_t>(x.rows * w.rows()));
  const Index group = S::granularity::group_cols(w.cols());
  for (Index r = 0; r < w.rows(); ++r) {
    const auto codes = row_codes(w, r);
    for (Index t = 0; t < x.rows; ++t) {
      double sum = 0;
      for (Index k = 0; k < w.cols(); ++k)
        sum += static_cast<double>(
                   dequantize_value<typename S::format>(codes[static_cast<std::size_t>(k)], w.affine(r, k / group))) *
               rounded.codes[static_cast<std::size_t>(t * x.cols + k)];
      y[static_cast<std::size_t>(t * w.rows() + r)] = sum * static_cast<double>(rounded.scales[static_cast<std::size_t>(t)]);
    }
  }
  return y;
}

}  // namespace anybit::reference::inline ANYBIT_CODE
