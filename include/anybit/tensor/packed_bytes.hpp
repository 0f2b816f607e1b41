#pragma once
// Packed weights without their type: a versioned little-endian header and sections of bytes. Files and run-time handles
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
#include <anybit/scheme/concepts.hpp>

namespace anybit {
inline namespace ANYBIT_ABI {

/// Bytes 0 to 63 of a packed tensor.
///
/// Version 1 has the sections codes, scales, zeros and order, in this order; the scheme's name and the provenance text follow the
/// header, then zeros up to header_bytes (a multiple of 64), then the sections, each starting at a multiple of 64. Tensors of
/// such sections are written so, for readers of any age. Version 2 has any sections: their number stands in the place of
/// codes_bytes (the three sizes behind it are 0), and so many PackedSections follow the header, then name, text and zeros as
/// above.
struct PackedHeader {
  static constexpr std::array<char, 4> expected_magic{'A', 'N', 'Y', 'B'};
  static constexpr std::uint16_t current_version = 2;

  std::array<char, 4> magic = expected_magic;
  std::uint16_t version = 1;
  std::uint16_t name_bytes = 0;
  std::uint32_t provenance_bytes = 0;
  std::uint32_t header_bytes = 0;
  std::uint64_t rows = 0, cols = 0;
  std::uint64_t codes_bytes = 0, scales_bytes = 0, zeros_bytes = 0;
  std::uint64_t order_bytes = 0;  ///< 0, or 4 * cols: the original column of each stored column
};
static_assert(sizeof(PackedHeader) == 64);

/// An entry of version 2's table. Offsets count from the first byte of the header, are multiples of 64 and rise; no tag comes
/// twice. A reader that does not know a tag leaves the section alone, unless it is marked as required: then the tensor means
/// something else without it, and is refused.
struct PackedSection {
  static constexpr std::uint32_t is_required = 1;

  SectionTag tag{};
  std::uint32_t flags = 0;
  std::uint64_t offset = 0, bytes = 0;

  bool required() const { return (flags & is_required) != 0; }
};
static_assert(sizeof(PackedSection) == 24);

class PackedBytes {
 public:
  PackedBytes() = default;

  /// Zeroed sections under a filled header. All sections of a scheme are required.
  template <class = UnderTheseFlags>
  static PackedBytes allocate(std::string_view scheme_name, std::string_view provenance, Extents e,
                              std::span<const SectionSize> sections, Index order);
  template <class = UnderTheseFlags>
  static PackedBytes allocate(std::string_view scheme_name, std::string_view provenance, Extents e, Index codes, Index scales,
                              Index zeros, Index order) {
    return allocate(
        scheme_name, provenance, e,
        std::array<SectionSize, 3>{{{section_tags::codes, codes}, {section_tags::scales, scales}, {section_tags::zeros, zeros}}},
        order);
  }

  /// Takes bytes that somebody keeps alive (a mapped file). The error says which field contradicts which.
  template <class = UnderTheseFlags>
  static Result<PackedBytes> view(std::span<const std::byte> bytes);
  template <class = UnderTheseFlags>
  static Result<PackedBytes> copy(std::span<const std::byte> bytes);

  const PackedHeader& header() const { return header_; }
  Extents extents() const { return {static_cast<Index>(header_.rows), static_cast<Index>(header_.cols)}; }
  std::string_view scheme_name() const { return text(names_at(), header_.name_bytes); }
  std::string_view provenance() const { return text(names_at() + header_.name_bytes, header_.provenance_bytes); }

  std::span<const std::byte> bytes() const { return owned_.empty() ? viewed_ : owned_.bytes(); }
  /// Every section there is, known or not.
  std::span<const PackedSection> sections() const { return sections_; }
  /// The section with this tag; empty if there is none.
  std::span<const std::byte> section(const SectionTag& tag) const {
    for (const PackedSection& s : sections_)
      if (s.tag == tag) return at({s.offset, s.bytes});
    return {};
  }
  std::span<const std::byte> codes() const { return at(places_[0]); }
  std::span<const std::byte> scales() const { return at(places_[1]); }
  std::span<const std::byte> zeros() const { return at(places_[2]); }
  std::span<const std::byte> order() const { return at(places_[3]); }
  /// Only of owned bytes.
  std::span<std::byte> mutable_section(std::span<const std::byte> section) {
    ANYBIT_CHECK(!owned_.empty(), "PackedBytes::mutable_section of a view");
    return {owned_.data() + (section.data() - owned_.data()), section.size()};
  }

  bool has_column_order() const { return places_[3].bytes != 0; }
  /// Where a column stood before columns were reordered; only with a column order.
  Index original_column(Index stored) const {
    std::uint32_t v;
    std::memcpy(&v, order().data() + 4 * stored, 4);
    return static_cast<Index>(v);
  }

  /// That these are bytes of `scheme`, and of a shape whose sections have sizes. The error names the scheme that they have.
  template <class = UnderTheseFlags>
  Status check_scheme(std::string_view scheme) const;
  /// That its sections take so many bytes, or at most so many, no other one is required, and the column order, if there is one,
  /// can be. The error names the section or the column.
  template <class = UnderTheseFlags>
  Status check_sections(std::span<const SectionSize> needed) const;
  /// That all `count` scales are finite and not negative, as the store's load() reads them.
  using LoadScales = void (*)(const std::byte*, Index count, Index first, std::span<float>);
  template <class = UnderTheseFlags>
  Status check_scales(Index count, LoadScales load) const;
  /// All three, of a scheme with codes: its sections and its number of scales, for a shape.
  template <class = UnderTheseFlags>
  Status check_scalar(std::string_view scheme, std::array<SectionSize, 3> (*needed)(Extents), Index (*scale_count)(Extents),
                      LoadScales load) const;

  bool empty() const { return bytes().empty(); }
  /// Bytes that hold weights: sections without padding, header and names.
  Index payload_bytes() const {
    std::uint64_t all = 0;
    for (const PackedSection& s : sections_) all += s.bytes;
    return static_cast<Index>(all);
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
  struct Place {
    std::uint64_t offset = 0, bytes = 0;
  };
  std::span<const std::byte> at(Place p) const { return bytes().subspan(p.offset, p.bytes); }
  std::size_t names_at() const {
    return sizeof(PackedHeader) + (header_.version == 1 ? 0 : sections_.size() * sizeof(PackedSection));
  }
  static constexpr std::uint64_t up(std::uint64_t v) { return (v + align - 1) / align * align; }
  /// Sections one behind the other from the header's end on; where the last one ends.
  std::uint64_t place_sections();
  void find_places();
  template <class = UnderTheseFlags>
  Status parse(std::span<const std::byte> bytes);
  template <class = UnderTheseFlags>
  Status parse_table(std::span<const std::byte> bytes);

  PackedHeader header_{};
  std::vector<PackedSection> sections_;  ///< of both versions
  std::array<Place, 4> places_{};        ///< of codes, scales, zeros, order
  AlignedBuffer owned_;
  std::span<const std::byte> viewed_;
};

inline void PackedBytes::find_places() {
  constexpr SectionTag tags[] = {section_tags::codes, section_tags::scales, section_tags::zeros, section_tags::order};
  for (std::size_t i = 0; i < places_.size(); ++i)
    for (const PackedSection& s : sections_)
      if (s.tag == tags[i]) places_[i] = {s.offset, s.bytes};
}

inline std::uint64_t PackedBytes::place_sections() {
  std::uint64_t end = header_.header_bytes;
  for (PackedSection& s : sections_) {
    s.offset = up(end);
    end = s.offset + s.bytes;
  }
  find_places();
  return end;
}

template <class>
PackedBytes PackedBytes::allocate(std::string_view scheme_name, std::string_view provenance, Extents e,
                                  std::span<const SectionSize> sections, Index order) {
  PackedBytes p;
  PackedHeader& h = p.header_;
  constexpr std::size_t longest = 0xFFFF;
  scheme_name = scheme_name.substr(0, longest);
  provenance = provenance.substr(0, longest);
  for (const SectionSize& s : sections)
    p.sections_.push_back({s.tag, PackedSection::is_required, 0, static_cast<std::uint64_t>(s.bytes)});
  const bool version_1 = sections.size() == 3 && sections[0].tag == section_tags::codes &&
                         sections[1].tag == section_tags::scales && sections[2].tag == section_tags::zeros;
  if (version_1 || order > 0)
    p.sections_.push_back({section_tags::order, PackedSection::is_required, 0, static_cast<std::uint64_t>(order)});
  h.version = version_1 ? 1 : 2;
  h.name_bytes = static_cast<std::uint16_t>(scheme_name.size());
  h.provenance_bytes = static_cast<std::uint32_t>(provenance.size());
  h.header_bytes = static_cast<std::uint32_t>(up(p.names_at() + scheme_name.size() + provenance.size()));
  h.rows = static_cast<std::uint64_t>(e.rows);
  h.cols = static_cast<std::uint64_t>(e.cols);
  if (version_1)
    h.codes_bytes = p.sections_[0].bytes, h.scales_bytes = p.sections_[1].bytes, h.zeros_bytes = p.sections_[2].bytes,
    h.order_bytes = p.sections_[3].bytes;
  else
    h.codes_bytes = p.sections_.size();
  p.owned_ = AlignedBuffer(static_cast<std::size_t>(p.place_sections()));
  std::memcpy(p.owned_.data(), &h, sizeof h);
  if (!version_1) std::memcpy(p.owned_.data() + sizeof h, p.sections_.data(), p.sections_.size() * sizeof(PackedSection));
  std::memcpy(p.owned_.data() + p.names_at(), scheme_name.data(), scheme_name.size());
  std::memcpy(p.owned_.data() + p.names_at() + scheme_name.size(), provenance.data(), provenance.size());
  return p;
}

namespace detail {
[[gnu::cold]] inline Error bad_packed_bytes(std::string what) {
  return {ErrorCode::corrupt_data, "packed tensor: " + std::move(what)};
}
/// How messages call a section.
[[gnu::cold]] inline std::string section_name(const SectionTag& tag) {
  if (tag == section_tags::codes) return "codes";
  if (tag == section_tags::scales) return "scales";
  if (tag == section_tags::zeros) return "zero points";
  if (tag == section_tags::order) return "column order";
  std::string name = "section '";
  for (const char c : tag) name += c >= ' ' && c <= '~' ? c : '?';
  return name + "'";
}
}  // namespace detail

template <class>
[[gnu::cold]] Status PackedBytes::parse(std::span<const std::byte> bytes) {
  const auto bad = &detail::bad_packed_bytes;
  PackedHeader& h = header_;
  if (bytes.size() < sizeof h)
    return bad("has " + std::to_string(bytes.size()) + " bytes, fewer than its header of 64; the file is truncated");
  std::memcpy(&h, bytes.data(), sizeof h);
  if (h.magic != PackedHeader::expected_magic) return bad("does not start with ANYB; this is not a packed tensor");
  if (h.version < 1 || h.version > PackedHeader::current_version)
    return Error{ErrorCode::unsupported,
                 "packed tensor: has layout version " + std::to_string(h.version) + "; this build reads versions 1 and 2"};
  const std::uint64_t table = h.version == 1 ? 0 : h.codes_bytes;
  constexpr std::uint64_t most_sections = 1024;
  if (table > most_sections) return bad("has a table of " + std::to_string(table) + " sections; 1024 are the most");
  if (h.header_bytes % align != 0 ||
      h.header_bytes < sizeof h + table * sizeof(PackedSection) + std::uint64_t{h.name_bytes} + h.provenance_bytes)
    return bad("header size " + std::to_string(h.header_bytes) + " does not hold its names");
  if (!CheckedSize(h.rows).get() || !CheckedSize(h.cols).get() || !(CheckedSize(h.rows) * h.cols).get())
    return bad("sizes overflow (" + std::to_string(h.rows) + " x " + std::to_string(h.cols) + ")");
  if (h.version == 1) {
    const CheckedSize end =
        (((CheckedSize(h.header_bytes) + h.codes_bytes).rounded_up(align) + h.scales_bytes).rounded_up(align) + h.zeros_bytes)
            .rounded_up(align) +
        h.order_bytes;
    if (!end.get()) return bad("sizes overflow (" + std::to_string(h.rows) + " x " + std::to_string(h.cols) + ")");
    if (static_cast<std::uint64_t>(*end.get()) > bytes.size())
      return bad("needs " + std::to_string(*end.get()) + " bytes but has " + std::to_string(bytes.size()) +
                 "; the file is truncated");
    const auto add = [&](const SectionTag& tag, std::uint64_t size) {
      sections_.push_back({tag, PackedSection::is_required, 0, size});
    };
    add(section_tags::codes, h.codes_bytes), add(section_tags::scales, h.scales_bytes), add(section_tags::zeros, h.zeros_bytes);
    add(section_tags::order, h.order_bytes);
    place_sections();
  } else {
    ANYBIT_TRY_STATUS(parse_table(bytes));
  }
  if (const std::uint64_t order = places_[3].bytes; order != 0 && order != 4 * h.cols)
    return bad("column order has " + std::to_string(order) + " bytes for " + std::to_string(h.cols) + " columns");
  return Ok{};
}

template <class>
[[gnu::cold]] Status PackedBytes::parse_table(std::span<const std::byte> bytes) {
  const auto bad = &detail::bad_packed_bytes;
  const PackedHeader& h = header_;
  if (h.header_bytes > bytes.size())
    return bad("has " + std::to_string(bytes.size()) + " bytes, fewer than its header of " + std::to_string(h.header_bytes) +
               "; the file is truncated");
  sections_.resize(static_cast<std::size_t>(h.codes_bytes));
  if (!sections_.empty()) std::memcpy(sections_.data(), bytes.data() + sizeof h, sections_.size() * sizeof(PackedSection));
  std::uint64_t end = h.header_bytes;
  for (std::size_t i = 0; i < sections_.size(); ++i) {
    const PackedSection& s = sections_[i];
    const std::string name = detail::section_name(s.tag);
    if (s.offset % align != 0 || s.offset < end)
      return bad(name + " starts at byte " + std::to_string(s.offset) + ", no multiple of 64 behind the section before it");
    const CheckedSize stop = CheckedSize(s.offset) + s.bytes;
    if (!stop.get()) return bad("sizes overflow (" + name + " of " + std::to_string(s.bytes) + " bytes)");
    end = static_cast<std::uint64_t>(*stop.get());
    if (end > bytes.size())
      return bad("needs " + std::to_string(end) + " bytes for " + name + " but has " + std::to_string(bytes.size()) +
                 "; the file is truncated");
    for (std::size_t j = 0; j < i; ++j)
      if (sections_[j].tag == s.tag) return bad(name + " stands in the table twice");
  }
  find_places();
  return Ok{};
}

template <class>
Result<PackedBytes> PackedBytes::view(std::span<const std::byte> bytes) {
  PackedBytes p;
  ANYBIT_TRY_STATUS(p.parse(bytes));
  p.viewed_ = bytes;
  return p;
}

template <class>
Result<PackedBytes> PackedBytes::copy(std::span<const std::byte> bytes) {
  ANYBIT_TRY(PackedBytes p, view(bytes));
  p.owned_ = AlignedBuffer(bytes.size());
  std::memcpy(p.owned_.data(), bytes.data(), bytes.size());
  p.viewed_ = {};
  return p;
}

template <class>
[[gnu::cold]] Status PackedBytes::check_scheme(std::string_view scheme) const {
  if (scheme_name() != scheme)
    return Error{ErrorCode::invalid_argument, "packed tensor: holds scheme '" + std::string(scheme_name()) + "', not '" +
                                                  std::string(scheme) + "'; open it with that scheme"};
  // The sizes of sections multiply by at most 16 bits, so bound the element count before computing them.
  if (!(CheckedSize(header_.rows) * header_.cols * 64).get())
    return Error{ErrorCode::corrupt_data, "packed tensor: " + std::to_string(extents().rows) + " x " +
                                              std::to_string(extents().cols) + " weights are too many"};
  return Ok{};
}

template <class>
[[gnu::cold]] Status PackedBytes::check_sections(std::span<const SectionSize> needed) const {
  for (const SectionSize& n : needed)
    if (const auto has = static_cast<Index>(section(n.tag).size()); n.at_most ? has > n.bytes : has != n.bytes)
      return Error{ErrorCode::corrupt_data, "packed tensor: " + detail::section_name(n.tag) + " take " + std::to_string(has) +
                                                " bytes, the scheme needs " + (n.at_most ? "at most " : "") +
                                                std::to_string(n.bytes)};
  for (const PackedSection& s : sections_) {
    bool known = s.tag == section_tags::order || !s.required() || s.bytes == 0;
    for (const SectionSize& n : needed) known = known || s.tag == n.tag;
    if (!known)
      return Error{ErrorCode::unsupported, "packed tensor: " + detail::section_name(s.tag) + " is required, and this build's '" +
                                               std::string(scheme_name()) + "' does not know it; read it with a newer one"};
  }
  const Extents e = extents();
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

template <class>
Status PackedBytes::check_scales(Index count, LoadScales load) const {
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

template <class>
Status PackedBytes::check_scalar(std::string_view scheme, std::array<SectionSize, 3> (*needed)(Extents),
                                 Index (*scale_count)(Extents), LoadScales load) const {
  ANYBIT_TRY_STATUS(check_scheme(scheme));
  ANYBIT_TRY_STATUS(check_sections(needed(extents())));
  if (scales().empty()) return Ok{};
  return check_scales(scale_count(extents()), load);
}

}  // namespace ANYBIT_ABI
}  // namespace anybit

#include <anybit/core/macros_end.hpp>
