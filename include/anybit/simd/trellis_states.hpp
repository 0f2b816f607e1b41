#pragma once
// Sixteen states of a bitshift trellis at once, from the bits of a tile in registers.

#include <anybit/core/macros_begin.hpp>

#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <type_traits>

#include <anybit/core/isa.hpp>
#include <anybit/simd/xsimd_compat.hpp>

ANYBIT_VECTOR_CODE_BEGIN
namespace anybit::simd {
inline namespace ANYBIT_CODE {

/// words[index], lane by lane. If they are `near`, indices are 0 to 7, and 16 words can be read.
template <bool near>
ANYBIT_INLINE u32 pick(const std::uint32_t* words, u32 index) {
#if ANYBIT_HAS_AVX512
  if constexpr (near)
    return u32(_mm512_permutexvar_epi32(index, _mm512_loadu_si512(words)));
  else
    return u32(_mm512_i32gather_epi32(index, words, 4));
#elif ANYBIT_HAS_AVX2
  if constexpr (near)
    return u32(_mm256_permutevar8x32_epi32(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(words)), index));
  else
    return u32(_mm256_i32gather_epi32(reinterpret_cast<const int*>(words), index, 4));
#else
  std::uint32_t at[static_cast<std::size_t>(width)];
  store(at, index);
  for (Index i = 0; i < width; ++i) at[i] = words[at[i]];
  return load(at);
#endif
}
/// The lower halves of (high : low) >> count, lane by lane, counts 0 to 31.
template <class = void>
ANYBIT_INLINE u32 shift_right(u32 high, u32 low, u32 count) {
#if ANYBIT_HAS_AVX512_VBMI2
  return u32(_mm512_shrdv_epi32(low, high, count));
#else
  return shift_right(low, count) | shift_left(shift_left(high, 1), broadcast(std::uint32_t{31}) - count);
#endif
}
/// The lower halves of products.
template <class = void>
ANYBIT_INLINE u32 multiply(u32 a, u32 b) {
  return a * b;
}

/// Rounded to binary16, ties to even.
template <class = void>
ANYBIT_INLINE f32 round_to_f16(f32 v) {
#if ANYBIT_HAS_AVX512
  return f32(_mm512_cvtph_ps(_mm512_cvtps_ph(v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC)));
#elif ANYBIT_HAS_AVX2
  return f32(_mm256_cvtph_ps(_mm256_cvtps_ph(v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC)));
#else
  std::uint16_t halves[static_cast<std::size_t>(width)];
  store_f16(halves, v);
  return load_f16(halves);
#endif
}

/// A tile whose states are wanted in groups of 16: bits as BitshiftTrellis<L, K, Words> has them, `steps` steps. Order::step(g,
/// i) is the step of lane i of group g.
template <int L, int K, bool Words, Index steps, class Order>
class TileStates {
  static constexpr std::size_t count = static_cast<std::size_t>(steps * K / 32), groups = static_cast<std::size_t>(steps / 16);

 public:
  /// Groups of 16 states in a tile, each from the last word that the one before it touched on.
  explicit ANYBIT_INLINE TileStates(const std::byte* tile) {
#if ANYBIT_HAS_AVX512
    if constexpr (in_registers) {
      low_ = load_words<(count < 16 ? count : 16)>(tile);
      if constexpr (count > 16) high_ = load_words<count - 16>(tile + 64);
      return;
    }
#endif
    std::memcpy(words_.data() + (Words ? 1 : 0), tile, count * 4);
    words_[Words ? 0 : count] = words_[Words ? count : 0];  // the loop's end comes before its start
  }
  /// States 16 group + first .. of lanes first .. first + width - 1.
  ANYBIT_INLINE u32 states(Index group, Index first) const {
    const auto g = static_cast<std::size_t>(group);
    const u32 behind = load(places.behind[g].data() + first);
    u32 state;
#if ANYBIT_HAS_AVX512
    if constexpr (in_registers) {
      state = shift_right(word(places.before[g].data()), word(places.word[g].data()), behind);
    } else
#endif
    {
      const u32 at = load(places.offset[g].data() + first);
      const std::uint32_t* const from = words_.data() + places.start[g];  // the words before, in the loop, stand beside
      state = shift_right(pick<places.near>(from + (Words ? 0 : 1), at), pick<places.near>(from + (Words ? 1 : 0), at), behind);
    }
    return state & broadcast((std::uint32_t{1} << L) - 1);
  }

 private:
  /// Of the last bit of each state of a group: its word in memory, the word before it in the loop, the word counted from the
  /// first one of the group, and how many bits of the word are behind it.
  struct Places {
    std::array<std::array<std::uint32_t, 16>, groups> word{}, before{}, offset{}, behind{};
    std::array<std::uint32_t, groups> start{};
    bool near = true;
  };
  static constexpr Places places = [] {
    Places p;
    for (std::size_t g = 0; g < groups; ++g) {
      p.start[g] = static_cast<std::uint32_t>(count);
      for (std::size_t i = 0; i < 16; ++i) {
        const auto step = static_cast<std::size_t>(Order::step(static_cast<Index>(g), static_cast<Index>(i)));
        const std::size_t last = (step + 1) * K - 1;
        const auto place = [](std::size_t word) { return static_cast<std::uint32_t>(Words ? word : count - 1 - word); };
        p.word[g][i] = place(last / 32);
        p.before[g][i] = place((last / 32 + count - 1) % count);
        p.behind[g][i] = static_cast<std::uint32_t>(31 - last % 32);
        if (p.word[g][i] < p.start[g]) p.start[g] = p.word[g][i];
      }
      for (std::size_t i = 0; i < 16; ++i) {
        p.offset[g][i] = p.word[g][i] - p.start[g];
        p.near = p.near && p.offset[g][i] < 8;
      }
    }
    return p;
  }();

#if ANYBIT_HAS_AVX512
  static constexpr bool in_registers = count <= 32;
  /// 4, 8, 12 or 16 words. Loads under a mask that cross a cache line take several times as long (Zen 5).
  template <std::size_t n>
  static ANYBIT_INLINE __m512i load_words(const std::byte* p) {
    const auto four = [](const std::byte* at) { return _mm_loadu_si128(reinterpret_cast<const __m128i*>(at)); };
    const auto eight = [](const std::byte* at) { return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(at)); };
    if constexpr (n == 16)
      return _mm512_loadu_si512(p);
    else if constexpr (n == 12)
      return _mm512_inserti64x4(_mm512_castsi256_si512(eight(p)), _mm256_castsi128_si256(four(p + 32)), 1);
    else if constexpr (n == 8)
      return _mm512_castsi256_si512(eight(p));
    else
      return _mm512_castsi128_si512(four(p));
  }
  ANYBIT_INLINE u32 word(const std::uint32_t* index) const {
    if constexpr (count > 16)
      return u32(_mm512_permutex2var_epi32(low_, _mm512_loadu_si512(index), high_));
    else
      return u32(_mm512_permutexvar_epi32(_mm512_loadu_si512(index), low_));
  }
  __m512i low_, high_;
#else
  static constexpr bool in_registers = false;
#endif
  alignas(64) std::array<std::uint32_t, in_registers ? 1 : count + 17> words_;
};

/// The same of a tile in the form of one number, whose groups are 16 successive steps each: the states of a group are windows of
/// neighbouring bits, 2 K bytes and the bits before them.
template <int L, int K, Index steps>
class RunStates {
#if ANYBIT_HAS_AVX2
  static constexpr Index groups = steps / 16, group_bytes = 2 * K;
  static constexpr bool in_order = K <= 7;  // then 16 windows lie within 16 bytes, and each, wherever it begins, within 3
#if ANYBIT_HAS_AVX512_VBMI
  static constexpr bool short_group = 15 * K + L <= 64;
#else
  static constexpr bool short_group = false;
#endif

 public:
  explicit ANYBIT_INLINE RunStates(const std::byte* tile) : tile_(tile), plain_(tile) {}
  /// States 16 group + first .. of lanes first .. first + width - 1.
  ANYBIT_INLINE u32 states(Index group, Index first) const {
    if constexpr (!in_order) {
      return plain_.states(group, first);
    } else {
#if ANYBIT_HAS_AVX512_VBMI
      if constexpr (short_group) {
        // A window of 16 bits is two of 8, which one instruction takes from anywhere in 64 bits.
        const __m512i bits = K == 1 ? _mm512_set1_epi32(static_cast<int>(four_bytes(group)))
                                    : _mm512_set1_epi64(static_cast<long long>(eight_bytes(group)));
        const auto window = u32(_mm512_maskz_multishift_epi64_epi8(L > 8 ? 0x3333333333333333u : 0x1111111111111111u,
                                                                   _mm512_load_si512(windows.data()), bits));
        return L % 8 == 0 ? window : window & broadcast((std::uint32_t{1} << L) - 1);
      }
#endif
      const __m128i bits = sixteen_bytes(group);
#if ANYBIT_HAS_AVX512
      const __m512i bytes = _mm512_shuffle_epi8(_mm512_broadcast_i32x4(bits), _mm512_load_si512(bytes_of.data()));
      const auto window = u32(_mm512_srlv_epi32(bytes, _mm512_load_si512(behind.data())));
#else
      const __m256i bytes = _mm256_shuffle_epi8(_mm256_broadcastsi128_si256(bits),
                                                _mm256_load_si256(reinterpret_cast<const __m256i*>(bytes_of.data() + 4 * first)));
      const auto window =
          u32(_mm256_srlv_epi32(bytes, _mm256_load_si256(reinterpret_cast<const __m256i*>(behind.data() + first))));
#endif
      return window & broadcast((std::uint32_t{1} << L) - 1);
    }
  }

 private:
  template <class Word>
  static ANYBIT_INLINE Word load_word(const std::byte* p) {
    Word w;
    std::memcpy(&w, p, sizeof w);
    return w;
  }
  ANYBIT_INLINE const std::byte* at(Index group) const { return tile_ + (groups - 1 - group) * group_bytes; }
  /// A group's bits, lowest, and those before them in the loop: 4, 8 or 16 bytes, those that K needs, so that nothing beyond the
  /// tile is read.
  ANYBIT_INLINE std::uint32_t four_bytes(Index group) const {
    if (group > 0) return load_word<std::uint32_t>(at(group));
    return static_cast<std::uint32_t>(load_word<std::uint16_t>(at(0))) |
           static_cast<std::uint32_t>(load_word<std::uint16_t>(tile_)) << 16;
  }
  ANYBIT_INLINE std::uint64_t eight_bytes(Index group) const {
    if (group > 0) return load_word<std::uint64_t>(at(group));
    return load_word<std::uint64_t>(at(0) + group_bytes - 8) >> (64 - 8 * group_bytes) | load_word<std::uint64_t>(tile_)
                                                                                             << (8 * group_bytes);
  }
  ANYBIT_INLINE __m128i sixteen_bytes(Index group) const {
    if constexpr (K == 1) {
      return _mm_cvtsi32_si128(static_cast<int>(four_bytes(group)));
    } else if constexpr (K < 4) {
      return _mm_cvtsi64_si128(static_cast<long long>(eight_bytes(group)));
    } else {
      if (group > 0) return _mm_loadu_si128(reinterpret_cast<const __m128i*>(at(group)));
      constexpr int above = 8 * (16 - group_bytes);  // bits of the upper half that come from before, at least 16
      const std::uint64_t before = load_word<std::uint64_t>(tile_);
      const std::uint64_t upper =
          above == 64 ? before
                      : load_word<std::uint64_t>(at(0) + group_bytes - 8) >> (above % 64) | before << ((64 - above) % 64);
      return _mm_set_epi64x(static_cast<long long>(upper), static_cast<long long>(load_word<std::uint64_t>(at(0))));
    }
  }

  static constexpr int behind_of(std::size_t lane) { return static_cast<int>(15 - lane) * K; }
  /// Of each lane: its two windows of 8 bits for multishift; the bytes from which its state begins; and the bit of the first
  /// byte.
  alignas(64) static constexpr std::array<std::uint8_t, 64> windows = [] {
    std::array<std::uint8_t, 64> w{};
    for (std::size_t i = 0; i < 64; ++i) w[i] = static_cast<std::uint8_t>((behind_of(i / 4) + 8 * static_cast<int>(i % 4)) % 64);
    return w;
  }();
  alignas(64) static constexpr std::array<std::uint8_t, 64> bytes_of = [] {
    std::array<std::uint8_t, 64> b{};
    for (std::size_t i = 0; i < 64; ++i)
      b[i] = i % 4 == 3 ? 0x80 : static_cast<std::uint8_t>(behind_of(i / 4) / 8 + static_cast<int>(i % 4));
    return b;
  }();
  alignas(64) static constexpr std::array<std::uint32_t, 16> behind = [] {
    std::array<std::uint32_t, 16> b{};
    for (std::size_t i = 0; i < 16; ++i) b[i] = static_cast<std::uint32_t>(behind_of(i) % 8);
    return b;
  }();
  const std::byte* tile_;
#else
 public:
  explicit ANYBIT_INLINE RunStates(const std::byte* tile) : plain_(tile) {}
  ANYBIT_INLINE u32 states(Index group, Index first) const { return plain_.states(group, first); }

 private:
  static constexpr bool in_order = false;
#endif
  struct InOrder {
    static constexpr Index step(Index g, Index i) { return 16 * g + i; }
  };
  struct Nothing {
    explicit ANYBIT_INLINE Nothing(const std::byte*) {}
  };
  [[no_unique_address]] std::conditional_t<in_order, Nothing, TileStates<L, K, false, steps, InOrder>> plain_;
};

}  // namespace ANYBIT_CODE
}  // namespace anybit::simd
ANYBIT_VECTOR_CODE_END

#include <anybit/core/macros_end.hpp>
