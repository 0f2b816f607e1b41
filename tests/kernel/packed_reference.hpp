#pragma once
// Products of packed weights by reference/: codes from the layout's scalar unpacker, values from the format's scalar decoder.

#include <vector>

#include <anybit/kernel/compute.hpp>
#include <anybit/reference/matmul.hpp>
#include <anybit/tensor/packed_tensor.hpp>

namespace packed_reference {

using namespace anybit;

/// One row of codes.
template <AnyScheme S>
std::vector<typename S::code> row_codes(const PackedTensor<S>& w, Index row) {
  std::vector<typename S::code> codes(static_cast<std::size_t>(w.cols()));
  w.unpack_codes(row, 0, codes);
  return codes;
}

template <AnyScheme S>
reference::Matrix dequantized(const PackedTensor<S>& w) {
  reference::Matrix m(w.rows(), w.cols());
  const Index group = S::granularity::group_cols(w.cols());
  for (Index r = 0; r < m.rows; ++r) {
    const auto codes = row_codes(w, r);
    for (Index k = 0; k < m.cols; ++k)
      m(r, k) =
          static_cast<double>(dequantize_value<typename S::format>(codes[static_cast<std::size_t>(k)], w.affine(r, k / group)));
  }
  return m;
}

/// Activations as `mode` rounds them for weights with groups of `group` columns.
inline reference::RoundedActivations round_activations(ConstMatrix x, ActivationMode mode, Index group) {
  const auto end_of = [&](Index first) {
    if (mode.compute() != Compute::int8_per_block) return x.cols;
    return std::min(first + block_columns - first % group % block_columns, (first / group + 1) * group);
  };
  return reference::round_activations(x, end_of, mode.compute() == Compute::int8_static ? mode.scale() : 0.0f);
}

/// Tokens x rows, row-major; activations as they are.
template <AnyScheme S>
std::vector<double> matmul(const PackedTensor<S>& w, ConstMatrix x) {
  return reference::times_transposed(reference::matrix_of(x), dequantized(w)).values;
}

/// With rounded activations. With an integer form of the weights this is scales times exact integers.
template <AnyScheme S>
std::vector<double> matmul_int8(const PackedTensor<S>& w, ConstMatrix x, ActivationMode mode = Compute::int8_per_token) {
  const auto rounded = round_activations(x, mode, S::granularity::group_cols(w.cols()));
  return reference::times_transposed(rounded.values(), dequantized(w)).values;
}

}  // namespace packed_reference
