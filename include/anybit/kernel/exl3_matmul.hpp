#pragma once
// y = x W^T with EXL3's weights: activations are rotated, multiplied with the decoded trellis, and rotated back, so that the two
// Hadamard transforms cost a token 14 additions an element and not a weight anything.

#include <anybit/core/macros_begin.hpp>

#include <algorithm>
#include <array>
#include <bit>
#include <cstdint>

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

namespace detail {

/// ActivationPlan::round of EXL3: values are rotated, padded to whole blocks of 128, then rounded as the mode says. The plan's
/// order holds the scales of inputs, binary16.
[[gnu::noinline]] inline Activations rotate_activations(const InputTokens& x, const ActivationPlan& plan, Workspace& workspace,
                                                        ExecutorRef executor) {
  using Any = Exl3<1, Mul1>;  // scales and Hadamard are those of every K
  Activations a;
  a.plan = plan, a.tokens = x.tokens;
  const Index padded = static_cast<Index>(plan.order.size()) / 2;
  float* const values = workspace.get<float>(Workspace::rounded, x.tokens * padded);
  a.values = ConstMatrix(values, x.tokens, padded);
  const Compute compute = plan.mode.compute();
  const bool rounds = rounds_to_int8(compute) && x.tokens > 0 && padded > 0;
  const std::array<std::span<const std::byte>, 2> sections{plan.order.first(0), plan.order};
  const auto rotate = [&](Index t) {
    float* const v = values + t * padded;
    stage_token(x, {}, t, v);
    for (Index c = 0; c < x.cols; ++c) v[c] *= Any::input_scale(sections, c);
    std::fill(v + x.cols, v + padded, 0.0f);
    for (Index c = 0; c < padded; c += Any::block) Any::hadamard(v + c, Any::block, 1, 1, root_of_128);
    if (compute == Compute::bf16)
      for (Index c = 0; c < padded; ++c) v[c] = bf16_to_f32(f32_to_bf16(v[c]));
    return v;
  };
  if (!rounds) {
    executor.parallel_for(x.tokens, 1, [&](Index begin, Index end) {
      for (Index t = begin; t < end; ++t) rotate(t);
    });
    return a;
  }
  const RoundingTask rounding(x.tokens, padded, padded, plan.mode, workspace);
  executor.parallel_for(x.tokens, 1, [&](Index begin, Index end) {
    for (Index t = begin; t < end; ++t) {
      float* const v = rotate(t);
      std::int8_t* const codes = rounding.codes + t * rounding.made.stride;
      rounding.round(t, v, plan.mode, codes);
      rounding.read(t, codes, v);
    }
  });
  return a;
}

}  // namespace detail

template <class S>
  requires is_exl3_v<S>
ActivationPlan plan_exl3(const PackedTensor<S>& t, ActivationMode mode) {
  ActivationPlan p;
  p.mode = mode, p.cols = t.cols(), p.values = true, p.row_grain = S::block, p.round = &detail::rotate_activations;
  p.order = t.bytes().section(section_tags::input_scales);
  return p;
}

/// Rows begin .. end - 1 of y, by activations of plan_exl3(): blocks of 128 outputs are rotated back as a whole.
template <class S>
  requires is_exl3_v<S>
void exl3_rows(const PackedTensor<S>& t, const Activations& a, MutableMatrix y, Index begin, Index end) {
  const PackedRows w = rows_between_rotations(t);
  const typename PackedTensor<S>::SectionsOf held(t.bytes());
  const Sections s = held;
  constexpr Index most = 32;
  alignas(64) float products[static_cast<std::size_t>(most * S::block)];
  for (Index block = begin / S::block * S::block; block < end; block += S::block)
    for (Index token = 0; token < a.tokens; token += most) {
      const Index tokens = std::min(most, a.tokens - token);
      // Kernels address y by absolute rows; its first one may lie before the block, so it is found by number.
      const auto start = std::bit_cast<std::uintptr_t>(&products[0]) - static_cast<std::uintptr_t>(block) * sizeof(float);
      f32_rows(w, a.values.row_range(token, token + tokens), {std::bit_cast<float*>(start), tokens, S::block, S::block}, block,
               block + S::block);
      for (Index i = 0; i < tokens; ++i) {
        float* const v = products + i * S::block;
        S::hadamard(v, S::block, 1, 1, detail::root_of_128);
        for (Index r = std::max(block, begin); r < std::min(block + S::block, end); ++r)
          y(token + i, r) = v[r - block] * S::output_scale(s, r);
      }
    }
}

/// x (tokens, inputs), y (tokens, outputs). `mode` rounds the rotated activations.
template <class S, Executor E>
  requires is_exl3_v<S>
void exl3_matmul(const PackedTensor<S>& t, const InputTokens& x, MutableMatrix y, ActivationMode mode, Workspace& workspace,
                 E&& executor) {
  check_shapes(t.extents(), x, y);
  const ActivationPlan plan = plan_exl3(t, mode);
  const Activations a = round_activations(x, plan, workspace, executor);
  parallel_tiles(executor, t.rows(), plan.row_grain, [&](Index begin, Index end) { exl3_rows(t, a, y, begin, end); });
}

}  // namespace ANYBIT_CODE
}  // namespace anybit::kernel

#include <anybit/core/macros_end.hpp>
