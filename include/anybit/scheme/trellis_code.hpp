#pragma once
// The bitshift trellis (Tseng et al. 2024, "QTIP", arXiv:2406.11235): a state of L bits takes in K new bits a step and forgets
// its K oldest, and each state stands for a value. A loop of steps is stored as its new bits alone.

#include <array>
#include <bit>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <string_view>
#include <type_traits>

#include <anybit/core/fixed_string.hpp>
#include <anybit/core/types.hpp>

namespace anybit {
inline namespace ANYBIT_ABI {

/// state <- (state << K | new bits) mod 2^L. Two states follow each other if the last L - K bits of the one are the first L - K
/// bits of the other: these bits are the edge between them. A sequence is a loop: its last state leads to its first
/// (tail-biting), so that n steps take n K bits.
/// A loop is stored as one little-endian number whose highest bits are the first step's, so that a state is a window of the bits
/// in memory; with `Words`, as EXL3 has it, in little-endian words of 32 bits, the first step's word first.
template <int L, int K, bool Words = false>
struct BitshiftTrellis {
  static_assert(L >= 4 && L <= 16, "anybit: a trellis has 4 to 16 bits of state");
  static_assert(K >= 1 && K <= 8 && 2 * K <= L, "anybit: a step of a trellis takes in 1 to 8 bits, at most half of the state");
  static constexpr int state_bits = L, step_bits = K;
  static constexpr bool words = Words;
  static constexpr std::uint32_t states = 1u << L, edges = 1u << (L - K);

  static constexpr std::uint32_t next(std::uint32_t state, std::uint32_t bits) { return (state << K | bits) & (states - 1); }
  static constexpr std::uint32_t edge_before(std::uint32_t state) { return state >> K; }
  static constexpr std::uint32_t edge_after(std::uint32_t state) { return state & (edges - 1); }

  /// Bytes of a loop of n steps, n K a multiple of 32.
  static constexpr Index bytes(Index n) { return n * K / 8; }
  /// The states of a loop.
  static ANYBIT_INLINE void read(const std::byte* from, std::span<std::uint16_t> loop) {
    const Index n = static_cast<Index>(loop.size());
    const Index count = n * K / 32;
    const auto word = [=](Index i) {
      std::uint32_t w;
      std::memcpy(&w, from + 4 * place(i, count), 4);
      return w;
    };
    std::uint32_t state = word(count - 1) & (states - 1);
    std::uint64_t window = 0;
    int held = 0;
    for (Index i = 0, w = 0; i < n; ++i) {
      if (held < K) window = window << 32 | word(w++), held += 32;
      held -= K;
      state = next(state, static_cast<std::uint32_t>(window >> held) & ((1u << K) - 1));
      loop[static_cast<std::size_t>(i)] = static_cast<std::uint16_t>(state);
    }
  }
  /// Of a sequence that is a loop.
  static ANYBIT_INLINE void write(std::span<const std::uint16_t> loop, std::byte* to) {
    const Index count = static_cast<Index>(loop.size()) * K / 32;
    std::uint64_t window = 0;
    int held = 0;
    Index i = 0;
    for (const std::uint16_t state : loop) {
      window = window << K | (state & ((1u << K) - 1));
      if ((held += K) < 32) continue;
      held -= 32;
      const auto w = static_cast<std::uint32_t>(window >> held);
      std::memcpy(to + 4 * place(i++, count), &w, 4);
    }
  }

 private:
  /// Of word i of the sequence, among `count`.
  static constexpr Index place(Index i, Index count) { return Words ? i : count - 1 - i; }
};

/// name           unique; part of the scheme's name
/// value(state)   what a state stands for: a number, or a std::array of V numbers if a step makes V weights. Of whole numbers,
///                -128 to 127, if products with 8-bit activations shall be possible. Constexpr.
/// Values of the first 2^L states should look like independent samples of a distribution that suits the weights, neighbours too.
template <class C>
concept TrellisCodebook = requires(std::uint32_t state) {
  { C::name } -> std::convertible_to<std::string_view>;
  C::value(state);
};

namespace detail {
template <class T>
struct StepValues {
  using type = T;
  static constexpr Index count = 1;
};
template <class T, std::size_t N>
struct StepValues<std::array<T, N>> {
  using type = T;
  static constexpr Index count = static_cast<Index>(N);
};
template <class C>
using step_values_t = StepValues<std::remove_cvref_t<decltype(C::value(std::uint32_t{}))>>;
}  // namespace detail

/// Weights of a step.
template <TrellisCodebook C>
inline constexpr Index step_weights_v = detail::step_values_t<C>::count;
template <TrellisCodebook C>
inline constexpr bool has_whole_values_v = std::is_integral_v<typename detail::step_values_t<C>::type>;

/// A codebook of one weight a step: levels[index], bit i of the state exchanging the bits hash[i] of the index.
template <class C>
concept LinearCodebook = TrellisCodebook<C> && step_weights_v<C> == 1 && requires {
  { C::hash[15] } -> std::convertible_to<std::uint8_t>;
  { C::levels[255] } -> std::convertible_to<std::int8_t>;
};

/// Weight i of the step that leads to a state.
template <TrellisCodebook C>
constexpr float trellis_value(std::uint32_t state, Index i = 0) {
  if constexpr (step_weights_v<C> > 1)
    return static_cast<float>(C::value(state)[static_cast<std::size_t>(i)]);
  else
    return static_cast<float>(C::value(state));
}

}  // namespace ANYBIT_ABI
}  // namespace anybit

namespace anybit {
inline namespace ANYBIT_CODE {

namespace detail {

template <TrellisCodebook C, int L>
using TrellisTable = std::array<float, (static_cast<std::size_t>(step_weights_v<C>) << L)>;

// A function and no lambda: compilers evaluate a constexpr initializer of a static variable themselves, which for 65536 states
// takes them longer than the rest of the file.
template <TrellisCodebook C, int L>
TrellisTable<C, L> make_trellis_table() {
  constexpr auto each = static_cast<std::size_t>(step_weights_v<C>);
  TrellisTable<C, L> t{};
  for (std::size_t s = 0; s < std::size_t{1} << L; ++s)
    for (std::size_t i = 0; i < each; ++i)
      t[s * each + i] = trellis_value<C>(static_cast<std::uint32_t>(s), static_cast<Index>(i));
  return t;
}

}  // namespace detail

/// The weights of all states, those of a step side by side. Made at the first call.
template <TrellisCodebook C, int L>
const detail::TrellisTable<C, L>& trellis_table() {
  static const detail::TrellisTable<C, L> table = detail::make_trellis_table<C, L>();
  return table;
}

}  // namespace ANYBIT_CODE
}  // namespace anybit
