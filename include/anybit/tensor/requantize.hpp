#pragma once
// From one scheme to another, with the error that this adds.

#include <anybit/core/macros_begin.hpp>

#include <cmath>

#include <anybit/core/distance.hpp>
#include <anybit/tensor/pack.hpp>
#include <anybit/tensor/quantize.hpp>

namespace anybit {
inline namespace ANYBIT_CODE {

/// How far one matrix is from another.
struct MatrixDistance {
  double relative = 0;  ///< ||a - b|| / ||a|| (Frobenius); 0 if a equals b, infinite if only a is 0
  float largest = 0;    ///< max |a - b|
};

/// Of `approximation` from `reference`, which has the same shape.
inline MatrixDistance matrix_distance(ConstMatrix reference, ConstMatrix approximation) {
  ANYBIT_CHECK(reference.extents() == approximation.extents(), "matrix_distance: the matrices have different shapes");
  MatrixDistance distance{relative_error(reference, approximation), 0};
  for (Index r = 0; r < reference.rows; ++r)
    for (Index c = 0; c < reference.cols; ++c)
      distance.largest = std::max(distance.largest, std::fabs(reference(r, c) - approximation(r, c)));
  return distance;
}

template <AnyScheme S>
struct Requantized {
  PackedTensor<S> tensor;
  MatrixDistance error;  ///< against the weights that the source stood for
};

/// The weights of `source` rounded to nearest in another scheme. A column order is resolved: the result is in original order. An
/// error if a code of `source` stands for NaN or infinity, as some of minifloats do.
template <AnyScheme To, AnyScheme From>
Result<Requantized<To>> requantize(const PackedTensor<From>& source) {
  const Matrix weights = dequantize(source);
  ANYBIT_TRY(auto q, quantize_nearest<To>(weights.view()));
  q.provenance = "requantized from " + std::string(std::string_view(From::name));
  if (!source.provenance().empty()) q.provenance += " (" + std::string(source.provenance()) + ")";
  Requantized<To> result{pack(q), {}};
  result.error = matrix_distance(weights.view(), dequantize(result.tensor).view());
  return result;
}

}  // namespace ANYBIT_CODE
}  // namespace anybit

#include <anybit/core/macros_end.hpp>
