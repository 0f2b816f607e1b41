#pragma once
// The result of every algorithm.

#include <anybit/calibrate/report.hpp>
#include <anybit/tensor/quantized_matrix.hpp>

namespace anybit::inline ANYBIT_ABI {

template <AnyScheme S>
struct Quantized {
  QuantizedMatrix<S> matrix;
  Report report;
};

}  // namespace anybit::inline ANYBIT_ABI
