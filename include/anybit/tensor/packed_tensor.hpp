#pragma once

#include <anybit/core/macros_begin.hpp>

#include <algorithm>
#include <array>
#include <tuple>

#include <anybit/scheme/scheme.hpp>
#include <anybit/tensor/packed_bytes.hpp>

namespace anybit {
inline namespace ANYBIT_ABI {

/// A quantized weight matrix (rows = outputs, cols = inputs) as bytes that are the same on every machine. It owns its bytes
/// or views somebody else's, and every sum of sizes has been checked when one exists.
template <PackedScheme S>
class PackedTensor {
 public:
  using scheme = S;

  PackedTensor() = default;

  /// An all-zero-bytes tensor for pack() to fill.
  static ANYBIT_INLINE PackedTensor allocate(Extents e, bool with_column_order, std::string_view provenance) {
    PackedTensor t;
    t.bytes_ = PackedBytes::allocate(S::name, provenance, e, S::sections(e), with_column_order ? 4 * e.cols : 0);
    return t;
  }

  /// Gives bytes their type. The error names the scheme that the bytes have, the section that has a wrong size, or the
  /// column order or scale that cannot be. Codes and zero points need no check: every one of them decodes.
  template <class = UnderTheseFlags>
  static Result<PackedTensor> from(PackedBytes b) {
    ANYBIT_TRY_STATUS(check(b));
    return PackedTensor(Checked{}, std::move(b));
  }
  /// The reason why from() cannot give these bytes the type, or Ok.
  template <class = UnderTheseFlags>
  static Status check(const PackedBytes& b) {
    if constexpr (ScalarScheme<S>) {
      // Not the scheme's functions themselves: their bodies would be one for all flags.
      return b.check_scalar(
          S::name, [](Extents e) { return S::sections(e); }, [](Extents e) { return S::granularity::count(e); },
          [](const std::byte* scales, Index count, Index first, std::span<float> out) {
            S::scale_store::load(scales, count, first, out);
          });
    } else {
      ANYBIT_TRY_STATUS(b.check_scheme(S::name));
      ANYBIT_TRY_STATUS(b.check_sections(S::sections(b.extents())));
      if constexpr (requires { S::check(Sections{}, Extents{}); }) return S::check(SectionsOf(b), b.extents());
      return Ok{};
    }
  }
  /// The type for bytes that check() finds nothing wrong with.
  struct Checked {};
  PackedTensor(Checked, PackedBytes&& b) : bytes_(std::move(b)) {}

  Extents extents() const { return bytes_.extents(); }
  Index rows() const { return extents().rows; }
  Index cols() const { return extents().cols; }
  const PackedBytes& bytes() const { return bytes_; }
  PackedBytes& bytes() { return bytes_; }
  double bits_per_weight() const { return bytes_.bits_per_weight(); }
  std::string_view provenance() const { return bytes_.provenance(); }

  bool has_column_order() const { return bytes_.has_column_order(); }
  Index original_column(Index stored) const { return has_column_order() ? bytes_.original_column(stored) : stored; }

  /// The sections as S::decode wants them.
  class SectionsOf {
   public:
    explicit SectionsOf(const PackedBytes& b) {
      const auto sizes = S::sections(Extents{});
      for (std::size_t i = 0; i < count; ++i) sections_[i] = b.section(sizes[i].tag);
    }
    operator Sections() const { return sections_; }  // NOLINT(google-explicit-constructor)

   private:
    static constexpr std::size_t count = std::tuple_size_v<decltype(S::sections(Extents{}))>;
    std::array<std::span<const std::byte>, count> sections_;
  };

  /// Equal meaning: extents and the bytes of every section of the scheme, and the column order.
  friend bool operator==(const PackedTensor& a, const PackedTensor& b) {
    const auto same = [](std::span<const std::byte> x, std::span<const std::byte> y) {
      return std::equal(x.begin(), x.end(), y.begin(), y.end());
    };
    bool equal = a.extents() == b.extents() && same(a.bytes_.order(), b.bytes_.order());
    for (const SectionSize& s : S::sections(Extents{})) equal = equal && same(a.bytes_.section(s.tag), b.bytes_.section(s.tag));
    return equal;
  }

  // The rest asks for a code of each weight.

  const std::byte* row_codes(Index r) const
    requires ScalarScheme<S>
  {
    return bytes_.codes().data() + r * S::row_bytes(cols());
  }
  /// Codes first .. first + out.size() - 1 of a row; first is a multiple of layout::granule.
  template <ScalarScheme T = S>
  ANYBIT_INLINE void unpack_codes(Index row, Index first, std::span<typename T::code> out) const {
    S::layout::template unpack<S::bits>(row_codes(row), cols(), first, out);
  }
  /// Scales first .. first + out.size() - 1 in granularity::index order.
  ANYBIT_INLINE void load_scales(Index first, std::span<float> out) const
    requires ScalarScheme<S>
  {
    S::scale_store::load(bytes_.scales().data(), S::granularity::count(extents()), first, out);
  }
  /// One zero point (0 for formats without).
  ANYBIT_INLINE float zero(Index i) const
    requires ScalarScheme<S>
  {
    if constexpr (S::has_zero_point) {
      const std::byte* p = bytes_.zeros().data();
      const Index bit = i * S::bits;
      std::uint32_t window = std::to_integer<std::uint32_t>(p[bit / 8]);
      for (Index b = 1; b * 8 < bit % 8 + S::bits; ++b) window |= std::to_integer<std::uint32_t>(p[bit / 8 + b]) << (8 * b);
      return static_cast<float>((window >> (bit % 8)) & ((1u << S::bits) - 1));
    } else {
      return 0;
    }
  }
  ANYBIT_INLINE Affine affine(Index row, Index group) const
    requires ScalarScheme<S>
  {
    const Index i = S::granularity::index(extents(), row, group);
    Affine a;
    load_scales(i, {&a.scale, 1});
    a.zero = zero(i);
    return a;
  }

 private:
  PackedBytes bytes_;
};

}  // namespace ANYBIT_ABI
}  // namespace anybit

#include <anybit/core/macros_end.hpp>
