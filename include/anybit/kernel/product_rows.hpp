#pragma once
// Products by row range with activations that were rounded once, for every kind of weights. Results that are not simply stored
// (added, scattered, with a bias, in 16 bits) go through a block in the first-level cache, so that every kernel can do it.

#include <anybit/core/macros_begin.hpp>

#include <algorithm>
#include <bit>

#include <anybit/exec/executor.hpp>
#include <anybit/kernel/bf16_rows.hpp>
#include <anybit/kernel/f32_rows.hpp>
#include <anybit/kernel/folded_tiles.hpp>
#include <anybit/kernel/int8_rows.hpp>
#include <anybit/kernel/tiled_activations.hpp>

namespace anybit::kernel {
inline namespace ANYBIT_CODE {

namespace detail {

/// Less work than this is not worth an executor's loop.
inline constexpr Index serial_elements = Index{1} << 15;

/// Asks for a row while the one before is worked on: what processors foresee by themselves ends with a page.
inline void prefetch_row([[maybe_unused]] const float* row, [[maybe_unused]] Index cols) {
#if defined(__GNUC__)
  for (Index i = 0; i < cols; i += 16) __builtin_prefetch(row + i);
#endif
}

inline void to_floats(const std::uint16_t* from, FloatType type, Index n, float* to) {
  Index i = 0;
  if (type == FloatType::f16) {
    for (; i + simd::width <= n; i += simd::width) simd::store(to + i, simd::load_f16(from + i));
    for (; i < n; ++i) to[i] = f16_to_f32(from[i]);
  } else {
    for (; i + simd::width <= n; i += simd::width) simd::store(to + i, simd::load_bf16(from + i));
    for (; i < n; ++i) to[i] = bf16_to_f32(from[i]);
  }
}
inline void from_floats(const float* from, FloatType type, Index n, std::uint16_t* to) {
  if (type == FloatType::f16)
    for (Index i = 0; i < n; ++i) to[i] = f32_to_f16(from[i]);
  else
    for (Index i = 0; i < n; ++i) to[i] = f32_to_bf16(from[i]);
}

/// A token's activations as floats in stored order.
inline void stage_token(const InputTokens& x, std::span<const std::byte> order, Index t, float* out) {
  if (order.empty()) {
    if (x.in_floats())
      std::copy_n(x.floats(t), x.cols, out);
    else
      to_floats(x.halves(t), x.type, x.cols, out);
    return;
  }
  const auto original = [&](Index j) {
    std::uint32_t c;
    std::memcpy(&c, order.data() + 4 * j, 4);
    return static_cast<Index>(c);
  };
  if (x.in_floats()) {
    const float* from = x.floats(t);
    for (Index j = 0; j < x.cols; ++j) out[j] = from[original(j)];
    return;
  }
  const std::uint16_t* from = x.halves(t);
  for (Index j = 0; j < x.cols; ++j) {
    const std::uint16_t half = from[original(j)];
    out[j] = x.type == FloatType::f16 ? f16_to_f32(half) : bf16_to_f32(half);
  }
}

}  // namespace detail

/// ActivationPlan::round of the kernels here.
[[gnu::noinline]] inline Activations make_activations(const InputTokens& x, const ActivationPlan& plan, Workspace& workspace,
                                                      ExecutorRef executor) {
  using Arch = native_arch;
  Activations a;
  a.plan = plan, a.tokens = x.tokens;
  if (x.tokens == 0) return a;
  const Compute compute = plan.mode.compute();
  const bool rounds = rounds_to_int8(compute), in_place = x.in_floats() && !x.list && plan.order.empty();
  const bool as_it_is = plan.values && compute == Compute::f32 && in_place;
  float* const values = plan.values && !as_it_is ? workspace.get<float>(Workspace::rounded, x.tokens * x.cols) : nullptr;
  float* const staged = !in_place && (rounds || !values) ? workspace.get<float>(Workspace::permuted, x.tokens * x.cols) : nullptr;
  if (plan.values)
    a.values = as_it_is ? ConstMatrix(static_cast<const float*>(x.data), x.tokens, x.cols, x.stride)
                        : ConstMatrix(values, x.tokens, x.cols);
  if (as_it_is || x.cols == 0) return a;
  const auto input = [&](Index t) -> const float* {
    if (in_place) return x.floats(t);
    float* const to = (staged ? staged : values) + t * x.cols;
    detail::stage_token(x, plan.order, t, to);
    return to;
  };
  const auto run = [&](const auto& tokens) {  // on the calling thread alone where a loop of the executor would cost more
    if (x.tokens * x.cols <= detail::serial_elements)
      tokens(Index{0}, x.tokens);
    else
      parallel_tiles(executor, x.tokens, Arch::token_group, tokens);
  };
  if (plan.bf16) {
    const detail::Bf16Task rounding(x.tokens, x.cols, workspace);
    run([&](Index begin, Index end) {
      for (Index t = begin; t < end; ++t) rounding.round<Arch>(t, input(t));
    });
    a.bf16 = rounding.activations();
  } else if (!rounds) {
    run([&](Index begin, Index end) {
      for (Index t = begin; t < end; ++t) {
        const float* const in = input(t);
        float* const out = values + t * x.cols;
        if (compute == Compute::bf16)
          for (Index i = 0; i < x.cols; ++i) out[i] = bf16_to_f32(f32_to_bf16(in[i]));
      }
    });
  }
  if (!rounds) return a;
  const detail::RoundingTask rounding(x.tokens, x.cols, plan.group > 0 ? plan.group : x.cols, plan.mode, workspace);
  const RoundedActivations rounded = rounding.activations();
  const detail::TilingTasks<Arch> tilings(rounded, std::span(plan.tiled).first(static_cast<std::size_t>(plan.tilings)),
                                          workspace);
  run([&](Index begin, Index end) {
    for (Index from = begin, to; from < end; from = to) {
      to = std::min(from + Arch::token_group, end);
      // Codes that only tilings read lie one group upon the other, and stay in the first-level cache.
      std::int8_t* const codes = rounding.codes + (plan.integers ? from : begin) * rounded.stride;
      for (Index t = from; t < to; ++t) {
        std::int8_t* const out = codes + (t - from) * rounded.stride;
        if (in_place && t + 1 < end) detail::prefetch_row(x.floats(t + 1), x.cols);
        rounding.round(t, input(t), plan.mode, out);
        if (values) rounding.read(t, out, values + t * x.cols);
      }
      tilings.run(rounded, from, to, codes);
    }
  });
  if (plan.integers) a.rounded = rounded;
  for (Index i = 0; i < plan.tilings; ++i)
    a.tiled[static_cast<std::size_t>(i)] = tilings.of[static_cast<std::size_t>(i)].activations();
  return a;
}

/// Whether products of `mode` read the tiles.
inline bool reads_tiles(const TiledWeights& w, ActivationMode mode) {
  return rounds_to_int8(mode.compute()) && w.segment_cols == segment_columns(w.group, mode.compute());
}
/// Whether they read some tiles folded.
inline bool reads_folded(const TiledWeights& w, ActivationMode mode) {
  return mode.compute() == Compute::int8_folded && w.folded && w.folded->tiles > 0;
}
/// Whether products of `mode` read rounded activations as integers.
inline bool reads_integers(const PackedRows& w, ActivationMode mode) {
  return (w.ops->bytes || w.ops->integer_rows) && rounds_to_int8(mode.compute()) && w.extents.cols > 0;
}

/// Whether products of `mode` multiply in bfloat16.
inline bool reads_bf16(const PackedRows& w, ActivationMode mode) {
  return multiplies_bf16<native_arch> && mode.compute() == Compute::bf16 && w.extents.cols > 0;
}

inline constexpr Index row_grain = 16;

inline ActivationPlan plan_activations(const PackedRows& w, ActivationMode mode) {
  ActivationPlan p;
  p.mode = mode, p.cols = w.extents.cols, p.row_grain = row_grain, p.round = &make_activations;
  p.integers = reads_integers(w, mode), p.bf16 = reads_bf16(w, mode), p.values = !p.integers && !p.bf16;
  if (p.bf16) p.row_grain = detail::bf16_panel_rows;
  if (p.integers || mode.compute() == Compute::int8_per_block) p.group = std::min(w.group, p.cols);
  return p;
}
inline ActivationPlan plan_activations(const TiledWeights& w, ActivationMode mode) {
  ANYBIT_CHECK(reads_tiles(w, mode), "matmul: the weights were tiled for another compute");
  ActivationPlan p;
  p.mode = mode, p.cols = w.extents.cols, p.row_grain = 4 * tile_rows, p.round = &make_activations;
  p.group = std::min(w.group, p.cols);
  const auto read = [&p](Tiling t) { p.tiled[static_cast<std::size_t>(p.tilings++)] = t; };
  const bool folds = reads_folded(w, mode);
  if (p.cols > 0 && folds) read(folded_tiling_of<native_arch>(w));
  if (p.cols > 0 && (!folds || w.folded->tiles < w.tiles())) read(tiling_of<native_arch>(w));
  return p;
}

/// Rows begin .. end - 1 of y(token, row), by activations whose plan serves the weights. Allocates nothing.
inline void product_rows(const PackedRows& w, const Activations& a, MutableMatrix y, Index begin, Index end) {
  if (a.tokens == 0) return;
  if (reads_integers(w, a.plan.mode) && w.ops->integer_rows && (!w.ops->lines || a.tokens < RowOps::line_tokens))
    w.ops->integer_rows(w.tensor, a.rounded, y, begin, end);
  else if (reads_integers(w, a.plan.mode))
    int8_rows(w, a.rounded, y, begin, end);
  else if (reads_bf16(w, a.plan.mode))
    bf16_rows<native_arch>(w, a.bf16, y, begin, end);
  else
    f32_rows(w, a.values, y, begin, end);
}
inline void product_rows(const TiledWeights& w, const Activations& a, MutableMatrix y, Index begin, Index end) {
  if (a.tokens == 0) return;
  if (w.extents.cols == 0) {
    for (Index t = 0; t < a.tokens; ++t) std::fill(y.data + t * y.stride + begin, y.data + t * y.stride + end, 0.0f);
    return;
  }
  const auto find = [&a](Tiling t) {
    const Index i = a.plan.find(t);
    return i < 0 ? nullptr : &a.tiled[static_cast<std::size_t>(i)];
  };
  const TiledActivations* const exact = find(tiling_of<native_arch>(w));
  if (reads_folded(w, a.plan.mode)) return w.folded_rows(w, exact, find(folded_tiling_of<native_arch>(w)), y, begin, end);
  w.rows(w, *exact, y, begin, end);
}

namespace detail {

inline constexpr Index block_rows = 64, block_tokens = 64;

/// A block of y in the first-level cache: rows row .. row + block_rows - 1.
class ProductBlock {
 public:
  /// As kernels address y, by absolute rows. (Its first element may lie before the block, so it is found by number.)
  MutableMatrix from_row(Index row) {
    const auto start = std::bit_cast<std::uintptr_t>(&values_[0]) - static_cast<std::uintptr_t>(row) * sizeof(float);
    return {std::bit_cast<float*>(start), block_tokens, block_rows, block_rows};
  }
  float* token(Index t) { return values_ + t * block_rows; }

 private:
  alignas(64) float values_[static_cast<std::size_t>(block_tokens * block_rows)];
};

/// Calls use(activations of some tokens, first token, first row, end row) for blocks.
template <class Use>
inline void each_block(const Activations& a, Index begin, Index end, Use&& use) {
  for (Index token = 0; token < a.tokens; token += block_tokens) {
    const Activations some = a.range(token, std::min(a.tokens, token + block_tokens));
    for (Index row = begin, stop; row < end; row = stop) {
      stop = std::min(end, (row / block_rows + 1) * block_rows);
      use(some, token, row, stop);
    }
  }
}

/// Products of one token, of rows row .. row + n - 1, into y.
inline void store_products(float* products, const OutputTokens& y, Index token, Index row, Index n) {
  if (y.bias)
    for (Index i = 0; i < n; ++i) products[i] += y.bias[row + i];
  if (y.factors)
    for (Index i = 0; i < n; ++i) products[i] *= y.factors[token];
  const Index at = y.row(token) * y.stride + row;
  if (y.type == FloatType::f32) {
    float* const to = static_cast<float*>(y.data) + at;
    if (y.accumulate)
      for (Index i = 0; i < n; ++i) to[i] += products[i];
    else
      std::copy_n(products, n, to);
    return;
  }
  std::uint16_t* const to = static_cast<std::uint16_t*>(y.data) + at;
  if (y.accumulate) {
    float before[static_cast<std::size_t>(block_rows)];
    to_floats(to, y.type, n, before);
    for (Index i = 0; i < n; ++i) products[i] += before[i];
  }
  from_floats(products, y.type, n, to);
}

}  // namespace detail

/// The same into any y. `rows` is what product_rows is to some weights.
template <class Rows>
inline void product_rows_to(const OutputTokens& y, const Activations& a, Index begin, Index end, Rows&& rows) {
  if (y.plain()) return rows(a, y.matrix(), begin, end);
  detail::ProductBlock block;
  detail::each_block(a, begin, end, [&](const Activations& some, Index token, Index row, Index stop) {
    rows(some, block.from_row(row), row, stop);
    for (Index t = 0; t < some.tokens; ++t) detail::store_products(block.token(t), y, token + t, row, stop - row);
  });
}

}  // namespace ANYBIT_CODE
}  // namespace anybit::kernel

#include <anybit/core/macros_end.hpp>
