// EXPECT: anybit: encode and decode of a format must be constexpr (see format/format.hpp and docs/tutorial/03_a_format_of_your_own.md)
#include <anybit/scheme/scheme.hpp>

struct Mine {
  static constexpr int bits = 4;
  static constexpr std::string_view name = "mine";
  static constexpr anybit::Code encode(float x) { return x > 0; }
#ifdef ANYBIT_FIXED
  static constexpr float decode(anybit::Code c) { return c; }
#else
  static float decode(anybit::Code c) { return c; }
#endif
  static constexpr anybit::Affine fit(std::span<const float> w) { return anybit::fit_abs_max(w, 15); }
};

double bits = anybit::Scheme<Mine>::bits_per_weight({64, 64});
