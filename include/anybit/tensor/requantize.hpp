#pragma once
// From one scheme to another, with what it costs.

#include <cmath>

#include <anybit/tensor/pack.hpp>
#include <anybit/tensor/quantize.hpp>

namespace anybit::inline ANYBIT_CODE {

/// How far one matrix is from another.
struct MatrixDistance {
  double relative = 0;  ///< ||a - b|| / ||a|| (Frobenius); 0 if a equals b, infinite if only a is 0
  float largest = 0;    ///< max |a - b|
};

/// Of `approximation` from `reference`, which has the same shape. Summed in double, row by row.
inline MatrixDistance matrix_distance(ConstMatrix reference, ConstMatrix approximation) {
  ANYBIT_CHECK(reference.extents() == approximation.extents(), "matrix_distance: the matrices have different shapes");
  double difference = 0, whole = 0;
  float largest = 0;
  for (Index r = 0; r < reference.rows; ++r) {
    const auto a = reference.row(r), b = approximation.row(r);
    for (std::size_t c = 0; c < a.size(); ++c) {
      const float d = a[c] - b[c];
      largest = std::max(largest, d < 0 ? -d : d);
      difference += static_cast<double>(d) * static_cast<double>(d);
      whole += static_cast<double>(a[c]) * static_cast<double>(a[c]);
    }
  }
  return {difference == 0 ? 0 : std::sqrt(difference / whole), largest};
}

template <AnyScheme S>
struct Requantized {
  PackedTensor<S> tensor;
  MatrixDistance error;  ///< against the weights that the source stood for
};

/// The weights of `source` rounded to nearest in another scheme. A column order is resolved: the result is in original order.
template <AnyScheme To, AnyScheme From>
Requantized<To> requantize(const PackedTensor<From>& source) {
  const Matrix weights = dequantize(source);
  auto q = quantize_nearest<To>(weights.view());
  q.provenance = "requantized from " + std::string(std::string_view(From::name));
  if (!source.provenance().empty()) q.provenance += " (" + std::string(source.provenance()) + ")";
  Requantized<To> result{pack(q), {}};
  result.error = matrix_distance(weights.view(), dequantize(result.tensor).view());
  return result;
}

}  // namespace anybit::inline ANYBIT_CODE
