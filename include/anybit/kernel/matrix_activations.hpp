#pragma once
// Rounded activations in the order of matrix instructions: blocks of 16 tokens by 64 columns, each contiguous. Blocks of 16
// tokens follow one another, then those of the next 16. A segment of the weights starts with a block of its own; past its end and
// past the last token are zeros.

#include <anybit/core/macros_begin.hpp>

#include <algorithm>
#include <cstring>

#include <anybit/kernel/activations.hpp>
#include <anybit/kernel/dot_vocabulary.hpp>
#include <anybit/kernel/tile_format.hpp>

namespace anybit::kernel {
inline namespace ANYBIT_CODE {

namespace detail {

inline constexpr Index matrix_steps = 16;  ///< steps of 4 columns in one
inline constexpr Index matrix_bytes = matrix_tokens * line_bytes;

/// Blocks of 64 columns that a segment of so many steps takes.
constexpr Index matrix_blocks(Index steps) { return ceil_div(steps, matrix_steps); }

/// A chunk is as many consecutive segments of a row as have so many blocks together: 512 columns, unless segments are short or
/// ragged. Sums of its products in 8 bits are below 2^24, which float holds exactly, whatever the weights' signs.
inline constexpr Index chunk_blocks = 8;
static_assert(chunk_blocks * matrix_steps * 4 >= max_segment);

/// Where the chunk ends that begins with segment `first`; steps(s) are a segment's.
template <class Steps>
inline Index chunk_end(Index first, Index segments, Steps&& steps) {
  Index last = first;
  for (Index blocks = 0; last < segments && (blocks += matrix_blocks(steps(last))) <= chunk_blocks;) ++last;
  return last;
}
/// Calls use(first segment, end) for every chunk of activations.
template <class Use>
inline void each_chunk_of(const RoundedActivations& x, Use&& use) {
  Segment segment(x.cols, x.group, x.segment_cols);
  for (Index first = 0, last = 0; !segment.done(); first = last) {
    for (Index blocks = 0; !segment.done() && (blocks += matrix_blocks(ceil_div(segment.length, 4))) <= chunk_blocks; ++last)
      segment.next();
    use(first, last);
  }
}
inline Index chunk_count(const RoundedActivations& x) {
  Index n = 0;
  each_chunk_of(x, [&n](Index, Index) { ++n; });
  return n;
}

/// Bytes of a token.
inline Index matrix_stride(const RoundedActivations& x) {
  Index blocks = 0;
  for (Segment s(x.cols, x.group, x.segment_cols); !s.done(); s.next()) blocks += matrix_blocks(ceil_div(s.length, 4));
  return blocks * line_bytes;
}

/// Puts one token, whose codes start at `from`, where it belongs in `codes`; zeros if it is past the last.
inline void arrange_for_matrix(const RoundedActivations& x, Index token, const std::int8_t* from, Index stride,
                               std::int8_t* codes) {
  std::int8_t* to = codes + token / matrix_tokens * matrix_tokens * stride + token % matrix_tokens * line_bytes;
  for (Segment s(x.cols, x.group, x.segment_cols); !s.done(); s.next())
    for (Index left = round_up(s.length, 4); left > 0; left -= line_bytes, to += matrix_bytes) {
      const Index n = token < x.tokens ? std::min(left, line_bytes) : 0;
      std::memcpy(to, from, static_cast<std::size_t>(n));
      std::memset(to + n, 0, static_cast<std::size_t>(line_bytes - n));
      from += n;
    }
}

}  // namespace detail

}  // namespace ANYBIT_CODE
}  // namespace anybit::kernel

#include <anybit/core/macros_end.hpp>
