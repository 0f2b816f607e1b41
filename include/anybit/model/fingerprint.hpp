#pragma once
// Fingerprints of weights and of the code that sums, by which a state on disk knows the run that it belongs to.

#include <anybit/core/macros_begin.hpp>

#include <algorithm>
#include <cstdint>
#include <span>
#include <string_view>

#include <anybit/core/fingerprint.hpp>
#include <anybit/io/detail/text.hpp>
#include <anybit/nn/linear.hpp>

namespace anybit::model {
inline namespace ANYBIT_CODE {

namespace detail {

#define ANYBIT_BUILD_TEXT_(x) #x
#define ANYBIT_BUILD_TEXT(x) ANYBIT_BUILD_TEXT_(x)
/// Other code sums in another order, so that a run that goes on with it would not give the same bytes.
inline constexpr std::string_view build_name = "1, " ANYBIT_BUILD_TEXT(ANYBIT_CODE);
#undef ANYBIT_BUILD_TEXT
#undef ANYBIT_BUILD_TEXT_

/// Without what a file has filled up with zeros.
inline std::span<const std::byte> own_bytes(const PackedBytes& p) {
  std::uint64_t end = p.header().header_bytes;
  for (const PackedSection& s : p.sections()) end = std::max(end, s.offset + s.bytes);
  return p.bytes().first(static_cast<std::size_t>(end));
}

/// Weights and bias, without the adapter.
inline void add_linear(Fingerprint& f, const nn::Linear& l) {
  const Extents e = l.extents();
  f.add(io::detail::text(e.rows, "x", e.cols));
  if (l.dense()) f.add(std::span<const float>(l.dense()->data(), static_cast<std::size_t>(e.size())));
  if (l.packed()) f.add(own_bytes(l.packed()->bytes()));
  if (!l.bias().empty()) f.add(std::span<const float>(l.bias()));
}

}  // namespace detail

}  // namespace ANYBIT_CODE
}  // namespace anybit::model

#include <anybit/core/macros_end.hpp>
