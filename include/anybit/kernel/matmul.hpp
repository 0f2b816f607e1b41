#pragma once
// y = x W^T straight from packed bytes. x is (tokens, cols) in the packed tensor's stored column order, y (tokens, rows).
// Readable twin: reference/matmul.hpp.
// A value of y has the same bits for any executor, any division of rows and any other tokens of the call. Float sums may
// differ in the last bits between instruction sets; integer sums never do.

#include <anybit/exec/executor.hpp>
#include <anybit/kernel/activation_plan.hpp>
#include <anybit/kernel/product_rows.hpp>

namespace anybit::kernel {
inline namespace ANYBIT_CODE {

/// y = x W^T; W are PackedRows or TiledWeights.
template <class Weights, Executor E>
void matmul(const Weights& w, const InputTokens& x, const OutputTokens& y, ActivationMode mode, Workspace& workspace,
            E&& executor) {
  check_shapes(w.extents, x, y);
  const ActivationPlan plan = plan_activations(w, mode);
  const Activations a = make_activations(x, plan, workspace, executor);
  parallel_tiles(executor, w.extents.rows, plan.row_grain, [&](Index begin, Index end) {
    product_rows_to(y, a, begin, end, [&w](const Activations& some, MutableMatrix to, Index from, Index stop) {
      product_rows(w, some, to, from, stop);
    });
  });
}

}  // namespace ANYBIT_CODE
}  // namespace anybit::kernel

namespace anybit {
inline namespace ANYBIT_CODE {

/// What products with w read of activations that enter as `mode` says.
template <PackedScheme S>
ActivationPlan plan_activations(const PackedTensor<S>& w, ActivationMode mode) {
  return kernel::plan_activations(kernel::PackedRows(w), mode);
}

/// Columns begin .. end - 1 of y. No allocation, no threads.
template <PackedScheme S>
void matmul_rows(const PackedTensor<S>& w, ConstMatrix x, MutableMatrix y, Index begin, Index end) {
  kernel::check_shapes(w.extents(), x, y);
  ANYBIT_CHECK(0 <= begin && begin <= end && end <= w.rows(), "matmul_rows: the row range is not inside the weights");
  if (x.rows > 0) kernel::f32_rows(kernel::PackedRows(w), x, y, begin, end);
}
/// The same with activations made by round_activations() from a plan that w joined.
template <PackedScheme S>
void matmul_rows(const PackedTensor<S>& w, const Activations& a, const OutputTokens& y, Index begin, Index end) {
  kernel::check_rows(w.extents(), plan_activations(w, a.plan.mode), a, y, begin, end);
  const kernel::PackedRows rows(w);
  kernel::product_rows_to(y, a, begin, end, [&rows](const Activations& some, MutableMatrix to, Index from, Index stop) {
    kernel::product_rows(rows, some, to, from, stop);
  });
}

template <PackedScheme S, Executor E = Serial>
void matmul(const PackedTensor<S>& w, ConstMatrix x, MutableMatrix y, E&& executor = E{}) {
  kernel::check_shapes(w.extents(), x, y);
  if (x.rows == 0) return;
  const kernel::PackedRows rows(w);
  parallel_tiles(executor, w.rows(), kernel::row_grain,
                 [&](Index begin, Index end) { kernel::f32_rows(rows, x, y, begin, end); });
}

/// Rounded activations live in the workspace; for Compute::f32 it is not touched, unless x is no plain matrix of floats.
template <PackedScheme S, Executor E = Serial>
void matmul(const PackedTensor<S>& w, const InputTokens& x, const OutputTokens& y, ActivationMode mode, Workspace& workspace,
            E&& executor = E{}) {
  kernel::matmul(kernel::PackedRows(w), x, y, mode, workspace, executor);
}

}  // namespace ANYBIT_CODE
}  // namespace anybit
