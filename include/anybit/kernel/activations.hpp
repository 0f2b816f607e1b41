#pragma once
// Activations rounded to 8 bits, laid out for the integer kernels.

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>

#include <anybit/core/view.hpp>
#include <anybit/exec/executor.hpp>
#include <anybit/kernel/compute.hpp>
#include <anybit/simd/xsimd_compat.hpp>

namespace anybit::kernel::inline ANYBIT_CODE {

/// The integer kernels cut a row into segments: a group, or a piece of one of at most this many columns. Within a segment
/// sums are integers below 2^24 (512 * 255 * 127), which float holds exactly.
inline constexpr Index max_segment = 512;
static_assert(max_segment * 255 * 127 < 1 << 24);

/// Walks over the segments of a row, without a division.
class Segment {
 public:
  Index first = 0, length, group = 0;

  ANYBIT_INLINE Segment(Index cols, Index group_cols)
      : length(std::min({cols, group_cols, max_segment})), cols_(cols), group_cols_(group_cols), group_end_(group_cols) {}
  ANYBIT_INLINE bool done() const { return first >= cols_; }
  ANYBIT_INLINE Index end() const { return first + length; }
  ANYBIT_INLINE void next() {
    first += length;
    if (first == group_end_) ++group, group_end_ += group_cols_;
    length = std::min({cols_ - first, group_end_ - first, max_segment});
  }

 private:
  Index cols_, group_cols_, group_end_;
};

/// token t = scales[t] * codes. Every segment starts at a multiple of 4 codes; the gaps are 0.
/// A token with NaN or infinity has scale NaN and codes 0, so that its outputs are NaN and no other's are touched.
struct RoundedActivations {
  Index tokens = 0, cols = 0, group = 1, segments = 0, stride = 0;
  const std::int8_t* codes = nullptr;  ///< tokens x stride and 64 more that may be read, |code| <= 127
  const float* scales = nullptr;       ///< a token
  const std::int32_t* sums = nullptr;  ///< tokens x segments: the sum of a segment's codes
};

/// Rounds one token: scale = largest magnitude / 127, code = x / scale, ties to even. Returns the scale. Writes nothing past n.
inline float round_token(const float* x, Index n, std::int8_t* codes) {
  constexpr Index w = simd::width;
  const Index whole = n / w * w;
  // As integers, magnitudes are in the same order, and infinity and NaN are above all others.
  const simd::u32 magnitude = simd::broadcast(std::uint32_t{0x7FFFFFFF});
  simd::i32 most[4] = {simd::broadcast(0), simd::broadcast(0), simd::broadcast(0), simd::broadcast(0)};
  const auto see = [&](Index chain, simd::f32 v) __attribute__((always_inline)) {
    most[chain] = simd::max(most[chain], simd::as_i32(simd::as_u32(v) & magnitude));
  };
  Index i = 0;
  for (; i + 4 * w <= n; i += 4 * w)
#pragma GCC unroll 4
    for (Index c = 0; c < 4; ++c) see(c, simd::load(x + i + c * w));
  for (; i < n; i += w) see(0, simd::load_partial(x + i, std::min(w, n - i)));
  std::int32_t lanes[static_cast<std::size_t>(w)];
  simd::store(lanes, simd::max(simd::max(most[0], most[1]), simd::max(most[2], most[3])));
  const float largest = std::bit_cast<float>(*std::max_element(lanes, lanes + w));
  const bool finite = largest <= std::numeric_limits<float>::max();
  const float scale = largest / 127.0f;
  if (!finite || scale == 0) {
    std::fill(codes, codes + n, std::int8_t{0});
    return finite ? 0.0f : std::numeric_limits<float>::quiet_NaN();
  }
  const simd::f32 divisor = simd::broadcast(scale), top = simd::broadcast(127.0f), bottom = simd::broadcast(-127.0f);
  // A subnormal scale is rounded coarsely: clamp.
  const auto rounded = [&](simd::f32 v) __attribute__((always_inline)) {
    return simd::round_to_i32(simd::min(simd::max(simd::divide(v, divisor), bottom), top));
  };
  for (i = 0; i < whole; i += w) simd::store_i8(codes + i, rounded(simd::load(x + i)));
  if (whole < n) {
    simd::store(lanes, rounded(simd::load_partial(x + whole, n - whole)));
    for (i = whole; i < n; ++i) codes[i] = static_cast<std::int8_t>(lanes[i - whole]);
  }
  return scale;
}

/// For products with weights whose groups have `group` columns.
template <Executor E>
RoundedActivations round_activations(ConstMatrix x, Index group, Workspace& workspace, E&& executor) {
  RoundedActivations r;
  r.tokens = x.rows, r.cols = x.cols, r.group = group;
  for (Segment s(x.cols, group); !s.done(); s.next(), ++r.segments) r.stride += round_up(s.length, 4);
  auto* codes = workspace.get<std::int8_t>(Workspace::codes, r.tokens * r.stride + 64);
  auto* scales = workspace.get<float>(Workspace::scales, r.tokens);
  auto* sums = workspace.get<std::int32_t>(Workspace::sums, r.tokens * r.segments);
  executor.parallel_for(x.rows, 1, [&](Index begin, Index last) {
    for (Index t = begin; t < last; ++t) {
      std::int8_t* out = codes + t * r.stride;
      scales[t] = round_token(x.data + t * x.stride, x.cols, out);
      // Segments move to their places from the last on, since places only grow.
      Index at = r.stride, end = x.cols;
      for (Index s = r.segments; s-- > 0;) {
        const Index in_group = (end - 1) % group, first = end - 1 - in_group % max_segment, n = end - first;
        at -= round_up(n, 4);
        if (at != first) std::memmove(out + at, out + first, static_cast<std::size_t>(n));
        for (Index i = n; i % 4 != 0; ++i) out[at + i] = 0;
        std::int32_t sum = 0;
        for (Index i = 0; i < n; ++i) sum += out[at + i];
        sums[t * r.segments + s] = sum;
        end = first;
      }
    }
  });
  r.codes = codes, r.scales = scales, r.sums = sums;
  return r;
}

/// The values that the rounded codes stand for, as a matrix in the workspace: for formats without an integer form.
template <Executor E>
ConstMatrix rounded_values(ConstMatrix x, Workspace& workspace, E&& executor) {
  auto* values = workspace.get<float>(Workspace::rounded, x.rows * x.cols);
  const RoundedActivations r = round_activations(x, std::max<Index>(x.cols, 1), workspace, executor);
  executor.parallel_for(x.rows, 1, [&](Index begin, Index end) {
    for (Index t = begin; t < end; ++t)
      for (Index i = 0; i < x.cols; ++i) values[t * x.cols + i] = r.scales[t] * static_cast<float>(r.codes[t * r.stride + i]);
  });
  return {values, x.rows, x.cols};
}

}  // namespace anybit::kernel::inline ANYBIT_CODE
