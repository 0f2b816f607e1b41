#pragma once
// One token: y = W x. The same values as matmul with one row, to the bit.

#include <anybit/kernel/matmul.hpp>

namespace anybit {
inline namespace ANYBIT_CODE {

namespace detail {
ANYBIT_INLINE ConstMatrix as_row(std::span<const float> x) { return {x.data(), 1, static_cast<Index>(x.size())}; }
ANYBIT_INLINE MutableMatrix as_row(std::span<float> y) { return {y.data(), 1, static_cast<Index>(y.size())}; }
}  // namespace detail

/// Elements begin .. end - 1 of y, which has as many elements as the weights have rows. No allocation, no threads.
template <PackedScheme S>
void matvec_rows(const PackedTensor<S>& w, std::span<const float> x, std::span<float> y, Index begin, Index end) {
  matmul_rows(w, detail::as_row(x), detail::as_row(y), begin, end);
}

template <PackedScheme S, Executor E = Serial>
void matvec(const PackedTensor<S>& w, std::span<const float> x, std::span<float> y, E&& executor = E{}) {
  matmul(w, detail::as_row(x), detail::as_row(y), executor);
}
template <PackedScheme S, Executor E = Serial>
void matvec(const PackedTensor<S>& w, std::span<const float> x, std::span<float> y, ActivationMode mode, Workspace& workspace,
            E&& executor = E{}) {
  matmul(w, detail::as_row(x), detail::as_row(y), mode, workspace, executor);
}

}  // namespace ANYBIT_CODE
}  // namespace anybit
