#pragma once
// The definitions that compiled_methods.hpp declares only. Include this in exactly one source file of a program.

#include <anybit/algorithm/compiled_methods.hpp>

namespace anybit::simd {
inline namespace ANYBIT_CODE {

template void add_product<float>(ConstMatrix, ConstMatrix, MutableMatrix, float);
template void add_product<double>(MatrixView<const double>, MatrixView<const double>, MatrixView<double>, double);
template void add_transposed_product<float>(ConstMatrix, ConstMatrix, MutableMatrix, float);
template void add_transposed_product<double>(MatrixView<const double>, MatrixView<const double>, MatrixView<double>, double);

}  // namespace ANYBIT_CODE
}  // namespace anybit::simd

namespace anybit::recipe {
inline namespace ANYBIT_CODE {

template class OutputMetric<>;

}  // namespace ANYBIT_CODE
}  // namespace anybit::recipe

namespace anybit::gptq {
inline namespace ANYBIT_CODE {

template std::optional<Factor> damped_factor<double>(const detail::OrderedHessian<double>&, double, Report&);
template class Method<>;

}  // namespace ANYBIT_CODE
}  // namespace anybit::gptq

namespace anybit::learned {
inline namespace ANYBIT_CODE {

template class Method<>;

}  // namespace ANYBIT_CODE
}  // namespace anybit::learned
