#include "kernel/products.hpp"

using namespace anybit;
using namespace products;

namespace {

// A user's formats: levels without any pattern, and uniform ones whose codes are in no usual order.
struct Odd3 {
  static constexpr int bits = 3;
  static constexpr auto name = FixedString("odd3");
  static constexpr Codebook<8> book{{0.0f, -1.5f, 0.125f, 2.0f, -0.25f, 0.7f, -3.0f, 1.1f}};
  static constexpr Code encode(float x) { return book.encode(x); }
  static constexpr float decode(Code c) { return book.decode(c); }
  static constexpr Affine fit(std::span<const float> v) { return fit_abs_max(v, 3.0f); }
};
template <int Bits>
struct Curve {
  static constexpr int bits = Bits;
  static constexpr auto name = FixedString("curve") + decimal<Bits>();
  static constexpr float last = static_cast<float>((1 << Bits) - 1);
  static constexpr Code encode(float x) { return x > 0 ? (1 << Bits) - 1 : 0; }
  static constexpr float decode(Code c) {
    return (static_cast<float>(c) / last - 0.5f) * (static_cast<float>(c) / last - 0.31f) * 40;
  }
  static constexpr Affine fit(std::span<const float> v) { return fit_abs_max(v, 13.8f); }
};
struct Reversed5 {  // uniform: level = 3 * (20 - c)
  static constexpr int bits = 5;
  static constexpr auto name = FixedString("reversed5");
  static constexpr float step = 3;
  static constexpr std::int32_t to_int(Code c) { return 20 - c; }
  static constexpr Code encode(float) { return 0; }
  static constexpr float decode(Code c) { return static_cast<float>(to_int(c)) * step; }
  static constexpr Affine fit(std::span<const float> v) { return fit_abs_max(v, 60.0f); }
};

}  // namespace

TEST_CASE("products with other formats agree with the reference") {
  agree_everywhere<presets::Nf4DoubleQuant>();
  agree_everywhere<presets::Mxfp4>();
  agree_everywhere<Scheme<Minifloat<4, 3>>>();
  agree_everywhere<Scheme<Minifloat<5, 2>, PerGroup<64>>>();
  agree_everywhere<Scheme<Minifloat<3, 2>, PerGroup<3>>>();
  agree_everywhere<Scheme<Minifloat<2, 3>, PerRow>>();
  agree_everywhere<presets::BitNet>();
  agree_everywhere<presets::TernaryGroup128>();
  agree_everywhere<Scheme<Ternary, PerGroup<24>>>();
  agree_everywhere<Scheme<Odd3>>();
  agree_everywhere<Scheme<Curve<6>, PerGroup<32>>>();
  agree_everywhere<Scheme<Curve<7>, PerGroup<48>>>();
  agree_everywhere<Scheme<Curve<8>>>();
  agree_everywhere<Scheme<Reversed5, PerGroup<40>>>();
}
