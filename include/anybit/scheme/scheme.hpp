#pragma once
// A Scheme determines the bytes of a quantized matrix, the header of its file and the kernels that fit it. The choice
// of the codes (the recipe) is no part of it.

#include <type_traits>

#include <anybit/format/format.hpp>
#include <anybit/scheme/concepts.hpp>
#include <anybit/scheme/granularity.hpp>
#include <anybit/scheme/layouts.hpp>
#include <anybit/scheme/scale_store.hpp>

namespace anybit {
inline namespace ANYBIT_ABI {

/// T::name as a FixedString, whichever constexpr text it is.
template <class T>
constexpr auto fixed_name() {
  constexpr std::string_view name = T::name;
  FixedString<name.size()> text;
  for (std::size_t i = 0; i < name.size(); ++i) text.text[i] = name[i];
  return text;
}

/// Whether a layout with a code of its own for zeros agrees with the format about it.
template <class F, class L>
constexpr bool layout_knows_zero() {
  if constexpr (requires { L::zero_code; })
    return !has_zero_point_v<F> && F::decode(static_cast<Code>(L::zero_code)) == 0;
  else
    return true;
}

/// The store S of format F: S itself, unless it depends on the format.
template <class S, class F>
struct store_of {
  using type = S;
};
template <class S, class F>
  requires requires { typename S::template of<F>; }
struct store_of<S, F> {
  using type = typename S::template of<F>;
};

namespace detail {
// The conditions of Scheme: each passes where another has failed already, so that one fault gives one sentence.
template <class F>
constexpr bool has_fitting_codes() {
  if constexpr (ConstexprFormat<F>)
    return codes_fit_bits<F>();
  else
    return true;
}
template <class G>
constexpr bool has_lawful_groups() {
  if constexpr (ConstexprGranularity<G>)
    return is_lawful_granularity<G>();
  else
    return true;
}
}  // namespace detail

template <class F, class G = PerGroup<128>, class S = ScaleF16, class L = BitStream>
struct Scheme {
  static_assert(Format<F>,
                "anybit: the first argument of Scheme must be a Format (see format/format.hpp): bits, name, encode, decode, fit");
  static_assert(
      !Format<F> || ConstexprFormat<F>,
      "anybit: encode and decode of a format must be constexpr (see format/format.hpp and docs/tutorial/03_a_format_of_your_own.md)");
  static_assert(detail::has_fitting_codes<F>(),
                "anybit: this format's encode gives codes of 2^bits and above: it needs more bits, or a Codebook<2^bits>");
  static_assert(Granularity<G>,
                "anybit: the second argument of Scheme must be a Granularity: PerTensor, PerRow, PerGroup<g>, or one of your own "
                "(see scheme/granularity.hpp): name, group_cols, groups_per_row, count, index");
  static_assert(!Granularity<G> || ConstexprGranularity<G>,
                "anybit: all members of a granularity must be constexpr (see scheme/granularity.hpp)");
  static_assert(detail::has_lawful_groups<G>(),
                "anybit: a granularity must give every row groups of its own, one after the other: groups_per_row == ceil(cols / "
                "group_cols), count == rows * groups_per_row, index == row * groups_per_row + g (see scheme/granularity.hpp)");
  static_assert(ScaleStore<S>,
                "anybit: the third argument of Scheme must be a ScaleStore: NoScale, ScaleF32, ScaleF16, ScaleBF16, ScaleE5M3, "
                "ScaleE8M0, DoubleQuant<256>, or one of your own (see scheme/scale_store.hpp): name, joint, largest, bytes, "
                "round_trip, store, load");
  static_assert(
      PackLayout<L, F::bits>,
      "anybit: the fourth argument of Scheme must be a PackLayout for the format's bits: BitStream, Base3 for Ternary, or "
      "one of your own (see scheme/layout.hpp): name, granule, packed_bytes, pack, unpack");
  static_assert(!std::is_same_v<L, Base3> || code_count_v<F> <= 3,
                "anybit: the Base3 layout holds three codes: use it with Ternary, and BitStream with other formats");
  static_assert(
      layout_knows_zero<F, L>(),
      "anybit: this layout leaves out zeros, so its zero code must mean 0 in every group: a format without zero point, and "
      "TwoOfFourFor<Format> as the layout");
  static_assert(!(has_zero_point_v<F> && std::is_same_v<S, NoScale>),
                "anybit: a format with a zero point needs a scale store: its zero is found together with the scale");

  using format = F;
  using granularity = G;
  using scale_store = typename store_of<S, F>::type;
  using layout = L;
  using code = code_t<F>;
  static constexpr int bits = F::bits;
  static constexpr bool has_zero_point = has_zero_point_v<F>;
  /// "superfloat5/g128/f16/bits": what files record.
  static constexpr auto name = fixed_name<F>() + "/" + fixed_name<G>() + "/" + fixed_name<S>() + "/" + fixed_name<L>();

  static constexpr Index row_bytes(Index cols) { return L::template packed_bytes<bits>(cols); }
  static constexpr Index codes_bytes(Extents e) { return e.rows * row_bytes(e.cols); }
  static constexpr Index scales_bytes(Extents e) { return scale_store::bytes(G::count(e)); }
  /// Zero points stand as BitStream codes of the format's width, one run for the whole matrix.
  static constexpr Index zeros_bytes(Extents e) { return has_zero_point ? BitStream::packed_bytes<bits>(G::count(e)) : 0; }
  static constexpr std::array<SectionSize, 3> sections(Extents e) {
    return {
        {{section_tags::codes, codes_bytes(e)}, {section_tags::scales, scales_bytes(e)}, {section_tags::zeros, zeros_bytes(e)}}};
  }
  static constexpr Index granule_rows = 1, granule_cols = L::granule;
  /// The definition, one weight after the other; tensor/dequantize.hpp has the fast way.
  static ANYBIT_INLINE void decode(Sections s, Extents e, Index row, Index col, float* out) {
    const Index n = granule_cols < e.cols - col ? granule_cols : e.cols - col;
    code codes[static_cast<std::size_t>(granule_cols)];
    L::template unpack<bits>(s[0].data() + row * row_bytes(e.cols), e.cols, col,
                             std::span(codes).first(static_cast<std::size_t>(n)));
    for (Index i = 0; i < n; ++i) {
      const Index index = G::index(e, row, (col + i) / G::group_cols(e.cols)), lead = index % BitStream::granule;
      Affine a;
      S::load(s[1].data(), G::count(e), index, {&a.scale, 1});
      if constexpr (has_zero_point) {
        code zeros[static_cast<std::size_t>(BitStream::granule)];
        BitStream::unpack<bits>(s[2].data(), G::count(e), index - lead,
                                std::span(zeros).first(static_cast<std::size_t>(lead + 1)));
        a.zero = static_cast<float>(zeros[lead]);
      }
      out[i] = dequantize_value<F>(codes[i], a);
    }
  }
  /// Bits per weight, computed from the bytes.
  static constexpr double bits_per_weight(Extents e) {
    return e.size() == 0
               ? 0
               : 8.0 * static_cast<double>(codes_bytes(e) + scales_bytes(e) + zeros_bytes(e)) / static_cast<double>(e.size());
  }
};

template <class T>
constexpr bool is_scheme_v = false;
template <class F, class G, class S, class L>
constexpr bool is_scheme_v<Scheme<F, G, S, L>> = true;
template <class T>
concept ScalarScheme = is_scheme_v<T>;
/// The name that most of the library uses for it.
template <class T>
concept AnyScheme = ScalarScheme<T>;

/// Scheme<...> from either a scheme or the list of its parts: algorithms take both spellings.
template <class First, class... Rest>
struct scheme_of {
  using type = Scheme<First, Rest...>;
};
template <AnyScheme S>
struct scheme_of<S> {
  using type = S;
};
template <class... Parts>
using scheme_of_t = typename scheme_of<Parts...>::type;

}  // namespace ANYBIT_ABI
}  // namespace anybit
