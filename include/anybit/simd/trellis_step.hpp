#pragma once
// A step of Viterbi's search through a bitshift trellis (scheme/trellis_code.hpp), vectorized over the states.

#include <anybit/core/macros_begin.hpp>

#include <array>
#include <cstdint>
#include <cstring>

#include <anybit/core/isa.hpp>
#include <anybit/simd/xsimd_compat.hpp>

ANYBIT_VECTOR_CODE_BEGIN
namespace anybit::simd {
inline namespace ANYBIT_CODE {

/// Lane i gets from[i >> K]; at least width elements of `from` can be read.
template <int K>
ANYBIT_INLINE f32 spread(const float* from) {
#if ANYBIT_HAS_AVX512
  if constexpr (K == 1)
    return f32(_mm512_permutexvar_ps(_mm512_setr_epi32(0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6, 7, 7),
                                     _mm512_castps256_ps512(_mm256_loadu_ps(from))));
  else if constexpr (K == 2)
    return f32(_mm512_permutevar_ps(_mm512_broadcast_f32x4(_mm_loadu_ps(from)),
                                    _mm512_setr_epi32(0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3)));
  else if constexpr (K == 3)
    return f32(_mm512_permutexvar_ps(_mm512_setr_epi32(0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1),
                                     _mm512_castps128_ps512(_mm_loadu_ps(from))));
#elif ANYBIT_HAS_AVX2
  if constexpr (K == 1)
    return f32(_mm256_permutevar8x32_ps(_mm256_castps128_ps256(_mm_loadu_ps(from)), _mm256_setr_epi32(0, 0, 1, 1, 2, 2, 3, 3)));
  else if constexpr (K == 2)
    return f32(_mm256_permutevar8x32_ps(_mm256_castps128_ps256(_mm_loadu_ps(from)), _mm256_setr_epi32(0, 0, 0, 0, 1, 1, 1, 1)));
#endif
  if constexpr ((width >> K) <= 1) {
    return broadcast(*from);
  } else {
    float lanes[static_cast<std::size_t>(width)];
    for (Index i = 0; i < width; ++i) lanes[i] = from[i >> K];
    return load(lanes);
  }
}

/// Which of 2^K predecessors is the best, for `width` edges: K bits for each lane.
template <int K>
class PredecessorChoice {
 public:
#if ANYBIT_HAS_AVX512
  /// Bit b of all lanes stands in plane b, 16 bits.
  static constexpr Index bytes = 2 * K;
  ANYBIT_INLINE PredecessorChoice() : index_(_mm512_setzero_si512()) {}
  /// Where cost < best, j becomes the choice and best the cost.
  ANYBIT_INLINE void consider(f32 cost, int j, f32& best) {
    index_ = _mm512_mask_mov_epi32(index_, _mm512_cmp_ps_mask(cost, best, _CMP_LT_OQ), _mm512_set1_epi32(j));
    best = _mm512_min_ps(cost, best);
  }
  ANYBIT_INLINE void store(std::uint8_t* to) const {
    for (int b = 0; b < K; ++b) {
      const auto plane = static_cast<std::uint16_t>(_mm512_test_epi32_mask(index_, _mm512_set1_epi32(1 << b)));
      std::memcpy(to + 2 * b, &plane, 2);
    }
  }
  static ANYBIT_INLINE std::uint32_t read(const std::uint8_t* from, Index lane) {
    std::uint32_t j = 0;
    for (int b = 0; b < K; ++b) j |= static_cast<std::uint32_t>(from[2 * b + lane / 8] >> (lane % 8) & 1) << b;
    return j;
  }

 private:
  __m512i index_;
#else
  static constexpr Index bytes = width;
  ANYBIT_INLINE PredecessorChoice() : index_(zero()) {}
  ANYBIT_INLINE void consider(f32 cost, int j, f32& best) {
    index_ = select_greater(best, cost, broadcast(static_cast<float>(j)), index_);
    best = min(cost, best);
  }
  ANYBIT_INLINE void store(std::uint8_t* to) const { store_u8(to, round_to_i32(index_)); }
  static ANYBIT_INLINE std::uint32_t read(const std::uint8_t* from, Index lane) { return from[lane]; }

 private:
  f32 index_;
#endif
};

/// Costs of the 2^(L - K) = `edges` edges after a step, from those before it: state s = j edges + m, entered through the edge
/// s >> K, leads to edge m, at the cost of sum over v of (root[v] value_v(s) - target[v])^2. `table` has the values by blocks of
/// `width` edges m, then j, then v. `from` and `to` hold edges and 2 width more; `choices` gets a PredecessorChoice<K> for each
/// block.
template <int K, Index V>
void trellis_step(const float* table, Index edges, const float* from, const std::array<float, static_cast<std::size_t>(V)>& root,
                  const std::array<float, static_cast<std::size_t>(V)>& target, float* to, std::uint8_t* choices) {
  constexpr Index count = Index{1} << K;
  f32 by[static_cast<std::size_t>(V)], minus[static_cast<std::size_t>(V)];
  for (Index v = 0; v < V; ++v) {
    by[v] = broadcast(root[static_cast<std::size_t>(v)]);
    minus[v] = broadcast(-target[static_cast<std::size_t>(v)]);
  }
  for (Index m = 0; m < edges; m += width) {
    const auto cost = [&](Index j) __attribute__((always_inline)) {
      f32 sum = spread<K>(from + ((j * edges + m) >> K));
#pragma GCC unroll 4
      for (Index v = 0; v < V; ++v) {
        const f32 d = fma(load(table + (j * V + v) * width), by[v], minus[v]);
        sum = fma(d, d, sum);
      }
      return sum;
    };
    PredecessorChoice<K> choice;
    f32 best = cost(0);
#pragma GCC unroll 16
    for (Index j = 1; j < count; ++j) choice.consider(cost(j), static_cast<int>(j), best);
    store(to + m, best);
    choice.store(choices);
    table += count * V * width;
    choices += PredecessorChoice<K>::bytes;
  }
}

}  // namespace ANYBIT_CODE
}  // namespace anybit::simd
ANYBIT_VECTOR_CODE_END

#include <anybit/core/macros_end.hpp>
