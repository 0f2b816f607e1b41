#pragma once
// Activations rounded to 8 bits, laid out for the integer kernels.

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

/// Rounds one token: scale = largest magnitude / 127, code = x / scale, ties to even. Returns the scale.
inline float round_token(const float* x, Index n, std::int8_t* codes) {
  float largest = 0;
  bool finite = true;
  for (Index i = 0; i < n; ++i) {
    const float a = std::fabs(x[i]);
    finite = finite && a <= std::numeric_limits<float>::max();
    largest = a > largest ? a : largest;
  }
  const float scale = largest / 127.0f;
  if (!finite || scale == 0) {
    std::fill(codes, codes + n, std::int8_t{0});
    return finite ? 0.0f : std::numeric_limits<float>::quiet_NaN();
  }
  const simd::f32 divisor = simd::broadcast(scale), top = simd::broadcast(127.0f), bottom = simd::broadcast(-127.0f);
  std::int32_t lanes[static_cast<std::size_t>(simd::width)];
  for (Index i = 0; i < n; i += simd::width) {
    const Index count = std::min(simd::width, n - i);
    // A subnormal scale is rounded coarsely: clamp.
    const simd::f32 v = simd::divide(simd::load_partial(x + i, count), divisor);
    simd::store(lanes, simd::round_to_i32(simd::min(simd::max(v, bottom), top)));
    for (Index j = 0; j < count; ++j) codes[i + j] = static_cast<std::int8_t>(lanes[j]);
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
