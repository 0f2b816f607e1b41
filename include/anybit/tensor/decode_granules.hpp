#pragma once
// Weights of a scheme that decodes granule by granule, whole or not.

#include <anybit/core/macros_begin.hpp>

#include <algorithm>
#include <cstring>

#include <anybit/scheme/concepts.hpp>

namespace anybit {
inline namespace ANYBIT_CODE {

namespace granules {
/// S::decode as an object.
template <class S>
struct DecoderOf {
  struct type {
    explicit ANYBIT_INLINE type(Sections) {}
    ANYBIT_INLINE void operator()(Sections s, Extents e, Index row, Index col, float* out) const {
      S::decode(s, e, row, col, out);
    }
  };
};
template <class S>
  requires requires { typename S::Decoder; }
struct DecoderOf<S> {
  using type = typename S::Decoder;
};
}  // namespace granules

/// Columns first .. first + n - 1 of rows row .. row + rows - 1, all of which exist; rows are `stride` apart in `out`.
template <PackedScheme S>
void decode_granules(Sections sections, Extents e, Index row, Index rows, Index first, Index n, float* out, Index stride) {
  constexpr Index height = S::granule_rows, width = S::granule_cols;
  float granule[static_cast<std::size_t>(height * width)];
  const typename granules::DecoderOf<S>::type decode(sections);
  for (Index r = row / height * height; r < row + rows; r += height)
    for (Index c = first / width * width; c < first + n; c += width) {
      decode(sections, e, r, c, granule);
      const Index from = std::max(c, first), count = std::min(c + width, first + n) - from;
      for (Index i = std::max(r, row); i < std::min(r + height, row + rows); ++i)
        std::memcpy(out + (i - row) * stride + (from - first), granule + (i - r) * width + (from - c),
                    static_cast<std::size_t>(count) * sizeof(float));
    }
}

}  // namespace ANYBIT_CODE
}  // namespace anybit

#include <anybit/core/macros_end.hpp>
