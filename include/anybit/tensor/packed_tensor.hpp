#pragma once

#include <algorithm>
#include <array>
#include <limits>
#include <string>
#include <vector>

#include <anybit/scheme/scheme.hpp>
#include <anybit/tensor/packed_bytes.hpp>

namespace anybit::inline ANYBIT_ABI {

/// A quantized weight matrix (rows = outputs, cols = inputs) as bytes that are the same on every machine. It owns its bytes
/// or views somebody else's, and every sum of sizes has been checked when one exists.
template <AnyScheme S>
class PackedTensor {
 public:
  using scheme = S;

  PackedTensor() = default;

  /// An all-zero-bytes tensor for pack() to fill.
  static ANYBIT_INLINE PackedTensor allocate(Extents e, bool with_column_order, std::string_view provenance) {
    PackedTensor t;
    t.bytes_ = PackedBytes::allocate(S::name, provenance, e, S::codes_bytes(e), S::scales_bytes(e), S::zeros_bytes(e),
                                     with_column_order ? 4 * e.cols : 0);
    return t;
  }

  /// Gives bytes their type. The error names the scheme that the bytes have, the section that has a wrong size, or the
  /// column order or scale that cannot be. Codes and zero points need no check: every one of them decodes.
  static Result<PackedTensor> from(PackedBytes b) {
    if (b.scheme_name() != std::string_view(S::name))
      return Error{ErrorCode::invalid_argument, "packed tensor: holds scheme '" + std::string(b.scheme_name()) + "', not '" +
                                                    std::string(S::name.view()) + "'; open it with that scheme"};
    const Extents e = b.extents();
    // The section sizes below multiply by at most 16 bits, so bound the element count before computing them.
    if (!(CheckedSize(b.header().rows) * b.header().cols * 64).get())
      return Error{ErrorCode::corrupt_data,
                   "packed tensor: " + std::to_string(e.rows) + " x " + std::to_string(e.cols) + " weights are too many"};
    const auto wrong = [](const char* what, std::uint64_t has, Index needs) {
      return Error{ErrorCode::corrupt_data, std::string("packed tensor: ") + what + " take " + std::to_string(has) +
                                                " bytes, the scheme needs " + std::to_string(needs)};
    };
    const auto& h = b.header();
    if (static_cast<Index>(h.codes_bytes) != S::codes_bytes(e)) return wrong("codes", h.codes_bytes, S::codes_bytes(e));
    if (static_cast<Index>(h.scales_bytes) != S::scales_bytes(e)) return wrong("scales", h.scales_bytes, S::scales_bytes(e));
    if (static_cast<Index>(h.zeros_bytes) != S::zeros_bytes(e)) return wrong("zero points", h.zeros_bytes, S::zeros_bytes(e));
    PackedTensor t;
    t.bytes_ = std::move(b);
    ANYBIT_TRY_STATUS(t.check_column_order());
    ANYBIT_TRY_STATUS(t.check_scales());
    return t;
  }

  Extents extents() const { return bytes_.extents(); }
  Index rows() const { return extents().rows; }
  Index cols() const { return extents().cols; }
  const PackedBytes& bytes() const { return bytes_; }
  PackedBytes& bytes() { return bytes_; }
  double bits_per_weight() const { return bytes_.bits_per_weight(); }
  std::string_view provenance() const { return bytes_.provenance(); }

  const std::byte* row_codes(Index r) const { return bytes_.codes().data() + r * S::row_bytes(cols()); }
  /// Codes first .. first + out.size() - 1 of a row; first is a multiple of layout::granule.
  ANYBIT_INLINE void unpack_codes(Index row, Index first, std::span<typename S::code> out) const {
    S::layout::template unpack<S::bits>(row_codes(row), cols(), first, out);
  }
  /// Scales first .. first + out.size() - 1 in granularity::index order.
  ANYBIT_INLINE void load_scales(Index first, std::span<float> out) const {
    S::scale_store::load(bytes_.scales().data(), S::granularity::count(extents()), first, out);
  }
  /// One zero point (0 for formats without).
  ANYBIT_INLINE float zero(Index i) const {
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
  ANYBIT_INLINE Affine affine(Index row, Index group) const {
    const Index i = S::granularity::index(extents(), row, group);
    Affine a;
    load_scales(i, {&a.scale, 1});
    a.zero = zero(i);
    return a;
  }

  bool has_column_order() const { return bytes_.header().order_bytes != 0; }
  Index original_column(Index stored) const {
    if (!has_column_order()) return stored;
    std::uint32_t v;
    std::memcpy(&v, bytes_.order().data() + 4 * stored, 4);
    return static_cast<Index>(v);
  }

  /// Equal meaning: extents and the bytes of every section.
  friend bool operator==(const PackedTensor& a, const PackedTensor& b) {
    const auto same = [](std::span<const std::byte> x, std::span<const std::byte> y) {
      return std::equal(x.begin(), x.end(), y.begin(), y.end());
    };
    return a.extents() == b.extents() && same(a.bytes_.codes(), b.bytes_.codes()) && same(a.bytes_.scales(), b.bytes_.scales()) &&
           same(a.bytes_.zeros(), b.bytes_.zeros()) && same(a.bytes_.order(), b.bytes_.order());
  }

 private:
  Status check_column_order() const {
    std::vector<bool> seen(has_column_order() ? static_cast<std::size_t>(cols()) : 0);
    for (Index j = 0; has_column_order() && j < cols(); ++j) {
      const Index original = original_column(j);
      const auto bad = [&](const char* how) {
        return Error{ErrorCode::corrupt_data,
                     "packed tensor: column order entry " + std::to_string(j) + " is " + std::to_string(original) + how};
      };
      if (original >= cols()) return bad((" of " + std::to_string(cols()) + " columns").c_str());
      if (seen[static_cast<std::size_t>(original)]) return bad(", which stands there twice");
      seen[static_cast<std::size_t>(original)] = true;
    }
    return Ok{};
  }
  Status check_scales() const {
    const Index count = S::granularity::count(extents());
    std::array<float, 256> some;
    for (Index first = 0; first < count && !bytes_.scales().empty(); first += 256) {
      const auto part = std::span(some).first(static_cast<std::size_t>(std::min<Index>(256, count - first)));
      load_scales(first, part);
      for (std::size_t i = 0; i < part.size(); ++i)
        if (!(part[i] >= 0 && part[i] <= std::numeric_limits<float>::max()))
          return Error{ErrorCode::corrupt_data, "packed tensor: scale " + std::to_string(first + static_cast<Index>(i)) + " is " +
                                                    std::to_string(part[i]) + "; scales are finite and not negative"};
    }
    return Ok{};
  }

  PackedBytes bytes_;
};

}  // namespace anybit::inline ANYBIT_ABI
