#pragma once
// Named schemes: those that the tools offer and that a run-time registry can open by default. Any other
// Scheme<...> works the same, but readers of its files must have it registered.

#include <anybit/format/formats.hpp>
#include <anybit/scheme/double_quant.hpp>
#include <anybit/scheme/scale_e8m0.hpp>
#include <anybit/scheme/scheme.hpp>
#include <anybit/scheme/two_of_four.hpp>

namespace anybit {
inline namespace ANYBIT_ABI {

template <class... Types>
struct TypeList {
  static constexpr std::size_t size = sizeof...(Types);
};

/// visit.template operator()<T>() for every type of the list, in order.
template <class... Types, class Visitor>
constexpr ANYBIT_INLINE void for_each_type(TypeList<Types...>, Visitor&& visit) {
  (visit.template operator()<Types>(), ...);
}

namespace presets {

// Groups of 128 with binary16 scales: bits + 16/128 = bits + 0.125 a weight.
template <int Bits>
using ScaledSuperfloat = Scheme<Superfloat<Bits>, PerGroup<128>, ScaleF16>;
template <int Bits>
using Int = Scheme<SInt<Bits>, PerGroup<128>, ScaleF16>;
template <int Bits>
using AsymmetricInt = Scheme<UInt<Bits>, PerGroup<128>, ScaleF16>;

// Smaller groups, for 4 bits that are closer to the weights (4.5 bits; with zero point 4.3125 and 4.625).
using Superfloat4Group32 = Scheme<Superfloat<4>, PerGroup<32>, ScaleF16>;
using AsymmetricInt4Group64 = Scheme<UInt<4>, PerGroup<64>, ScaleF16>;
using AsymmetricInt4Group32 = Scheme<UInt<4>, PerGroup<32>, ScaleF16>;

/// Superfloat as published: no scale, so only weights below 1 in magnitude fit.
using PublishedSuperfloat8 = Scheme<SuperfloatPublished<8>, PerTensor, NoScale>;

/// Weights of W8A8: one scale for each output channel.
using Int8PerRow = Scheme<SInt<8>, PerRow, ScaleF32>;
/// The values of llama.cpp's Q8_0, in another order of bytes.
using Int8Group32 = Scheme<SInt<8>, PerGroup<32>, ScaleF16>;

/// bitsandbytes' NF4 with and without double quantization of the scales (4.127 and 4.5 bits).
using Nf4DoubleQuant = Scheme<Nf4, PerGroup<64>, DoubleQuant<256>>;
using Nf4Plain = Scheme<Nf4, PerGroup<64>, ScaleF32>;

/// Lloyd-Max levels for normally distributed weights, bits + 0.0635 a weight. Not among Presets, which every reader compiles.
template <int Bits>
using NormalCodebook = Scheme<LloydMax<Bits>, PerGroup<128>, DoubleQuant<256>>;

/// OCP Microscaling, 4.25 bits.
using Mxfp4 = Scheme<Minifloat<2, 1>, PerGroup<32>, ScaleE8M0>;

/// BitNet b1.58, 1.6 bits; and ternary weights with a scale for each group, 1.725 bits.
using BitNet = Scheme<Ternary, PerTensor, ScaleF32, Base3>;
using TernaryGroup128 = Scheme<Ternary, PerGroup<128>, ScaleF16, Base3>;

/// 2:4 sparse, (2 bits + 3) / 4 + 0.125 bits: 2.875 at 4. In no list of presets: it holds only what was pruned for it.
template <int Bits>
using SparseInt = Scheme<SInt<Bits>, PerGroup<128>, ScaleF16, TwoOfFour<>>;

}  // namespace presets

using Presets =
    TypeList<presets::ScaledSuperfloat<8>, presets::ScaledSuperfloat<7>, presets::ScaledSuperfloat<6>,
             presets::ScaledSuperfloat<5>, presets::ScaledSuperfloat<4>, presets::ScaledSuperfloat<3>,
             presets::Superfloat4Group32, presets::PublishedSuperfloat8, presets::Int<8>, presets::Int<4>, presets::Int<3>,
             presets::Int<2>, presets::Int8PerRow, presets::Int8Group32, presets::AsymmetricInt<4>, presets::AsymmetricInt<3>,
             presets::AsymmetricInt<2>, presets::AsymmetricInt4Group64, presets::AsymmetricInt4Group32, presets::Nf4DoubleQuant,
             presets::Nf4Plain, presets::Mxfp4, presets::BitNet, presets::TernaryGroup128>;

}  // namespace ANYBIT_ABI
}  // namespace anybit
