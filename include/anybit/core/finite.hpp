#pragma once
// NaN and infinity in what comes from outside. Compilers may take both for impossible (-ffast-math, -ffinite-math-only) and drop
// comparisons that look for them; so these functions look at the bits, and input is checked with nothing else.

#include <bit>
#include <concepts>
#include <cstdint>
#include <type_traits>
#include <utility>

#include <anybit/core/view.hpp>

namespace anybit {
inline namespace ANYBIT_ABI {

namespace detail {
/// By reference: an argument passed by value in a register of floats may be assumed finite by the caller's flags.
template <std::floating_point T>
constexpr ANYBIT_INLINE auto magnitude_of(const T& x) {
  using Bits = std::conditional_t<sizeof(T) == 4, std::uint32_t, std::uint64_t>;
  return static_cast<Bits>(std::bit_cast<Bits>(x) << 1);  // without the sign
}
template <std::floating_point T>
inline constexpr auto infinite_magnitude =
    static_cast<decltype(magnitude_of(T{}))>(sizeof(T) == 4 ? 0xFF000000u : 0xFFE0000000000000u);
}  // namespace detail

template <std::floating_point T>
constexpr ANYBIT_INLINE bool is_finite(const T& x) {
  return detail::magnitude_of(x) < detail::infinite_magnitude<T>;
}
template <std::floating_point T>
constexpr ANYBIT_INLINE bool is_infinite(const T& x) {
  return detail::magnitude_of(x) == detail::infinite_magnitude<T>;
}
template <std::floating_point T>
constexpr ANYBIT_INLINE bool is_nan(const T& x) {
  return detail::magnitude_of(x) > detail::infinite_magnitude<T>;
}
/// low <= x <= high. False for NaN.
template <std::floating_point T>
constexpr ANYBIT_INLINE bool is_within(const T& x, std::type_identity_t<T> low, std::type_identity_t<T> high) {
  return !is_nan(x) && x >= low && x <= high;
}

}  // namespace ANYBIT_ABI

inline namespace ANYBIT_CODE {

/// Where a matrix has its first NaN or infinity, or {-1, -1}.
inline std::pair<Index, Index> find_not_finite(ConstMatrix m) {
  for (Index r = 0; r < m.rows; ++r) {
    std::uint32_t bad = 0;
    for (const float& v : m.row(r)) bad |= static_cast<std::uint32_t>(!is_finite(v));
    if (bad == 0) continue;
    for (Index c = 0; c < m.cols; ++c)
      if (!is_finite(m(r, c))) return {r, c};
  }
  return {-1, -1};
}

}  // namespace ANYBIT_CODE
}  // namespace anybit
