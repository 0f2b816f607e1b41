#pragma once
// For programs that quantize in several files: the code that all schemes share is compiled once.
// Each of those files includes this header, and one file, with the same flags, includes compile_methods.hpp. A file that does
// not include it works as before.

#include <optional>

#include <anybit/algorithm/gptq_method.hpp>
#include <anybit/algorithm/learned_method.hpp>

namespace anybit::simd {
inline namespace ANYBIT_CODE {

extern template void add_product<float>(ConstMatrix, ConstMatrix, MutableMatrix, float);
extern template void add_product<double>(MatrixView<const double>, MatrixView<const double>, MatrixView<double>, double);
extern template void add_transposed_product<float>(ConstMatrix, ConstMatrix, MutableMatrix, float);
extern template void add_transposed_product<double>(MatrixView<const double>, MatrixView<const double>, MatrixView<double>,
                                                    double);

}  // namespace ANYBIT_CODE
}  // namespace anybit::simd

namespace anybit::recipe {
inline namespace ANYBIT_CODE {

extern template class OutputMetric<>;

}  // namespace ANYBIT_CODE
}  // namespace anybit::recipe

namespace anybit::gptq {
inline namespace ANYBIT_CODE {

extern template std::optional<Factor> damped_factor<double>(const detail::OrderedHessian<double>&, double, Report&);
extern template class Method<>;

}  // namespace ANYBIT_CODE
}  // namespace anybit::gptq

namespace anybit::learned {
inline namespace ANYBIT_CODE {

extern template class Method<>;

}  // namespace ANYBIT_CODE
}  // namespace anybit::learned
