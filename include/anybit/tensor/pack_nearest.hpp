#pragma once
// Floats straight to packed bytes by plain rounding.

#include <anybit/core/macros_begin.hpp>

#include <anybit/tensor/pack.hpp>
#include <anybit/tensor/quantize.hpp>

namespace anybit {
inline namespace ANYBIT_CODE {

/// The bytes of pack(quantize_nearest<S>(w)), without codes in between, into a tensor of w's extents that owns its bytes and has
/// no column order. Its provenance stays. A NaN or an infinity among the weights is an error, as there; the bytes are good for
/// nothing then.
template <AnyScheme S>
Status pack_nearest(ConstMatrix w, PackedTensor<S>& out) {
  using F = typename S::format;
  using L = typename S::layout;
  ANYBIT_CHECK(out.extents() == w.extents() && !out.has_column_order(),
               "pack_nearest: the tensor has another shape or a column order");
  PackedBytes& b = out.bytes();
  std::byte* const bytes = b.mutable_section(b.codes()).data();
  const auto count = static_cast<std::size_t>(S::granularity::count(w.extents()));
  std::vector<float> scales(count), zeros(S::has_zero_point ? count : 0);
  // Codes that wait to be packed: a part of a row, or all of it for a layout that is not known to be cut.
  constexpr bool cuts = std::is_same_v<L, BitStream> || std::is_same_v<L, Base3>;
  constexpr Index part = std::is_same_v<L, Base3> ? 960 : 1024;
  std::array<typename S::code, static_cast<std::size_t>(part)> some;
  std::vector<typename S::code> all(cuts ? 0 : static_cast<std::size_t>(w.cols));
  ANYBIT_TRY_STATUS(round_rows<S>(w, scales, zeros, [&](Index r, simd::Groups groups) {
    const float* const from = w.row(r).data();
    std::byte* const to = bytes + r * S::row_bytes(w.cols);
    if constexpr (!cuts) {
      quantize_groups<F>(from, w.cols, groups, all.data());
      pack_row<L, S::bits>(all, to);
    } else if constexpr (S::bits == 8) {
      quantize_groups<F>(from, w.cols, groups, reinterpret_cast<std::uint8_t*>(to));
    } else {
      for (Index i = 0; i < w.cols; i += part) {
        const Index n = std::min(part, w.cols - i);
        quantize_groups<F>(from + i, n, groups, some.data());
        pack_row<L, S::bits>(std::span(some).first(static_cast<std::size_t>(n)), to + L::template packed_bytes<S::bits>(i));
        const Index passed = n < groups.first ? 0 : 1 + (n - groups.first) / groups.size;
        groups = {groups.scales + passed, groups.zeros ? groups.zeros + passed : nullptr, groups.first + passed * groups.size - n,
                  groups.size};
      }
    }
  }));
  store_affines<S>(scales, zeros, b);
  return Ok{};
}
template <AnyScheme S>
Result<PackedTensor<S>> pack_nearest(ConstMatrix w) {
  auto t = PackedTensor<S>::allocate(w.extents(), false, "nearest");
  ANYBIT_TRY_STATUS(pack_nearest(w, t));
  return t;
}

}  // namespace ANYBIT_CODE
}  // namespace anybit

#include <anybit/core/macros_end.hpp>
