// EXPECT: anybit: this format's encode gives codes of 2^bits and above: it needs more bits, or a Codebook<2^bits>
#include <anybit/format/codebook.hpp>
#include <anybit/scheme/scheme.hpp>

struct Mine {
#ifdef ANYBIT_FIXED
  static constexpr int bits = 4;
#else
  static constexpr int bits = 3;
#endif
  static constexpr std::string_view name = "mine";
  static constexpr anybit::Codebook<16> book{{-8, -7, -6, -5, -4, -3, -2, -1, 0, 1, 2, 3, 4, 5, 6, 7}};
  static constexpr anybit::Code encode(float x) { return book.encode(x); }
  static constexpr float decode(anybit::Code c) { return book.decode(c); }
  static constexpr anybit::Affine fit(std::span<const float> w) { return anybit::fit_abs_max<Mine>(w); }
};

double bits = anybit::Scheme<Mine>::bits_per_weight({64, 64});
