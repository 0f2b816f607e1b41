#pragma once
// How many of up to 2^Bits - 1 sorted steps lie below a value, by halves, whole vectors at once.

#include <algorithm>
#include <cstddef>
#include <limits>
#include <utility>

#include <anybit/simd/xsimd_compat.hpp>

ANYBIT_VECTOR_CODE_BEGIN
namespace anybit::simd {
inline namespace ANYBIT_CODE {

/// The tree of a search: the middle step first, then the middles of both halves, .. Levels stand one behind the other, of 2^level
/// nodes, level 0 twice.
template <class Step>
void plant_search(int bits, int count, Step step, float* tree) {
  tree[0] = std::numeric_limits<float>::infinity();
  for (int level = 0; level < bits; ++level)
    for (int n = 0; n < 1 << level; ++n) {
      const int i = (2 * n + 1) * (1 << (bits - 1 - level)) - 1;
      tree[(1 << level) + n] = i < count ? step(i) : std::numeric_limits<float>::infinity();
    }
}

/// `tree` are the 2^Bits floats of plant_search. They must stay there: what no registers hold is read again.
template <int Bits>
class StepSearch {
  static_assert(Bits >= 1 && Bits <= 8);

  template <int Level>
  struct Nodes {
    Table<(1 << Level)> table;
    explicit ANYBIT_INLINE Nodes(const float* tree) : table(tree + (1 << Level)) {}
  };
  template <class>
  struct AllNodes;
  template <std::size_t... Level>
  struct AllNodes<std::index_sequence<Level...>> : Nodes<static_cast<int>(Level) + 1>... {
    explicit ANYBIT_INLINE AllNodes([[maybe_unused]] const float* tree) : Nodes<static_cast<int>(Level) + 1>(tree)... {}
  };
  using Levels = std::make_index_sequence<static_cast<std::size_t>(Bits - 1)>;

 public:
  explicit ANYBIT_INLINE StepSearch(const float* tree) : middle_(broadcast(tree[1])), nodes_(tree) {}

  /// Of finite x. Of every step that is not finite no x is above.
  template <std::size_t Vectors>
  ANYBIT_INLINE void operator()(const f32 (&x)[Vectors], i32 (&at)[Vectors]) const {
#pragma GCC unroll 4
    for (std::size_t v = 0; v < Vectors; ++v) at[v] = append_greater(broadcast(std::int32_t{0}), x[v], middle_);
    [&]<std::size_t... Level>(std::index_sequence<Level...>)
        __attribute__((always_inline)) { (level<static_cast<int>(Level) + 1>(x, at), ...); }(Levels());
  }

 private:
  template <int Level, std::size_t Vectors>
  ANYBIT_INLINE void level(const f32 (&x)[Vectors], i32 (&at)[Vectors]) const {
#pragma GCC unroll 4
    for (std::size_t v = 0; v < Vectors; ++v)
      at[v] = append_greater(at[v], x[v], static_cast<const Nodes<Level>&>(nodes_).table[at[v]]);
  }

  f32 middle_;
  AllNodes<Levels> nodes_;
};

}  // namespace ANYBIT_CODE
}  // namespace anybit::simd
ANYBIT_VECTOR_CODE_END
