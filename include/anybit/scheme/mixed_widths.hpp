#pragma once
// The schemes that one model may mix (docs/bits.md).

#include <anybit/format/integer.hpp>
#include <anybit/scheme/presets.hpp>
#include <anybit/scheme/scale_e5m3.hpp>
#include <anybit/scheme/scheme.hpp>

namespace anybit {
inline namespace ANYBIT_ABI {

namespace presets {
/// Integers with a zero point and scales of one byte: at 4 bits, groups of 64 take 4.19 bits and groups of 32 4.375, where f16
/// scales take 4.31 and 4.625.
template <int Bits, int Group>
using ByteScaledInt = Scheme<UInt<Bits>, PerGroup<Group>, ScaleE5M3>;
}  // namespace presets

/// Integers of 2 to 8 bits with zero points, 2.31 to 8.19 bits a weight, and the usual scheme of embeddings. Not among Presets,
/// so that only those who open such files compile it: preset_registry<MixedWidths>(), or for_each_type() to add them to another
/// registry.
using MixedWidths =
    TypeList<presets::ByteScaledInt<2, 32>, presets::ByteScaledInt<3, 64>, presets::ByteScaledInt<3, 32>,
             presets::ByteScaledInt<4, 64>, presets::ByteScaledInt<4, 32>, presets::ByteScaledInt<5, 64>,
             presets::AsymmetricInt<5>, presets::AsymmetricInt<6>, presets::AsymmetricInt<8>, presets::Int8Group32>;

}  // namespace ANYBIT_ABI
}  // namespace anybit
