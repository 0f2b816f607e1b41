#pragma once
// Gated feed-forward layers (GLU variants, Shazeer, arXiv:2002.05202) without a matrix between: y = f(x Wg^T) * (x Wu^T).

#include <anybit/core/macros_begin.hpp>

#include <anybit/kernel/any_packed.hpp>
#include <anybit/kernel/product_rows.hpp>
#include <anybit/simd/xsimd_compat.hpp>

namespace anybit {
inline namespace ANYBIT_CODE {

/// out[i] = f(gate[i]) * up[i] for i < n; `out` may be `gate`.
using Gate = void (*)(const float* gate, const float* up, Index n, float* out);

/// f(z) = z / (1 + e^-z)
inline void swiglu(const float* gate, const float* up, Index n, float* out) {
  const simd::f32 one = simd::broadcast(1.0f);
  const auto gated = [&](simd::f32 g, simd::f32 u) { return simd::divide(g, one + simd::exp(simd::zero() - g)) * u; };
  Index i = 0;
  for (; i + simd::width <= n; i += simd::width) simd::store(out + i, gated(simd::load(gate + i), simd::load(up + i)));
  if (i < n) simd::store_partial(out + i, gated(simd::load_partial(gate + i, n - i), simd::load_partial(up + i, n - i)), n - i);
}

/// Columns begin .. end - 1 of y = f(x Wg^T) * (x Wu^T), x as `a`, made from a plan that both joined. Both products of a block
/// are in the first-level cache when they meet. The same bits for any slices of rows. No allocation, no threads.
inline void gated_rows(const AnyPacked& gate, const AnyPacked& up, const Activations& a, const OutputTokens& y, Index begin,
                       Index end, Gate f = &swiglu) {
  ANYBIT_CHECK(gate.extents() == up.extents(), "gated_rows: the two matrices have different shapes");
  kernel::check_rows(gate.extents(), gate.plan(a.plan.mode), a, y, begin, end);
  kernel::check_rows(up.extents(), up.plan(a.plan.mode), a, y, begin, end);
  kernel::detail::ProductBlock one, other;
  kernel::detail::each_block(a, begin, end, [&](const Activations& some, Index token, Index row, Index stop) {
    const auto block = [&](kernel::detail::ProductBlock& b) {
      MutableMatrix to = b.from_row(row);
      to.rows = some.tokens;
      return OutputTokens(to);
    };
    gate.product_rows(some, block(one), row, stop);
    up.product_rows(some, block(other), row, stop);
    for (Index t = 0; t < some.tokens; ++t) {
      f(one.token(t), other.token(t), stop - row, one.token(t));
      kernel::detail::store_products(one.token(t), y, token + t, row, stop - row);
    }
  });
}

}  // namespace ANYBIT_CODE
}  // namespace anybit

#include <anybit/core/macros_end.hpp>
