#pragma once
// y = x W^T with EXL3's weights: activations are rotated, multiplied with the decoded trellis, and rotated back, so that the two
// Hadamard transforms cost a token 14 additions an element and not a weight anything.

#include <anybit/core/macros_begin.hpp>

#include <algorithm>

#include <anybit/kernel/matmul.hpp>
#include <anybit/kernel/trellis_tiles.hpp>

namespace anybit::kernel {
inline namespace ANYBIT_CODE {

namespace detail {
inline constexpr float root_of_128 = 0.08838834764831845f;  // 1 / sqrt(128)

/// row_ops_v of what EXL3 has between its rotations.
template <class S>
inline constexpr RowOps inner_row_ops_v = [] {
  RowOps ops{scheme_ops_v<S>};
  ops.granule_rows = 16;
  ops.weights = &decode_tiles<S>;
  return ops;
}();

}  // namespace detail

/// Of the matrix between EXL3's rotations, padded outputs x padded inputs. Views t, which must stay where it is.
template <class S>
  requires is_exl3_v<S>
PackedRows rows_between_rotations(const PackedTensor<S>& t) {
  PackedRows rows(detail::inner_row_ops_v<S>, &t, t.bytes());
  rows.extents = S::padded(t.extents());
  rows.group = std::max<Index>(rows.extents.cols, 1);
  return rows;
}

/// x (tokens, inputs), y (tokens, outputs). `mode` rounds the rotated activations. The workspace holds both rotated matrices,
/// padded.
template <class S, Executor E>
  requires is_exl3_v<S>
void exl3_matmul(const PackedTensor<S>& t, ConstMatrix x, MutableMatrix y, ActivationMode mode, Workspace& workspace,
                 E&& executor) {
  check_shapes(t.extents(), x, y);
  const Extents padded = S::padded(t.extents());
  const typename PackedTensor<S>::SectionsOf held(t.bytes());
  const Sections s = held;
  const MutableMatrix in(workspace.get<float>(Workspace::permuted, x.rows * padded.cols), x.rows, padded.cols),
      out(workspace.get<float>(Workspace::tiled_blocks, x.rows * padded.rows), x.rows, padded.rows);
  executor.parallel_for(x.rows, 1, [&](Index begin, Index end) {
    for (Index i = begin; i < end; ++i) {
      float* const v = in.row(i).data();
      for (Index c = 0; c < x.cols; ++c) v[c] = x(i, c) * S::input_scale(s, c);
      std::fill(v + x.cols, v + padded.cols, 0.0f);
      for (Index c = 0; c < padded.cols; c += S::block) S::hadamard(v + c, S::block, 1, 1, detail::root_of_128);
    }
  });
  kernel::matmul(rows_between_rotations(t), ConstMatrix(in), out, mode, workspace, executor);
  executor.parallel_for(x.rows, 1, [&](Index begin, Index end) {
    for (Index i = begin; i < end; ++i) {
      float* const v = out.row(i).data();
      for (Index r = 0; r < padded.rows; r += S::block) S::hadamard(v + r, S::block, 1, 1, detail::root_of_128);
      for (Index r = 0; r < y.cols; ++r) y(i, r) = v[r] * S::output_scale(s, r);
    }
  });
}

}  // namespace ANYBIT_CODE
}  // namespace anybit::kernel

#include <anybit/core/macros_end.hpp>
