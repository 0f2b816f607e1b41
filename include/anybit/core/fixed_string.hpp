#pragma once
// Names of schemes and formats, put together at compile time.

#include <cstddef>
#include <string_view>

#include <anybit/core/config.hpp>

namespace anybit {
inline namespace ANYBIT_ABI {

/// Text whose length is part of its type, so that names of templates ("superfloat5") are built at compile time.
template <std::size_t N>
struct FixedString {
  char text[N + 1]{};
  constexpr FixedString() = default;
  constexpr FixedString(const char (&literal)[N + 1]) {  // NOLINT(google-explicit-constructor)
    for (std::size_t i = 0; i < N; ++i) text[i] = literal[i];
  }
  constexpr operator std::string_view() const { return {text, N}; }  // NOLINT(google-explicit-constructor)
  constexpr std::string_view view() const { return {text, N}; }
};
template <std::size_t M>
FixedString(const char (&)[M]) -> FixedString<M - 1>;

template <std::size_t A, std::size_t B>
constexpr FixedString<A + B> operator+(const FixedString<A>& a, const FixedString<B>& b) {
  FixedString<A + B> r;
  for (std::size_t i = 0; i < A; ++i) r.text[i] = a.text[i];
  for (std::size_t i = 0; i < B; ++i) r.text[A + i] = b.text[i];
  return r;
}
template <std::size_t A, std::size_t M>
constexpr auto operator+(const FixedString<A>& a, const char (&b)[M]) {
  return a + FixedString<M - 1>(b);
}
template <std::size_t M, std::size_t B>
constexpr auto operator+(const char (&a)[M], const FixedString<B>& b) {
  return FixedString<M - 1>(a) + b;
}

/// The decimal digits of V >= 0.
template <long V>
constexpr auto decimal() {
  static_assert(V >= 0);
  if constexpr (V < 10) {
    const char digit[2] = {static_cast<char>('0' + V), 0};
    return FixedString<1>(digit);
  } else {
    return decimal<V / 10>() + decimal<V % 10>();
  }
}

}  // namespace ANYBIT_ABI
}  // namespace anybit
