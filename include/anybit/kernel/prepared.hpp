#pragma once
// The answer of AnyPacked::prepare() and its kin, and the header of prepared bytes in memory or files of the caller.

#include <anybit/core/macros_begin.hpp>

#include <array>
#include <cstdint>
#include <cstring>
#include <span>
#include <string>
#include <string_view>

#include <anybit/core/fingerprint.hpp>
#include <anybit/core/result.hpp>
#include <anybit/kernel/compute.hpp>
#include <anybit/tensor/packed_bytes.hpp>
#include <anybit/tensor/scheme_ops.hpp>

namespace anybit::kernel {
inline namespace ANYBIT_ABI {

/// What AnyPacked::prepare() made.
struct Prepared {
  bool tiled = false;              ///< products of `compute` read the kernel layout, in integers; else they go on as before
  Compute compute = Compute::f32;  ///< asked for; products of another compute read the packed weights
  float level_error = 0;           ///< asked for
  Index bytes = 0;                 ///< of the kernel layout, beside the packed weights
  std::string_view why_not;        ///< why nothing was made, as part of a sentence; empty if tiled
  float fold_error = default_fold_error;  ///< asked for
  Index folded_rows = 0;                  ///< of Compute::int8_folded; other rows multiply as with int8_per_token
  bool in_place = false;                  ///< nothing is to be made: products of `compute` read packed bytes, in integers
  explicit operator bool() const { return tiled; }
};

/// Why products of this compute have no layout of their own; null if they may have.
constexpr const char* why_not_prepared(Compute compute) {
  return rounds_to_int8(compute) ? nullptr : "products with activations in float read the packed weights";
}

/// Where the kernel layout of a tensor goes.
struct Placement {
  enum What {
    own,      ///< memory of its own
    given,    ///< `memory`
    made,     ///< nowhere: it is at `bytes` already
    nowhere,  ///< only its size is asked for
  } what = own;
  std::byte* memory = nullptr;
  const std::byte* bytes = nullptr;
};

/// Comes before the layout. Plain bytes of this machine: a file of them is a cache, not a format.
struct PreparedHeader {
  static constexpr std::uint32_t layout_version = 1;  ///< rises when tiles of the same weights become other bytes

  char magic[8] = {'a', 'n', 'y', 'b', 'i', 't', 'P', 'L'};
  std::uint32_t version = layout_version, compute = 0;
  std::int64_t rows = 0, cols = 0, bytes = 0;  ///< of the layout
  std::uint64_t tensor = 0;                    ///< fingerprint of the packed bytes
  float level_error = 0;
  std::uint32_t zeros = 0;
  char isa[24] = {}, scheme[40] = {};  ///< shortened
  char rest[8] = {};
};
static_assert(sizeof(PreparedHeader) == 128);

/// Of the scheme, the size, and 256 pieces of 64 bytes spread over all of them: enough to tell tensors apart without reading one
/// whole.
inline std::uint64_t fingerprint_of(const PackedBytes& packed) {
  constexpr std::size_t pieces = 256, length = 64;
  const std::span<const std::byte> all = packed.bytes();
  Fingerprint f;
  f.add(packed.scheme_name());
  if (all.size() <= pieces * length) return f.add(all).value();
  const std::size_t last = all.size() - length;
  for (std::size_t i = 0; i < pieces; ++i) f.add(all.subspan(last / (pieces - 1) * i, length));
  const std::uint64_t size = all.size();
  return f.add(std::span<const std::uint64_t>(&size, 1)).value();
}

inline PreparedHeader header_of(const SchemeOps& scheme, std::string_view isa, const PackedBytes& packed, const Prepared& made) {
  PreparedHeader h;
  h.compute = static_cast<std::uint32_t>(made.compute);
  h.rows = packed.extents().rows, h.cols = packed.extents().cols, h.bytes = made.bytes;
  h.tensor = fingerprint_of(packed), h.level_error = made.level_error;
  isa.copy(h.isa, sizeof h.isa - 1);
  scheme.name.copy(h.scheme, sizeof h.scheme - 1);
  return h;
}

/// Whether memory of the caller can take `needed` bytes.
inline Status check_place(std::span<const std::byte> memory, Index needed) {
  const auto past = reinterpret_cast<std::uintptr_t>(memory.data()) % 64;
  if (static_cast<Index>(memory.size()) < needed)
    return Error{ErrorCode::invalid_argument, "prepared weights: " + std::to_string(memory.size()) +
                                                  " bytes of memory are given and " + std::to_string(needed) +
                                                  " needed: ask prepared_bytes() first"};
  if (past != 0)
    return Error{ErrorCode::invalid_argument,
                 "prepared weights: the memory starts " + std::to_string(past) + " bytes past a multiple of 64: align it to 64"};
  return Ok{};
}

/// Whether bytes are what `expected` describes.
inline Status check_prepared(std::span<const std::byte> made, const PreparedHeader& expected) {
  PreparedHeader found;
  const auto wrong = [](const std::string& text) {
    return Error{ErrorCode::invalid_argument, "prepared weights: " + text + ": prepare the tensor again"};
  };
  if (made.size() < sizeof found) return wrong(std::to_string(made.size()) + " bytes are less than a header");
  std::memcpy(&found, made.data(), sizeof found);
  if (std::memcmp(found.magic, expected.magic, sizeof found.magic) != 0) return wrong("the bytes do not start with 'anybitPL'");
  const auto differ = [&](const char* what, const std::string& theirs, const std::string& ours) {
    return wrong(std::string("they were made for ") + what + " " + theirs + ", and here it is " + ours);
  };
  const auto shape = [](const PreparedHeader& h) { return std::to_string(h.rows) + "x" + std::to_string(h.cols); };
  const auto text = [](const auto& chars) { return std::string(chars, strnlen(chars, sizeof chars)); };
  const auto compute = [](const PreparedHeader& h) {
    return h.compute < compute_names.size() ? std::string(compute_names[h.compute]) : std::to_string(h.compute);
  };
  if (found.version != expected.version)
    return differ("layout version", std::to_string(found.version), std::to_string(expected.version));
  if (std::memcmp(found.isa, expected.isa, sizeof found.isa) != 0)
    return differ("architecture", text(found.isa), text(expected.isa));
  if (std::memcmp(found.scheme, expected.scheme, sizeof found.scheme) != 0)
    return differ("scheme", text(found.scheme), text(expected.scheme));
  if (found.rows != expected.rows || found.cols != expected.cols) return differ("a tensor of", shape(found), shape(expected));
  if (found.tensor != expected.tensor)
    return differ("a tensor with fingerprint", std::to_string(found.tensor), std::to_string(expected.tensor));
  if (found.compute != expected.compute) return differ("compute", compute(found), compute(expected));
  if (std::memcmp(&found.level_error, &expected.level_error, sizeof found.level_error) != 0)
    return differ("level_error", std::to_string(found.level_error), std::to_string(expected.level_error));
  if (found.bytes != expected.bytes)
    return differ("a layout of bytes", std::to_string(found.bytes), std::to_string(expected.bytes));
  const Index needed = static_cast<Index>(sizeof found) + expected.bytes;
  if (static_cast<Index>(made.size()) < needed)
    return wrong("they are cut off, " + std::to_string(made.size()) + " bytes of " + std::to_string(needed));
  return check_place(made, needed);
}

}  // namespace ANYBIT_ABI
}  // namespace anybit::kernel

#include <anybit/core/macros_end.hpp>
