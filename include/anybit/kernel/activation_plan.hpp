#pragma once
// Activations that several products share, rounded and put in order once: the plan, made from the weights, says how, and the
// activations are made from the plan. Plain data, which may pass between files with different flags.

#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>

#include <anybit/core/config.hpp>
#include <anybit/core/view.hpp>
#include <anybit/exec/executor.hpp>
#include <anybit/kernel/compute.hpp>
#include <anybit/kernel/tokens.hpp>

namespace anybit::kernel {
inline namespace ANYBIT_ABI {

/// token t = scales[t] * codes, and times a block's own scale if there are blocks. Every segment starts at a multiple of 4 codes;
/// the gaps are 0. A token or block with NaN or infinity has scale NaN and codes 0, so that the token's outputs are NaN and no
/// other's are touched. A scale that was given (Compute::int8_static) changes nothing of that.
struct RoundedActivations {
  Index tokens = 0, cols = 0, group = 1, segment_cols = 1, segments = 0, stride = 0;
  const std::int8_t* codes = nullptr;  ///< tokens x stride and 64 more that may be read, |code| <= 127
  const float* scales = nullptr;       ///< a token; 1 if there are blocks
  const float* blocks = nullptr;       ///< tokens x segments; null for one scale a token
  const std::int32_t* sums = nullptr;  ///< tokens x segments: the sum of a segment's codes

  /// Tokens begin .. end - 1.
  RoundedActivations range(Index begin, Index end) const {
    RoundedActivations r = *this;
    r.tokens = end - begin;
    r.codes += begin * stride, r.scales += begin, r.sums += begin * segments;
    if (r.blocks) r.blocks += begin * segments;
    return r;
  }
};

/// Tokens stand in groups of Arch::token_group, the last ones in groups of half as many, and so on. A group of n tokens that
/// starts at token t has its codes at codes + t * stride: 4 codes of its first token, of its second, .., then the next 4 of
/// each, and zeros where the weights' segments have more steps; and what its dot products start from at starts + t * segments:
/// those of segment 0, then those of segment 1, ..
struct TiledActivations {
  Index tokens = 0, stride = 0, segments = 0;
  const std::int8_t* codes = nullptr;  ///< tokens x stride
  /// Minus the sum of a segment's codes; without zero points the sum times the level that a code of Arch::bias() stands for.
  const std::int32_t* starts = nullptr;
  const float* scales = nullptr;
  const float* blocks = nullptr;  ///< in the order of starts; null for one scale a token
  /// Codes are in the order of matrix_activations.hpp instead, and starts and blocks in that of RoundedActivations.
  bool by_matrix = false;

  /// Tokens begin .. end - 1, begin a multiple of the largest group, and end too, or the last.
  TiledActivations range(Index begin, Index end) const {
    TiledActivations r = *this;
    r.tokens = end - begin;
    r.codes += begin * stride, r.starts += begin * segments, r.scales += begin;
    if (r.blocks) r.blocks += begin * segments;
    return r;
  }
};

/// Activations as bfloat16: rows `stride` values apart, with zeros to a multiple of 32 columns, and rows of zeros to a multiple
/// of 16.
struct Bf16Activations {
  Index tokens = 0, cols = 0, stride = 0;
  const std::uint16_t* values = nullptr;

  /// Tokens begin .. end - 1, begin a multiple of 16, and end too, or the last.
  Bf16Activations range(Index begin, Index end) const { return {end - begin, cols, stride, values + begin * stride}; }
};

/// Two TiledActivations of the same rounded activations differ in this.
struct Tiling {
  std::int32_t unit = 1;    ///< steps of a segment are rounded up to multiples of so many
  std::int32_t factor = 0;  ///< starts are sums times this
  bool chunks = false;      ///< starts are of chunks (matrix_activations.hpp) instead of segments
  bool operator==(const Tiling&) const = default;
};

}  // namespace ANYBIT_ABI
}  // namespace anybit::kernel

namespace anybit {
inline namespace ANYBIT_ABI {

struct Activations;

/// Which activations the products of one tensor read (plan_activations, AnyPacked::plan), or those of several that share them.
/// It refers to the column order of the first.
struct ActivationPlan {
  static constexpr Index most_tilings = 4;

  ActivationMode mode;
  Index cols = 0;
  Index group = 0;        ///< columns that share a weight's scale, at most cols; 0 where rounding does not depend on it
  bool values = false;    ///< read as floats
  bool bf16 = false;      ///< read as Bf16Activations
  bool integers = false;  ///< read as RoundedActivations
  Index tilings = 0;      ///< read as TiledActivations of `tiled`
  std::array<kernel::Tiling, static_cast<std::size_t>(most_tilings)> tiled{};
  std::span<const std::byte> order;  ///< 32-bit numbers of the columns in stored order; empty: as they are
  Index row_grain = 1;               ///< rows that are best multiplied together: slices of rows are best multiples of it
  /// Makes the activations, in the code whose products read them.
  Activations (*round)(const InputTokens&, const ActivationPlan&, Workspace&, ExecutorRef) = nullptr;

  /// Takes in what other products read. False, and nothing is changed, if one rounding cannot serve both: the number of columns,
  /// the mode, the length of groups, the order of columns or the instruction set differ.
  bool join(const ActivationPlan& other) {
    if (!shares_rounding(other) || missing_tilings(other) > most_tilings - tilings) return false;
    for (Index i = 0; i < other.tilings; ++i)
      if (!has(other.tiled[static_cast<std::size_t>(i)]))
        tiled[static_cast<std::size_t>(tilings++)] = other.tiled[static_cast<std::size_t>(i)];
    values = values || other.values, bf16 = bf16 || other.bf16, integers = integers || other.integers;
    if (group == 0) group = other.group;
    row_grain = row_grain < other.row_grain ? other.row_grain : row_grain;
    return true;
  }
  /// Whether activations made from this plan hold what the other asks for.
  bool serves(const ActivationPlan& other) const {
    return shares_rounding(other) && missing_tilings(other) == 0 && (values || !other.values) && (bf16 || !other.bf16) &&
           (integers || !other.integers);
  }
  /// The number of a tiling in `tiled`, or -1.
  Index find(kernel::Tiling t) const {
    for (Index i = 0; i < tilings; ++i)
      if (tiled[static_cast<std::size_t>(i)] == t) return i;
    return -1;
  }
  bool has(kernel::Tiling t) const { return find(t) >= 0; }

 private:
  bool shares_rounding(const ActivationPlan& o) const {
    return round == o.round && cols == o.cols && mode.compute() == o.mode.compute() && mode.scale() == o.mode.scale() &&
           (group == 0 || o.group == 0 || group == o.group) && order.size() == o.order.size() &&
           (order.data() == o.order.data() || std::memcmp(order.data(), o.order.data(), order.size()) == 0);
  }
  Index missing_tilings(const ActivationPlan& o) const {
    Index n = 0;
    for (Index i = 0; i < o.tilings; ++i) n += !has(o.tiled[static_cast<std::size_t>(i)]);
    return n;
  }
};

/// Activations as products read them. They lie in the workspace that they were made with, or are the caller's own floats: valid
/// until either is used again. Any number of threads may read them.
struct Activations {
  ActivationPlan plan;
  Index tokens = 0;
  ConstMatrix values;
  kernel::Bf16Activations bf16;
  kernel::RoundedActivations rounded;
  std::array<kernel::TiledActivations, static_cast<std::size_t>(ActivationPlan::most_tilings)> tiled{};

  /// Tokens begin .. end - 1, begin a multiple of 16, and end too, or the last.
  template <class = UnderTheseFlags>
  Activations range(Index begin, Index end) const {
    Activations some = *this;
    some.tokens = end - begin;
    if (plan.values) some.values = values.row_range(begin, end);
    if (plan.bf16) some.bf16 = bf16.range(begin, end);
    if (plan.integers) some.rounded = rounded.range(begin, end);
    for (Index i = 0; i < plan.tilings; ++i)
      some.tiled[static_cast<std::size_t>(i)] = tiled[static_cast<std::size_t>(i)].range(begin, end);
    return some;
  }
};

/// Rounds x as the plan says, or only puts it in order; one token, and little of anything, on the calling thread alone.
/// x in floats that no product needs rounded, reordered or gathered is not copied.
ANYBIT_INLINE Activations round_activations(const InputTokens& x, const ActivationPlan& plan, Workspace& workspace,
                                            ExecutorRef executor = {}) {
  ANYBIT_CHECK(plan.round != nullptr, "round_activations: the plan is of no weights");
  ANYBIT_CHECK(x.cols == plan.cols, "round_activations: x has another number of columns than the weights");
  return plan.round(x, plan, workspace, executor);
}

}  // namespace ANYBIT_ABI
}  // namespace anybit

namespace anybit::kernel {
inline namespace ANYBIT_ABI {

ANYBIT_INLINE void check_shapes(Extents w, const InputTokens& x, const OutputTokens& y) {
  ANYBIT_CHECK(x.cols == w.cols, "matmul: x has another number of columns than the weights");
  ANYBIT_CHECK(y.cols == w.rows, "matmul: y has another number of columns than the weights have rows");
  ANYBIT_CHECK(y.tokens == x.tokens, "matmul: x and y have different numbers of tokens");
  ANYBIT_CHECK(y.tokens <= 1 || y.stride >= y.cols, "matmul: rows of y overlap: its stride is below its columns");
}

/// The mistakes that a caller of products by row range can make; `needed` is the plan of the weights alone.
ANYBIT_INLINE void check_rows(Extents w, const ActivationPlan& needed, const Activations& a, const OutputTokens& y, Index begin,
                              Index end) {
  ANYBIT_CHECK(0 <= begin && begin <= end && end <= w.rows, "matmul_rows: the row range is not inside the weights");
  ANYBIT_CHECK(y.cols == w.rows, "matmul_rows: y has another number of columns than the weights have rows");
  ANYBIT_CHECK(y.tokens == a.tokens, "matmul_rows: x and y have different numbers of tokens");
  ANYBIT_CHECK(y.tokens <= 1 || y.stride >= y.cols, "matmul_rows: rows of y overlap: its stride is below its columns");
  ANYBIT_CHECK(a.plan.serves(needed), "matmul_rows: the activations were made from a plan that these weights did not join");
}

}  // namespace ANYBIT_ABI
}  // namespace anybit::kernel
