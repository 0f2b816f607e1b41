#pragma once
// y = x W^T straight from packed bytes. x is (tokens, cols) in the packed tensor's stored column order, y (tokens, rows).
// Readable twin: reference/matmul.hpp.
// A value of y has the same bits for any executor, any division of rows and any other tokens of the call. Float sums may
// differ in the last bits between instruction sets; integer sums never do.

#include <anybit/exec/executor.hpp>
#include <anybit/kernel/f32_rows.hpp>
#include <anybit/kernel/int8_rows.hpp>

namespace anybit::kernel {
inline namespace ANYBIT_CODE {

inline constexpr Index row_grain = 16;

ANYBIT_INLINE void check_shapes(Extents w, ConstMatrix x, MutableMatrix y) {
  ANYBIT_CHECK(x.cols == w.cols, "matmul: x has another number of columns than the weights");
  ANYBIT_CHECK(y.cols == w.rows, "matmul: y has another number of columns than the weights have rows");
  ANYBIT_CHECK(y.rows == x.rows, "matmul: x and y have different numbers of tokens");
}

template <Executor E>
void matmul(const PackedRows& w, ConstMatrix x, MutableMatrix y, E&& executor) {
  check_shapes(w.extents, x, y);
  if (x.rows == 0) return;
  parallel_tiles(executor, w.extents.rows, row_grain, [&](Index begin, Index end) { f32_rows(w, x, y, begin, end); });
}
template <Executor E>
void matmul(const PackedRows& w, ConstMatrix x, MutableMatrix y, ActivationMode mode, Workspace& workspace, E&& executor) {
  check_shapes(w.extents, x, y);
  if (x.rows == 0) return;
  if (mode.compute() == Compute::f32 || x.cols == 0) return matmul(w, x, y, executor);
  if (!w.ops->bytes || mode.compute() == Compute::bf16)
    return matmul(w, rounded_values(x, w.group, mode, workspace, executor), y, executor);
  const RoundedActivations rounded = round_activations(x, w.group, mode, workspace, executor);
  parallel_tiles(executor, w.extents.rows, row_grain, [&](Index begin, Index end) { int8_rows(w, rounded, y, begin, end); });
}

}  // namespace ANYBIT_CODE
}  // namespace anybit::kernel

namespace anybit {
inline namespace ANYBIT_CODE {

/// Columns begin .. end - 1 of y. No allocation, no threads.
template <PackedScheme S>
void matmul_rows(const PackedTensor<S>& w, ConstMatrix x, MutableMatrix y, Index begin, Index end) {
  kernel::check_shapes(w.extents(), x, y);
  ANYBIT_CHECK(0 <= begin && begin <= end && end <= w.rows(), "matmul_rows: the row range is not inside the weights");
  if (x.rows > 0) kernel::f32_rows(kernel::PackedRows(w), x, y, begin, end);
}

template <PackedScheme S, Executor E = Serial>
void matmul(const PackedTensor<S>& w, ConstMatrix x, MutableMatrix y, E&& executor = E{}) {
  kernel::matmul(kernel::PackedRows(w), x, y, executor);
}

/// Rounded activations live in the workspace; for Compute::f32 it is not touched.
template <PackedScheme S, Executor E = Serial>
void matmul(const PackedTensor<S>& w, ConstMatrix x, MutableMatrix y, ActivationMode mode, Workspace& workspace,
            E&& executor = E{}) {
  kernel::matmul(kernel::PackedRows(w), x, y, mode, workspace, executor);
}

}  // namespace ANYBIT_CODE
}  // namespace anybit
