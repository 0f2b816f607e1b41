#pragma once
// Packed weights without their type: a versioned little-endian header and three runs of bytes. Files and run-time handles
// work with this; PackedTensor<Scheme> adds the type.

#include <array>
#include <cstring>
#include <span>
#include <string>
#include <string_view>

#include <anybit/core/aligned_buffer.hpp>
#include <anybit/core/checked.hpp>
#include <anybit/core/result.hpp>
#include <anybit/core/types.hpp>

namespace anybit::inline ANYBIT_ABI {

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

}  // namespace anybit::inline ANYBIT_ABI
