#pragma once
// The laws of granularities, scale stores and layouts. Buffers have exactly the size that is asked for, so that a sanitizer sees
// any step beyond them.

#include <anybit/core/macros_begin.hpp>

#include <algorithm>
#include <memory>
#include <span>

#include <anybit/core/finite.hpp>
#include <anybit/scheme/granularity.hpp>
#include <anybit/scheme/layout.hpp>
#include <anybit/scheme/scale_store.hpp>
#include <anybit/testing/violation.hpp>

namespace anybit::testing {
inline namespace ANYBIT_CODE {

/// Runs of scales of several lengths and kinds: ordinary, equal, spread over many magnitudes, with zeros, tiny, huge, one
/// outlier.
inline std::vector<std::vector<float>> scale_examples() {
  std::vector<std::vector<float>> examples;
  Numbers numbers(11);
  for (const std::size_t n : {0u, 1u, 2u, 3u, 17u, 255u, 256u, 257u, 700u})
    for (int kind = 0; kind < 8; ++kind) {
      std::vector<float> s(n);
      for (float& v : s) {
        const float u = numbers.uniform(0, 1);
        switch (kind) {
          case 0: v = 0.01f + 0.05f * u; break;
          case 1: v = 0.0123f; break;
          case 2: v = std::exp2(40 * u - 20); break;
          case 3: v = u < 0.3f ? 0.0f : u; break;
          case 4: v = u * 0x1p-130f; break;
          case 5: v = u * std::numeric_limits<float>::max(); break;
          case 6: v = 1 + u * 1e-5f; break;
          default: v = 0.02f + 0.001f * u;
        }
      }
      if (kind == 7 && n > 0) s[numbers.below(n)] = 3;
      examples.push_back(std::move(s));
    }
  return examples;
}

template <ScaleStore S>
Violation check_scale_store(std::span<const float> scales) {
  const std::string here =
      std::string(std::string_view(S::name)) + " of " + shown(static_cast<double>(scales.size())) + " scales: ";
  const auto n = static_cast<Index>(scales.size());
  std::vector<float> stored(scales.begin(), scales.end());
  S::round_trip(stored);
  for (std::size_t i = 0; i < stored.size(); ++i)
    if (!is_finite(stored[i]) || stored[i] < 0)
      return here + shown(scales[i]) + " becomes " + shown(stored[i]) + ", which is no scale";

  std::vector<float> twice = stored;
  S::round_trip(twice);
  for (std::size_t i = 0; i < stored.size(); ++i)
    if (twice[i] != stored[i])
      return here + "not idempotent: " + shown(scales[i]) + " becomes " + shown(stored[i]) + ", then " + shown(twice[i]);

  if (S::bytes(n) < 0 || (n == 0 && S::bytes(0) != 0))
    return here + "takes " + shown(static_cast<double>(S::bytes(n))) + " bytes";
  const auto size = static_cast<std::size_t>(S::bytes(n));
  for (const std::span<const float> from : {scales, std::span<const float>(stored)}) {
    const auto bytes = std::make_unique<std::byte[]>(size);
    S::store(from, bytes.get());
    Numbers numbers(12);
    for (int part = 0; part < 20; ++part) {
      const std::size_t first = part == 0 ? 0 : numbers.below(scales.size() + 1);
      const std::size_t count = part == 0 ? scales.size() : numbers.below(scales.size() - first + 1);
      std::vector<float> loaded(count, -1);
      S::load(bytes.get(), n, static_cast<Index>(first), loaded);
      for (std::size_t i = 0; i < count; ++i)
        if (loaded[i] != stored[first + i])
          return here + "scale " + shown(static_cast<double>(first + i)) + " is " + shown(stored[first + i]) +
                 " after round_trip, but loads as " + shown(loaded[i]);
    }
  }

  if (!S::joint) {
    const std::size_t half = scales.size() / 2;
    std::vector<float> part(scales.begin() + static_cast<std::ptrdiff_t>(half), scales.end());
    S::round_trip(part);
    if (!std::equal(part.begin(), part.end(), stored.begin() + static_cast<std::ptrdiff_t>(half)))
      return here + "says joint = false, but a part of the scales is stored differently from the whole";
  }
  return {};
}

/// A scale up to S::largest is stored as at least half of it, scales below 1/64 of that aside; every scale above is stored as
/// S::largest is.
template <ScaleStore S>
Violation check_largest_scale() {
  const std::string here = std::string(std::string_view(S::name)) + ": ";
  const auto stored = [](float s) {
    S::round_trip({&s, 1});
    return s;
  };
  constexpr float largest = S::largest;
  if (!(largest > 0 && largest <= std::numeric_limits<float>::max())) return here + "its largest scale is " + shown(largest);
  const float most = stored(largest);
  for (const float part : {1.0f, 0.999f, 0.75f, 0.5f, 0.3f, 0.1f, 0.02f})
    if (const float s = largest * part; stored(s) < s / 2)
      return here + shown(s) + " becomes " + shown(stored(s)) + ", though it says that it saturates at " + shown(largest);
  for (const float s : {std::nextafter(largest, std::numeric_limits<float>::max()),
                        std::min(largest * 2, std::numeric_limits<float>::max()), std::numeric_limits<float>::max()})
    if (stored(s) != most)
      return here + shown(s) + " becomes " + shown(stored(s)) + ", though it says that it saturates at " + shown(largest) +
             ", which becomes " + shown(most);
  return {};
}

/// round_trip is idempotent and gives scales; store then load equals round_trip, in parts too; exactly bytes(n) bytes; `largest`
/// is where it saturates (stores of one value, like NoScale, are asked nothing about it).
template <ScaleStore S>
Violation check_scale_store_laws() {
  if (S::bytes(1) > 0)
    if (Violation v = check_largest_scale<S>(); !v.empty()) return v;
  for (const auto& scales : scale_examples())
    if (Violation v = check_scale_store<S>(scales); !v.empty()) return v;
  return {};
}

/// Every row of every shape up to 5 x 300, and of some larger ones, is cut into groups of its own, stored one after the other;
/// Scheme tries a few shapes only. PerTensor alone may share a group between rows.
template <Granularity G>
Violation check_granularity_laws() {
  const auto check = [](Extents e) -> Violation {
    const std::string here = std::string(std::string_view(G::name)) + " of " + shown(static_cast<double>(e.rows)) + " x " +
                             shown(static_cast<double>(e.cols)) + ": ";
    const Index width = G::group_cols(e.cols), groups = G::groups_per_row(e.cols);
    const auto is = [&](const char* what, Index got, Index wanted) {
      return here + what + " is " + shown(static_cast<double>(got)) + " and not " + shown(static_cast<double>(wanted));
    };
    if (e.cols > 0 && width < 1) return is("group_cols", width, 1);
    const Index wanted = e.cols > 0 ? ceil_div(e.cols, width) : 0;
    if (groups != wanted) return is("groups_per_row", groups, wanted);
    if (G::count(e) != e.rows * groups) return is("count", G::count(e), e.rows * groups);
    for (Index r = 0; r < e.rows; ++r)
      for (Index g = 0; g < groups; ++g)
        if (const Index i = G::index(e, r, g); i != r * groups + g) return is("index", i, r * groups + g);
    return {};
  };
  for (const Index rows : {0, 1, 2, 5})
    for (Index cols = 0; cols <= 300; ++cols)
      if (Violation v = check({rows, cols}); !v.empty()) return v;
  for (const Index cols : {1000, 4096, 11008, 65537})
    if (Violation v = check({3, cols}); !v.empty()) return v;
  return {};
}

/// Changes what the layout has no place for to its code of zero; most layouts hold everything.
template <class L, int Bits>
void make_storable(std::span<StoredCode<Bits>> codes) {
  if constexpr (PartialLayout<L, Bits>)
    for (Index i = L::template misfit<Bits>(codes); i >= 0; i = L::template misfit<Bits>(codes))
      codes[static_cast<std::size_t>(i)] = static_cast<StoredCode<Bits>>(L::zero_code);
}

/// Codes 0 .. code_count - 1 come back at every length from 0 to 300, whole and in parts that start at a granule; bytes depend
/// on nothing but the codes, and the unused bits at the end of a row are 0.
template <class L, int Bits>
  requires PackLayout<L, Bits>
Violation check_layout_laws(int code_count = 1 << Bits) {
  using Stored = StoredCode<Bits>;
  Numbers numbers(21);
  for (std::size_t n = 0; n <= 300; ++n) {
    const std::string here =
        std::string(std::string_view(L::name)) + " of " + shown(static_cast<double>(n)) + " codes of " + shown(Bits) + " bits: ";
    std::vector<Stored> codes(n);
    for (auto& c : codes)
      c = n % 7 == 3 ? static_cast<Stored>(code_count - 1)
                     : static_cast<Stored>(numbers.below(static_cast<std::size_t>(code_count)));
    make_storable<L, Bits>(codes);
    const auto length = static_cast<Index>(n);
    const auto size = static_cast<std::size_t>(L::template packed_bytes<Bits>(length));
    const auto bytes = std::make_unique<std::byte[]>(size), dirty = std::make_unique<std::byte[]>(size);
    std::fill_n(dirty.get(), size, std::byte{0xFF});
    L::template pack<Bits>(codes, bytes.get());
    L::template pack<Bits>(codes, dirty.get());
    if (!std::equal(bytes.get(), bytes.get() + size, dirty.get()))
      return here + "bits of the output that were set before stay set";

    std::vector<Stored> padded = codes;
    Stored filler = 0;
    if constexpr (PartialLayout<L, Bits>) filler = static_cast<Stored>(L::zero_code);
    padded.resize(n + static_cast<std::size_t>(L::granule), filler);
    std::vector<std::byte> longer(static_cast<std::size_t>(L::template packed_bytes<Bits>(static_cast<Index>(padded.size()))));
    L::template pack<Bits>(padded, longer.data());
    if (longer.size() < size || !std::equal(bytes.get(), bytes.get() + size, longer.begin()))
      return here + "unused bits of the last byte are not 0";

    for (int part = 0; part < 8; ++part) {
      const std::size_t granule = static_cast<std::size_t>(L::granule);
      const std::size_t first = part == 0 ? 0 : numbers.below(n / granule + 1) * granule;
      const std::size_t count = part == 0 ? n : numbers.below(n - first + 1);
      std::vector<Stored> out(count, static_cast<Stored>(~Stored{0}));
      L::template unpack<Bits>(bytes.get(), length, static_cast<Index>(first), out);
      for (std::size_t i = 0; i < count; ++i)
        if (out[i] != codes[first + i])
          return here + "code " + shown(static_cast<double>(first + i)) + " is " + shown(codes[first + i]) + ", but unpacks as " +
                 shown(out[i]) + " from " + shown(static_cast<double>(first)) + " on";
    }
  }
  return {};
}

}  // namespace ANYBIT_CODE
}  // namespace anybit::testing

#include <anybit/core/macros_end.hpp>
