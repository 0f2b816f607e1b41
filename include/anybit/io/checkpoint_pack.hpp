#pragma once
// Layers of checkpoints as packed tensors and back, without rounding: the codes stay, so a loaded layer is run as it was stored.

#include <anybit/core/macros_begin.hpp>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <numeric>
#include <optional>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

#include <anybit/core/stable_sort.hpp>
#include <anybit/io/checkpoint_linear.hpp>
#include <anybit/scheme/presets.hpp>
#include <anybit/tensor/pack.hpp>

namespace anybit::io {
inline namespace ANYBIT_CODE {

namespace detail {

template <class F>
inline constexpr std::optional<Levels> levels_of_format = std::nullopt;
template <int B>
inline constexpr std::optional<Levels> levels_of_format<UInt<B>> = B <= 8 ? std::optional(Levels::integer) : std::nullopt;
template <int B>
inline constexpr std::optional<Levels> levels_of_format<SInt<B>> =
    B >= 2 && B <= 8 ? std::optional(Levels::integer) : std::nullopt;
template <>
inline constexpr std::optional<Levels> levels_of_format<Minifloat<2, 1>> = Levels::e2m1;
template <>
inline constexpr std::optional<Levels> levels_of_format<Minifloat<4, 3>> = Levels::e4m3;
template <>
inline constexpr std::optional<Levels> levels_of_format<Nf4> = Levels::nf4;
template <>
inline constexpr std::optional<Levels> levels_of_format<Fp4> = Levels::fp4;

/// Original column of each stored one: columns of a group side by side, in their own order. Empty if groups are of unequal
/// length, which no scheme has.
inline std::vector<std::uint32_t> columns_by_group(const CheckpointLinear& l) {
  std::vector<std::uint32_t> order(static_cast<std::size_t>(l.extents.cols));
  std::iota(order.begin(), order.end(), 0u);
  anybit::stable_sort(order.begin(), order.end(),
                      [&](std::uint32_t a, std::uint32_t b) { return l.group_of_column[a] < l.group_of_column[b]; });
  for (std::size_t j = 0; j < order.size(); ++j)
    if (l.group_of_column[order[j]] != j / static_cast<std::size_t>(l.group)) return {};
  return order;
}

}  // namespace detail

/// The layer in scheme S, or the reason why S cannot hold it exactly. Groups may be split: S's must divide the layer's.
template <AnyScheme S>
Result<QuantizedMatrix<S>> quantized_from_checkpoint(const CheckpointLinear& l) {
  using F = typename S::format;
  using G = typename S::granularity;
  const auto no = [](std::string_view why) {
    return Error{ErrorCode::unsupported, std::string(std::string_view(S::name)) + " does not hold the layer exactly: " +
                                             std::string(why) + "; choose another scheme or dequantize the layer"};
  };
  constexpr bool integer = detail::levels_of_format<F> == Levels::integer;
  if (detail::levels_of_format<F> != l.levels || S::bits < l.bits) return no("it has other levels");
  if (l.grouping != Grouping::columns || std::is_same_v<G, PerTensor>) return no("its groups are no columns of a row");
  const Index cols = l.extents.cols, group = G::group_cols(cols);
  if (group < 1 || (l.group < cols ? l.group : cols) % std::min(group, cols) != 0) return no("its groups are smaller");
  if constexpr (integer && !S::has_zero_point)
    if (!l.symmetric()) return no("it has zero points");
  QuantizedMatrix<S> q;
  q.extents = l.extents;
  q.affines.resize(static_cast<std::size_t>(G::count(l.extents)));
  if (!l.group_of_column.empty()) {
    q.column_order = detail::columns_by_group(l);
    if (q.column_order.empty()) return no("its groups have unequal numbers of columns");
  }
  std::vector<float> scales(q.affines.size());
  for (Index r = 0; r < l.extents.rows; ++r)
    for (Index g = 0; g < G::groups_per_row(cols); ++g) {
      const Index from = r * l.groups_per_row() + g * group / l.group, to = G::index(l.extents, r, g);
      const float zero = l.zero(from);
      if (S::has_zero_point && (!(zero >= 0 && zero <= static_cast<float>((1 << S::bits) - 1)) || zero != std::floor(zero)))
        return no("a zero point is no whole number of its range");
      q.affines[static_cast<std::size_t>(to)] = {l.scale(from), S::has_zero_point ? zero : 0.0f};
      scales[static_cast<std::size_t>(to)] = l.scale(from);
    }
  S::scale_store::round_trip(scales);
  for (std::size_t i = 0; i < scales.size(); ++i)
    if (scales[i] != q.affines[i].scale || q.affines[i].scale < 0) return no("its store rounds a scale");
  q.codes.resize(l.codes.size());
  const int shift = integer && !S::has_zero_point ? static_cast<int>(l.middle()) : 0;
  const bool ordered = !q.column_order.empty();
  for (Index r = 0; r < l.extents.rows; ++r)
    for (Index j = 0; j < cols; ++j) {
      const auto c = static_cast<Index>(ordered ? q.column_order[static_cast<std::size_t>(j)] : j);
      const int level = static_cast<int>(l.codes[static_cast<std::size_t>(r * cols + c)]) - shift;
      q.codes[static_cast<std::size_t>(r * cols + j)] = static_cast<typename S::code>(level & ((1 << S::bits) - 1));
    }
  return q;
}

/// The inverse. Nothing is rounded here either; empty for schemes whose levels a CheckpointLinear does not have.
template <AnyScheme S>
std::optional<CheckpointLinear> checkpoint_from_quantized(const QuantizedMatrix<S>& q) {
  using F = typename S::format;
  if constexpr (!detail::levels_of_format<F>.has_value() || std::is_same_v<typename S::granularity, PerTensor>) {
    return std::nullopt;
  } else {
    CheckpointLinear l;
    l.extents = q.extents;
    l.levels = *detail::levels_of_format<F>;
    l.bits = S::bits;
    l.group = std::max<Index>(1, S::granularity::group_cols(q.extents.cols));
    const int shift = l.levels == Levels::integer && !S::has_zero_point ? 1 << (S::bits - 1) : 0;
    l.codes.resize(q.codes.size());
    const Index cols = q.extents.cols;
    const bool ordered = !q.column_order.empty();
    if (ordered) l.group_of_column.resize(static_cast<std::size_t>(cols));
    for (Index j = 0; ordered && j < cols; ++j)
      l.group_of_column[q.column_order[static_cast<std::size_t>(j)]] = static_cast<std::uint32_t>(j / l.group);
    for (Index r = 0; r < q.extents.rows; ++r)
      for (Index j = 0; j < cols; ++j) {
        const auto c = static_cast<Index>(ordered ? q.column_order[static_cast<std::size_t>(j)] : j);
        l.codes[static_cast<std::size_t>(r * cols + c)] =
            static_cast<std::uint8_t>(q.codes[static_cast<std::size_t>(r * cols + j)] ^ shift);
      }
    for (const Affine& a : q.affines) {
      l.scales.push_back(a.scale);
      if (S::has_zero_point) l.zeros.push_back(a.zero);
    }
    return l;
  }
}

/// Schemes that between them hold most layers of checkpoints: every width in groups of 32 (and multiples, split), the usual ones
/// in their own size.
using CheckpointSchemes = TypeList<
    Scheme<SInt<2>, PerGroup<32>, ScaleF16>, Scheme<SInt<3>, PerGroup<32>, ScaleF16>, Scheme<SInt<4>, PerGroup<32>, ScaleF16>,
    Scheme<SInt<5>, PerGroup<32>, ScaleF16>, Scheme<SInt<6>, PerGroup<32>, ScaleF16>, Scheme<SInt<7>, PerGroup<32>, ScaleF16>,
    Scheme<SInt<8>, PerGroup<32>, ScaleF16>, Scheme<UInt<2>, PerGroup<32>, ScaleF16>, Scheme<UInt<3>, PerGroup<32>, ScaleF16>,
    Scheme<UInt<4>, PerGroup<32>, ScaleF16>, Scheme<UInt<5>, PerGroup<32>, ScaleF16>, Scheme<UInt<6>, PerGroup<32>, ScaleF16>,
    Scheme<UInt<7>, PerGroup<32>, ScaleF16>, Scheme<UInt<8>, PerGroup<32>, ScaleF16>, Scheme<SInt<4>, PerGroup<64>, ScaleF16>,
    presets::AsymmetricInt4Group64, presets::Int<2>, presets::Int<3>, presets::Int<4>, presets::Int<8>, presets::AsymmetricInt<2>,
    presets::AsymmetricInt<3>, presets::AsymmetricInt<4>, presets::Int8PerRow, Scheme<UInt<8>, PerRow, ScaleF32>,
    Scheme<UInt<4>, PerGroup<32>, ScaleF32>, Scheme<Minifloat<4, 3>, PerRow, ScaleF32>,
    Scheme<Minifloat<4, 3>, PerGroup<128>, ScaleF32>, presets::Mxfp4, Scheme<Minifloat<2, 1>, PerGroup<16>, ScaleF32>,
    presets::Nf4Plain, Scheme<Fp4, PerGroup<64>, ScaleF32>>;

namespace detail {

template <AnyScheme S>
std::optional<PackedBytes> pack_if_exact(const CheckpointLinear& l, const std::string& provenance) {
  auto q = quantized_from_checkpoint<S>(l);
  if (!q) return std::nullopt;
  q->provenance = provenance;
  return std::move(pack(*q).bytes());
}

}  // namespace detail

/// The layer in that scheme of the list which holds it exactly in the fewest bytes; an error if none does.
template <class List = CheckpointSchemes>
Result<PackedBytes> pack_checkpoint(const CheckpointLinear& l, const std::string& provenance) {
  struct Candidate {
    Index bytes;
    std::optional<PackedBytes> (*pack)(const CheckpointLinear&, const std::string&);
  };
  std::vector<Candidate> candidates;
  for_each_type(List{}, [&]<class S>() {
    candidates.push_back(
        {S::codes_bytes(l.extents) + S::scales_bytes(l.extents) + S::zeros_bytes(l.extents), &detail::pack_if_exact<S>});
  });
  anybit::stable_sort(candidates.begin(), candidates.end(),
                      [](const Candidate& a, const Candidate& b) { return a.bytes < b.bytes; });
  for (const Candidate& c : candidates)
    if (auto packed = c.pack(l, provenance)) return *std::move(packed);
  return {ErrorCode::unsupported, "none of " + std::to_string(List::size) +
                                      " schemes holds the layer exactly: dequantize it, or add a scheme of its grid to the list"};
}

}  // namespace ANYBIT_CODE
}  // namespace anybit::io

#include <anybit/core/macros_end.hpp>
