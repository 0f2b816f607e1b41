#pragma once
// The result of every algorithm: codes, or bytes where the scheme gives weights no codes of their own.

#include <anybit/recipe/report.hpp>
#include <anybit/tensor/packed_tensor.hpp>
#include <anybit/tensor/quantized_matrix.hpp>

namespace anybit {
inline namespace ANYBIT_ABI {

template <AnyScheme S>
struct Quantized {
  QuantizedMatrix<S> matrix;
  Report report;
};

template <PackedScheme S>
struct QuantizedTensor {
  PackedTensor<S> tensor;
  Report report;
};

}  // namespace ANYBIT_ABI
}  // namespace anybit
