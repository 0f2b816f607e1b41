#pragma once
// Activations rounded to 8 bits, in the order of the integer kernels. Readable twin: reference/matmul.hpp.

#include <anybit/core/macros_begin.hpp>

#include <algorithm>
#include <bit>
#include <limits>

#include <anybit/core/finite.hpp>
#include <anybit/core/half.hpp>
#include <anybit/core/view.hpp>
#include <anybit/exec/executor.hpp>
#include <anybit/format/format.hpp>
#include <anybit/kernel/activation_plan.hpp>
#include <anybit/kernel/compute.hpp>
#include <anybit/simd/xsimd_compat.hpp>

namespace anybit::kernel {
inline namespace ANYBIT_CODE {

/// The integer kernels cut a row into segments: a group, or a piece of one of at most so many columns. Within a segment sums
/// are integers below 2^24 (512 * 255 * 127), which float holds exactly.
inline constexpr Index max_segment = 512;
static_assert(max_segment * 255 * 127 < 1 << 24);

/// Columns of a whole segment: `group`, or what pieces of it have. A block of Compute::int8_per_block is a segment.
constexpr ANYBIT_INLINE Index segment_columns(Index group, Compute compute) {
  return std::min(group, compute == Compute::int8_per_block ? block_columns : max_segment);
}

/// Walks over the segments of a row, without a division.
class Segment {
 public:
  Index first = 0, length, group = 0;

  /// `most` is segment_columns(group_cols, compute).
  ANYBIT_INLINE Segment(Index cols, Index group_cols, Index most)
      : length(std::min(cols, most)), cols_(cols), group_cols_(group_cols), most_(most), group_end_(group_cols) {}
  ANYBIT_INLINE bool done() const { return first >= cols_; }
  ANYBIT_INLINE Index end() const { return first + length; }
  ANYBIT_INLINE void next() {
    first += length;
    if (first == group_end_) ++group, group_end_ += group_cols_;
    length = std::min({cols_ - first, group_end_ - first, most_});
  }

 private:
  Index cols_, group_cols_, most_, group_end_;
};

/// Rounds a token or a block of one: scale = largest magnitude / 127, or `fixed` where that is above 0; code = x / scale, ties to
/// even, cut off at 127. Returns the scale. Writes nothing past n.
inline float round_token(const float* x, Index n, std::int8_t* codes, float fixed = 0) {
  constexpr Index w = simd::width;
  const std::int32_t bits = abs_max_bits({x, static_cast<std::size_t>(n)});
  const float largest = std::bit_cast<float>(bits);
  const bool finite = is_finite(largest);
  const float scale = fixed > 0 ? fixed : largest / 127.0f;
  if (!finite || scale == 0) {
    std::fill(codes, codes + n, std::int8_t{0});
    return finite ? 0.0f : std::numeric_limits<float>::quiet_NaN();
  }
  const simd::f32 divisor = simd::broadcast(scale), top = simd::broadcast(127.0f), bottom = simd::broadcast(-127.0f);
  const Index whole = n / w * w;
  const auto round_all = [&](auto quotient) __attribute__((always_inline)) {
    const auto rounded = [&](simd::f32 v) __attribute__((always_inline)) {
      return simd::round_to_i32(simd::min(simd::max(quotient(v), bottom), top));
    };
    for (Index i = 0; i < whole; i += w) simd::store_i8(codes + i, rounded(simd::load(x + i)));
    if (whole < n) {
      std::int32_t lanes[static_cast<std::size_t>(w)];
      simd::store(lanes, rounded(simd::load_partial(x + whole, n - whole)));
      for (Index i = whole; i < n; ++i) codes[i] = static_cast<std::int8_t>(lanes[i - whole]);
    }
  };
  // Values may exceed a fixed scale, whose quotients could overflow, and a subnormal scale is rounded coarsely: divide and clamp.
  // Otherwise the reciprocal gives the same quotients in a third of the time, but for those so small that their code is 0.
  if (fixed > 0 || scale < 0x1p-60f || scale > 0x1p60f) {
    round_all([&](simd::f32 v) __attribute__((always_inline)) { return simd::divide(v, divisor); });
  } else {
    const simd::f32 reciprocal = simd::broadcast(1.0f / scale);
    round_all([&](simd::f32 v) __attribute__((always_inline)) { return simd::divide(v, divisor, reciprocal); });
  }
  return scale;
}

namespace detail {

/// The sum of n codes.
inline std::int32_t sum_of(const std::int8_t* codes, Index n) {
  simd::i32 sum = simd::broadcast(std::int32_t{0});
  Index i = 0;
  for (; i + simd::width <= n; i += simd::width) sum = sum + simd::load_i32(codes + i);
  std::int32_t total = simd::reduce_add(sum);
  for (; i < n; ++i) total += codes[i];
  return total;
}

/// Rounded activations whose memory is there and not yet written.
struct RoundingTask {
  RoundedActivations made;  ///< without pointers
  std::int8_t* codes;
  float *scales, *blocks;
  std::int32_t* sums;

  RoundingTask(Index tokens, Index cols, Index group, ActivationMode mode, Workspace& workspace) {
    const Compute compute = mode.compute();
    RoundedActivations& r = made;
    r.tokens = tokens, r.cols = cols, r.group = group, r.segment_cols = segment_columns(group, compute);
    for (Segment s(cols, group, r.segment_cols); !s.done(); s.next(), ++r.segments) r.stride += round_up(s.length, 4);
    codes = workspace.get<std::int8_t>(Workspace::codes, r.tokens * r.stride + 64);
    scales = workspace.get<float>(Workspace::scales, r.tokens);
    blocks = compute == Compute::int8_per_block ? workspace.get<float>(Workspace::blocks, r.tokens * r.segments) : nullptr;
    sums = workspace.get<std::int32_t>(Workspace::sums, r.tokens * r.segments);
  }
  RoundedActivations activations() const {
    RoundedActivations r = made;
    r.codes = codes, r.scales = scales, r.blocks = blocks, r.sums = sums;
    return r;
  }

  /// Token t is `in`. Its codes go to `out`: codes + t * stride, or elsewhere if only tilings read them.
  void round(Index t, const float* in, ActivationMode mode, std::int8_t* out) const {
    const RoundedActivations& r = made;
    scales[t] = blocks ? 1.0f : round_token(in, r.cols, out, mode.scale());
    // Segments move to their places from the last on, since places only grow.
    Index at = r.stride, end = r.cols;
    for (Index s = r.segments; s-- > 0;) {
      const Index in_group = (end - 1) % r.group, first = end - 1 - in_group % r.segment_cols, n = end - first;
      at -= round_up(n, 4);
      if (blocks)
        blocks[t * r.segments + s] = round_token(in + first, n, out + at);
      else if (at != first)
        std::memmove(out + at, out + first, static_cast<std::size_t>(n));
      for (Index i = n; i % 4 != 0; ++i) out[at + i] = 0;
      sums[t * r.segments + s] = sum_of(out + at, n);
      end = first;
    }
  }

  /// The values of token t, once it is rounded.
  void read(Index t, const std::int8_t* from, float* out) const {
    const RoundedActivations& r = made;
    Index s = 0;
    for (Segment segment(r.cols, r.group, r.segment_cols); !segment.done(); segment.next(), ++s) {
      const float scale = blocks ? blocks[t * r.segments + s] : scales[t];
      for (Index i = 0; i < segment.length; ++i) out[segment.first + i] = scale * static_cast<float>(from[i]);
      from += round_up(segment.length, 4);
    }
  }
};

}  // namespace detail

/// For products with weights whose groups have `group` columns.
template <Executor E>
RoundedActivations round_activations(ConstMatrix x, Index group, ActivationMode mode, Workspace& workspace, E&& executor) {
  const detail::RoundingTask task(x.rows, x.cols, group, mode, workspace);
  executor.parallel_for(x.rows, 1, [&](Index begin, Index end) {
    for (Index t = begin; t < end; ++t) task.round(t, x.data + t * x.stride, mode, task.codes + t * task.made.stride);
  });
  return task.activations();
}

}  // namespace ANYBIT_CODE
}  // namespace anybit::kernel

#include <anybit/core/macros_end.hpp>
