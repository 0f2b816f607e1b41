#pragma once
// Packed weights without their type: a versioned little-endian header and three runs of bytes. Files and run-time handles
// work with this; PackedTensor<Scheme> adds the type.

#include <anybit/core/macros_begin.hpp>

#include <algorithm>
#include <array>
#include <cstring>
#include <limits>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include <anybit/core/aligned_buffer.hpp>
#include <anybit/core/checked.hpp>
#include <anybit/core/finite.hpp>
#include <anybit/core/result.hpp>
#include <anybit/core/types.hpp>

namespace anybit {
inline namespace ANYBIT_ABI {

/// Bytes 0 to 63 of a packed tensor; the scheme's name and the provenance text follow, then zeros up to header_bytes (a
/// multiple of 64), then the sections codes, scales, zeros, order, each starting at a multiple of 64.
struct PackedHeader {
  static constexpr std::array<char, 4> expected_magic{'A', 'N', 'Y', 'B'};
  static constexpr std::uint16_t current_version = 1;

  std::array<char, 4> magic = expected_magic;
  std::uint16_t version = current_version;
  std::uint16_t name_bytes = 0;
  std::uint32_t provenance_bytes = 0;
  std::uint32_t header_bytes = 0;
  std::uint64_t rows = 0, cols = 0;
  std::uint64_t codes_bytes = 0, scales_bytes = 0, zeros_bytes = 0;
  std::uint64_t order_bytes = 0;  ///< 0, or 4 * cols: the original column of each stored column
};
static_assert(sizeof(PackedHeader) == 64);

class PackedBytes {
 public:
  PackedBytes() = default;

  /// Zeroed sections under a filled header.
  static PackedBytes allocate(std::string_view scheme_name, std::string_view provenance, Extents e, Index codes, Index scales,
                              Index zeros, Index order);

  /// Takes bytes that somebody keeps alive (a mapped file). The error says which field contradicts which.
  static Result<PackedBytes> view(std::span<const std::byte> bytes);
  static Result<PackedBytes> copy(std::span<const std::byte> bytes);

  const PackedHeader& header() const { return header_; }
  Extents extents() const { return {static_cast<Index>(header_.rows), static_cast<Index>(header_.cols)}; }
  std::string_view scheme_name() const { return text(sizeof(PackedHeader), header_.name_bytes); }
  std::string_view provenance() const { return text(sizeof(PackedHeader) + header_.name_bytes, header_.provenance_bytes); }

  std::span<const std::byte> bytes() const { return owned_.empty() ? viewed_ : owned_.bytes(); }
  std::span<const std::byte> codes() const { return bytes().subspan(offsets()[0], header_.codes_bytes); }
  std::span<const std::byte> scales() const { return bytes().subspan(offsets()[1], header_.scales_bytes); }
  std::span<const std::byte> zeros() const { return bytes().subspan(offsets()[2], header_.zeros_bytes); }
  std::span<const std::byte> order() const { return bytes().subspan(offsets()[3], header_.order_bytes); }
  /// Only of owned bytes.
  std::span<std::byte> mutable_section(std::span<const std::byte> section) {
    ANYBIT_CHECK(!owned_.empty(), "PackedBytes::mutable_section of a view");
    return {owned_.data() + (section.data() - owned_.data()), section.size()};
  }

  bool has_column_order() const { return header_.order_bytes != 0; }
  /// Where a column stood before columns were reordered; only with a column order.
  Index original_column(Index stored) const {
    std::uint32_t v;
    std::memcpy(&v, order().data() + 4 * stored, 4);
    return static_cast<Index>(v);
  }

  struct SectionSizes {
    Index codes, scales, zeros;
  };
  /// That these are bytes of `scheme`, whose sections take needed(extents), with a column order that can be. The error names the
  /// scheme that the bytes have, the section that has a wrong size, or the column.
  Status check_sections(std::string_view scheme, SectionSizes (*needed)(Extents)) const;
  /// That all `count` scales are finite and not negative, as the store's load() reads them.
  Status check_scales(Index count, void (*load)(const std::byte*, Index count, Index first, std::span<float>)) const;

  bool empty() const { return bytes().empty(); }
  /// Bytes that hold weights: sections without padding, header and names.
  Index payload_bytes() const {
    return static_cast<Index>(header_.codes_bytes + header_.scales_bytes + header_.zeros_bytes + header_.order_bytes);
  }
  double bits_per_weight() const {
    const Index n = extents().size();
    return n == 0 ? 0 : 8.0 * static_cast<double>(payload_bytes()) / static_cast<double>(n);
  }

 private:
  static constexpr std::uint64_t align = 64;
  std::string_view text(std::size_t offset, std::size_t length) const {
    if (length == 0) return {};  // of an empty handle too, whose bytes are nowhere
    return {reinterpret_cast<const char*>(bytes().data()) + offset, length};
  }
  std::array<std::uint64_t, 4> offsets() const {
    const auto up = [](std::uint64_t v) { return (v + align - 1) / align * align; };
    const std::uint64_t a = header_.header_bytes, b = up(a + header_.codes_bytes), c = up(b + header_.scales_bytes);
    return {a, b, c, up(c + header_.zeros_bytes)};
  }
  static Result<PackedHeader> parse(std::span<const std::byte> bytes);

  PackedHeader header_{};
  AlignedBuffer owned_;
  std::span<const std::byte> viewed_;
};

inline PackedBytes PackedBytes::allocate(std::string_view scheme_name, std::string_view provenance, Extents e, Index codes,
                                         Index scales, Index zeros, Index order) {
  PackedBytes p;
  PackedHeader& h = p.header_;
  constexpr std::size_t longest = 0xFFFF;
  scheme_name = scheme_name.substr(0, longest);
  provenance = provenance.substr(0, longest);
  h.name_bytes = static_cast<std::uint16_t>(scheme_name.size());
  h.provenance_bytes = static_cast<std::uint32_t>(provenance.size());
  h.header_bytes = static_cast<std::uint32_t>(
      round_up(static_cast<Index>(sizeof(PackedHeader) + scheme_name.size() + provenance.size()), align));
  h.rows = static_cast<std::uint64_t>(e.rows);
  h.cols = static_cast<std::uint64_t>(e.cols);
  h.codes_bytes = static_cast<std::uint64_t>(codes);
  h.scales_bytes = static_cast<std::uint64_t>(scales);
  h.zeros_bytes = static_cast<std::uint64_t>(zeros);
  h.order_bytes = static_cast<std::uint64_t>(order);
  p.owned_ = AlignedBuffer(static_cast<std::size_t>(p.offsets()[3] + h.order_bytes));
  std::memcpy(p.owned_.data(), &h, sizeof h);
  std::memcpy(p.owned_.data() + sizeof h, scheme_name.data(), scheme_name.size());
  std::memcpy(p.owned_.data() + sizeof h + scheme_name.size(), provenance.data(), provenance.size());
  return p;
}

inline Result<PackedHeader> PackedBytes::parse(std::span<const std::byte> bytes) {
  const auto bad = [](std::string what) { return Error{ErrorCode::corrupt_data, "packed tensor: " + std::move(what)}; };
  PackedHeader h;
  if (bytes.size() < sizeof h)
    return bad("has " + std::to_string(bytes.size()) + " bytes, fewer than its header of 64; the file is truncated");
  std::memcpy(&h, bytes.data(), sizeof h);
  if (h.magic != PackedHeader::expected_magic) return bad("does not start with ANYB; this is not a packed tensor");
  if (h.version != PackedHeader::current_version)
    return Error{ErrorCode::unsupported,
                 "packed tensor: has layout version " + std::to_string(h.version) + "; this build reads version 1"};
  if (h.header_bytes % align != 0 || h.header_bytes < sizeof h + std::uint64_t{h.name_bytes} + h.provenance_bytes)
    return bad("header size " + std::to_string(h.header_bytes) + " does not hold its names");
  const CheckedSize end =
      (((CheckedSize(h.header_bytes) + h.codes_bytes).rounded_up(align) + h.scales_bytes).rounded_up(align) + h.zeros_bytes)
          .rounded_up(align) +
      h.order_bytes;
  if (!CheckedSize(h.rows).get() || !CheckedSize(h.cols).get() || !(CheckedSize(h.rows) * h.cols).get() || !end.get())
    return bad("sizes overflow (" + std::to_string(h.rows) + " x " + std::to_string(h.cols) + ")");
  if (static_cast<std::uint64_t>(*end.get()) > bytes.size())
    return bad("needs " + std::to_string(*end.get()) + " bytes but has " + std::to_string(bytes.size()) +
               "; the file is truncated");
  if (h.order_bytes != 0 && h.order_bytes != 4 * h.cols)
    return bad("column order has " + std::to_string(h.order_bytes) + " bytes for " + std::to_string(h.cols) + " columns");
  return h;
}

inline Result<PackedBytes> PackedBytes::view(std::span<const std::byte> bytes) {
  ANYBIT_TRY(const PackedHeader h, parse(bytes));
  PackedBytes p;
  p.header_ = h;
  p.viewed_ = bytes;
  return p;
}

inline Result<PackedBytes> PackedBytes::copy(std::span<const std::byte> bytes) {
  ANYBIT_TRY(PackedBytes p, view(bytes));
  p.owned_ = AlignedBuffer(bytes.size());
  std::memcpy(p.owned_.data(), bytes.data(), bytes.size());
  p.viewed_ = {};
  return p;
}

inline Status PackedBytes::check_sections(std::string_view scheme, SectionSizes (*needed)(Extents)) const {
  if (scheme_name() != scheme)
    return Error{ErrorCode::invalid_argument, "packed tensor: holds scheme '" + std::string(scheme_name()) + "', not '" +
                                                  std::string(scheme) + "'; open it with that scheme"};
  const Extents e = extents();
  // The sizes of sections multiply by at most 16 bits, so bound the element count before computing them.
  if (!(CheckedSize(header_.rows) * header_.cols * 64).get())
    return Error{ErrorCode::corrupt_data,
                 "packed tensor: " + std::to_string(e.rows) + " x " + std::to_string(e.cols) + " weights are too many"};
  const SectionSizes sizes = needed(e);
  const struct {
    const char* what;
    std::uint64_t has;
    Index needs;
  } sections[] = {{"codes", header_.codes_bytes, sizes.codes},
                  {"scales", header_.scales_bytes, sizes.scales},
                  {"zero points", header_.zeros_bytes, sizes.zeros}};
  for (const auto& s : sections)
    if (static_cast<Index>(s.has) != s.needs)
      return Error{ErrorCode::corrupt_data, std::string("packed tensor: ") + s.what + " take " + std::to_string(s.has) +
                                                " bytes, the scheme needs " + std::to_string(s.needs)};
  std::vector<bool> seen(has_column_order() ? static_cast<std::size_t>(e.cols) : 0);
  for (Index j = 0; has_column_order() && j < e.cols; ++j) {
    const Index original = original_column(j);
    const bool exists = original < e.cols;
    if (!exists || seen[static_cast<std::size_t>(original)])
      return Error{ErrorCode::corrupt_data,
                   "packed tensor: column order entry " + std::to_string(j) + " is " + std::to_string(original) +
                       (exists ? ", which stands there twice" : " of " + std::to_string(e.cols) + " columns")};
    seen[static_cast<std::size_t>(original)] = true;
  }
  return Ok{};
}

inline Status PackedBytes::check_scales(Index count,
                                        void (*load)(const std::byte*, Index count, Index first, std::span<float>)) const {
  std::array<float, 256> some;
  for (Index first = 0; first < count; first += 256) {
    const auto part = std::span(some).first(static_cast<std::size_t>(std::min<Index>(256, count - first)));
    load(scales().data(), count, first, part);
    for (std::size_t i = 0; i < part.size(); ++i)
      if (!is_finite(part[i]) || part[i] < 0)
        return Error{ErrorCode::corrupt_data, "packed tensor: scale " + std::to_string(first + static_cast<Index>(i)) + " is " +
                                                  std::to_string(part[i]) + "; scales are finite and not negative"};
  }
  return Ok{};
}

}  // namespace ANYBIT_ABI
}  // namespace anybit

#include <anybit/core/macros_end.hpp>
