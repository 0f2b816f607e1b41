#pragma once
// The slow twins: plain loops over scalar definitions, sums in double.

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include <anybit/core/finite.hpp>
#include <anybit/core/view.hpp>
#include <anybit/kernel/compute.hpp>
#include <anybit/tensor/packed_tensor.hpp>

namespace anybit::reference {
inline namespace ANYBIT_CODE {

/// One row of codes by the layout's scalar unpacker.
template <AnyScheme S>
std::vector<typename S::code> row_codes(const PackedTensor<S>& w, Index row) {
  std::vector<typename S::code> codes(static_cast<std::size_t>(w.cols()));
  w.unpack_codes(row, 0, codes);
  return codes;
}

/// y(token, row) in double, tokens x rows, row-major; input(token, column) is a double.
template <AnyScheme S, class Input>
std::vector<double> product(const PackedTensor<S>& w, Index tokens, const Input& input) {
  std::vector<double> y(static_cast<std::size_t>(tokens * w.rows()));
  const Index group = S::granularity::group_cols(w.cols());
  for (Index r = 0; r < w.rows(); ++r) {
    const auto codes = row_codes(w, r);
    for (Index k = 0; k < w.cols(); ++k) {
      const double weight =
          static_cast<double>(dequantize_value<typename S::format>(codes[static_cast<std::size_t>(k)], w.affine(r, k / group)));
      for (Index t = 0; t < tokens; ++t) y[static_cast<std::size_t>(t * w.rows() + r)] += weight * input(t, k);
    }
  }
  return y;
}

/// The product with activations as they are.
template <AnyScheme S>
std::vector<double> matmul(const PackedTensor<S>& w, ConstMatrix x) {
  return product(w, x.rows, [&](Index t, Index k) { return static_cast<double>(x(t, k)); });
}

/// Activations as Compute::int8_per_token, int8_per_block or int8_static rounds them for weights with groups of `group` columns:
/// scale = largest magnitude of the token or block / 127 in float, code = x / scale, ties to even; all zeros have scale 0, what
/// has NaN or infinity scale NaN, and codes 0. A given scale takes the place of a positive one, and of 0.
struct Rounded {
  std::vector<int> codes;     ///< tokens x cols
  std::vector<float> scales;  ///< tokens x cols
};
inline Rounded round_activations(ConstMatrix x, ActivationMode mode, Index group) {
  Rounded r;
  r.codes.resize(static_cast<std::size_t>(x.rows * x.cols));
  r.scales.resize(r.codes.size());
  for (Index t = 0; t < x.rows; ++t)
    for (Index first = 0, end = 0; first < x.cols; first = end) {
      end = x.cols;
      if (mode.compute() == Compute::int8_per_block)
        end = std::min({end, first + block_columns - first % group % block_columns, (first / group + 1) * group});
      float largest = 0;
      bool finite = true;
      for (Index k = first; k < end; ++k) finite = finite && is_finite(x(t, k)), largest = std::fmax(largest, std::fabs(x(t, k)));
      const float own = mode.compute() == Compute::int8_static ? mode.scale() : largest / 127.0f;
      const float scale = finite ? own : std::numeric_limits<float>::quiet_NaN();
      for (Index k = first; k < end; ++k) {
        const auto i = static_cast<std::size_t>(t * x.cols + k);
        r.scales[i] = scale;
        if (scale > 0) r.codes[i] = static_cast<int>(std::fmin(std::fmax(std::nearbyint(x(t, k) / scale), -127.0f), 127.0f));
      }
    }
  return r;
}

/// The product with rounded activations. With an integer form this is scales times exact integers.
template <AnyScheme S>
std::vector<double> matmul_int8(const PackedTensor<S>& w, ConstMatrix x, ActivationMode mode = Compute::int8_per_token) {
  const Rounded rounded = round_activations(x, mode, S::granularity::group_cols(w.cols()));
  // A code times a scale has 31 bits: exact in double.
  return product(w, x.rows, [&](Index t, Index k) {
    const auto i = static_cast<std::size_t>(t * x.cols + k);
    return rounded.codes[i] * static_cast<double>(rounded.scales[i]);
  });
}

}  // namespace ANYBIT_CODE
}  // namespace anybit::reference
