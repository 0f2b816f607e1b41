#pragma once
// The result of every algorithm.

#include <anybit/recipe/report.hpp>
#include <anybit/tensor/quantized_matrix.hpp>

namespace anybit {
inline namespace ANYBIT_ABI {

template <AnyScheme S>
struct Quantized {
  QuantizedMatrix<S> matrix;
  Report report;
};

}  // namespace ANYBIT_ABI
}  // namespace anybit
