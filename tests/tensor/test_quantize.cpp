// Codes of whole groups against quantize_value, one weight at a time, and quantize_nearest against its definition.

#include <anybit/tensor/pack_nearest.hpp>
#include <anybit/tensor/quantize.hpp>

#include <cmath>
#include <limits>
#include <random>
#include <vector>

#include "examples.hpp"
#include "support/catch.hpp"

using namespace anybit;

namespace {

/// Level k / 4, but rounded down: uniform, with an encoder that is not ordinary rounding.
struct Floor3 {
  static constexpr int bits = 3;
  static constexpr auto name = FixedString("floor3");
  static constexpr float step = 0.25f;
  static Code encode(float x) { return static_cast<Code>(x >= 1.75f ? 7 : x >= 0 ? static_cast<int>(x * 4) : 0); }
  static constexpr std::int32_t to_int(Code c) { return c; }
  static constexpr float decode(Code c) { return 0.25f * static_cast<float>(c); }
  static Affine fit(std::span<const float> v) { return fit_abs_max(v, 1.75f); }
};
/// A step that is no power of two.
struct Thirds {
  static constexpr int bits = 5;
  static constexpr auto name = FixedString("thirds");
  static constexpr float step = 1.0f / 3;
  static Code encode(float x) {
    return static_cast<Code>(!(x > -5) ? 0 : x >= 16.0f / 3 ? 31 : static_cast<int>(std::nearbyint(x * 3)) + 15);
  }
  static constexpr std::int32_t to_int(Code c) { return c - 15; }
  static constexpr float decode(Code c) { return static_cast<float>(c - 15) / 3; }
  static Affine fit(std::span<const float> v) { return fit_abs_max(v, 5.0f); }
};
/// Levels in no order.
struct Shuffled {
  static constexpr int bits = 2;
  static constexpr auto name = FixedString("shuffled");
  static constexpr Codebook<4> book{{0.5f, -1.0f, 1.0f, -0.25f}};
  static constexpr Code encode(float x) { return book.encode(x); }
  static constexpr float decode(Code c) { return book.decode(c); }
  static constexpr Affine fit(std::span<const float> v) { return fit_abs_max(v, 1.0f); }
};
/// Tells -0 from 0, which comparisons cannot.
struct SignOfZero {
  static constexpr int bits = 1;
  static constexpr auto name = FixedString("sign_of_zero");
  static Code encode(float x) { return std::signbit(x); }
  static constexpr float decode(Code c) { return c ? -1.0f : 1.0f; }
  static Affine fit(std::span<const float> v) { return fit_abs_max(v, 1.0f); }
};
/// One code for two stretches of the line.
struct Periodic {
  static constexpr int bits = 1;
  static constexpr auto name = FixedString("periodic");
  static Code encode(float x) { return std::abs(x) > 1 ? Code{1} : Code{0}; }
  static constexpr float decode(Code c) { return c ? 2.0f : 0.0f; }
  static Affine fit(std::span<const float> v) { return fit_abs_max(v, 2.0f); }
};
/// Levels dense around 0, in no order of codes, fewer than codes if N < 2^Bits.
template <int Bits, std::size_t N>
struct Book {
  static constexpr int bits = Bits;
  static constexpr auto name = FixedString("book") + decimal<Bits>();
  static constexpr Codebook<N> book{[] {
    std::array<float, N> levels{};
    for (std::size_t i = 0; i < N; ++i) {
      const float t = (2 * static_cast<float>(i * 77 % N) - static_cast<float>(N - 1)) / static_cast<float>(N - 1);
      levels[i] = 0.7f * t * t * t + 0.3f * t;
    }
    return levels;
  }()};
  static_assert(N % 7 != 0 && N % 11 != 0);
  static constexpr Code encode(float x) { return book.encode(x); }
  static constexpr float decode(Code c) { return book.decode(c); }
  static constexpr Affine fit(std::span<const float> v) { return fit_abs_max(v, 1.0f); }
};
/// The levels of a minifloat, but rounded toward 0.
struct Truncated : Minifloat<2, 3> {
  static constexpr auto name = FixedString("truncated");
  static constexpr Code encode(float x) {
    const Code nearest = Minifloat::encode(x);
    const float level = decode(nearest);
    return (x > 0 && level > x) || (x < 0 && level < x) ? static_cast<Code>(level == 0 || (nearest & 31) == 1 ? 0 : nearest - 1)
                                                        : nearest;
  }
};

/// Values on and beside every place where a code may change, and everything that is not an ordinary number.
template <Format F>
std::vector<float> critical_values(float scale) {
  constexpr float inf = std::numeric_limits<float>::infinity();
  std::vector<float> v{0.0f,
                       -0.0f,
                       inf,
                       -inf,
                       std::numeric_limits<float>::quiet_NaN(),
                       std::numeric_limits<float>::max(),
                       -std::numeric_limits<float>::max(),
                       std::numeric_limits<float>::denorm_min(),
                       -std::numeric_limits<float>::denorm_min()};
  std::vector<float> levels;
  for (unsigned c = 0; c < std::min(1u << F::bits, 4096u); ++c) levels.push_back(F::decode(static_cast<Code>(c)));
  std::erase_if(levels, [](float level) { return level != level; });
  std::sort(levels.begin(), levels.end());
  for (std::size_t i = 0; i < levels.size(); ++i)
    for (const float x : {levels[i], i + 1 < levels.size() ? 0.5f * (levels[i] + levels[i + 1]) : 2 * levels[i] + 1})
      for (const float y : {x, std::nextafter(x, inf), std::nextafter(x, -inf)}) v.push_back(y * scale);
  std::mt19937 engine(5);
  std::normal_distribution<float> normal(0, scale);
  for (int i = 0; i < 500; ++i) v.push_back(normal(engine));
  return v;
}

template <Format F>
void check_values() {
  for (const float scale : {1.0f, 0.0123f, 3e-39f, 1e30f, 0.0f})
    for (const float zero : {0.0f, 1.0f, static_cast<float>((1 << F::bits) - 1)}) {
      if (zero != 0 && !has_zero_point_v<F>) continue;
      const Affine a{scale, zero};
      const std::vector<float> w = critical_values<F>(scale == 0 ? 1 : scale);
      std::vector<code_t<F>> codes(w.size());
      quantize_values<F>(w, a, codes);
      for (std::size_t i = 0; i < w.size(); ++i) {
        INFO(std::string_view(F::name) << ": weight " << w[i] << ", scale " << scale << ", zero " << zero);
        REQUIRE(codes[i] == quantize_value<F>(w[i], a));
      }
    }
  // Without what is not finite, which the vector paths leave to others; and in groups of several lengths, some of them zeros.
  for (const Index size : {Index{16}, Index{5}, Index{128}}) {
    std::vector<float> w = critical_values<F>(1), scales, zeros;
    std::erase_if(w, [](float v) { return !(std::fabs(v) <= 1e30f); });
    const auto n = static_cast<Index>(w.size());
    for (Index g = 0; g < ceil_div(n, size); ++g) {
      scales.push_back(g % 7 == 3 ? 0.0f : 0.25f + 0.71f * static_cast<float>(g % 5));
      zeros.push_back(has_zero_point_v<F> ? 1.0f : 0.0f);
      for (Index i = g * size; i < std::min(n, (g + 1) * size); ++i)
        w[static_cast<std::size_t>(i)] *= scales.back() == 0 ? 1 : scales.back();
    }
    std::vector<code_t<F>> codes(w.size());
    quantize_groups<F>(w.data(), n, {scales.data(), zeros.data(), size, size}, codes.data());
    for (Index i = 0; i < n; ++i) {
      const auto at = static_cast<std::size_t>(i), g = static_cast<std::size_t>(i / size);
      INFO(std::string_view(F::name) << ": weight " << w[at] << ", scale " << scales[g]);
      REQUIRE(codes[at] == quantize_value<F>(w[at], {scales[g], zeros[g]}));
    }
  }
  // Every length, so that every tail is met, in blocks of the exact size.
  for (std::size_t n = 0; n <= 70; ++n) {
    const std::vector<float> w = critical_values<F>(0.5f);
    const std::unique_ptr<code_t<F>[]> codes(new code_t<F>[n]);
    const std::unique_ptr<float[]> from(new float[n]);
    std::copy_n(w.end() - static_cast<std::ptrdiff_t>(n), n, from.get());
    const Affine a{0.37f, has_zero_point_v<F> ? 1.0f : 0.0f};
    quantize_values<F>(std::span(from.get(), n), a, std::span(codes.get(), n));
    for (std::size_t i = 0; i < n; ++i) REQUIRE(codes[i] == quantize_value<F>(from[i], a));
  }
}

}  // namespace

TEST_CASE("quantize_values: the formats that ship give the codes of quantize_value") {
  for_each_type(examples::Schemes{}, []<class S>() { check_values<typename S::format>(); });
}
TEST_CASE("quantize_values: formats of other kinds give the codes of quantize_value") {
  check_values<Floor3>();
  check_values<Thirds>();
  check_values<Shuffled>();
  check_values<SignOfZero>();
  check_values<Periodic>();
}
TEST_CASE("quantize_values: widths that no example scheme has") {
  check_values<SInt<5>>();
  check_values<SInt<6>>();
  check_values<SInt<7>>();
  check_values<UInt<6>>();
  check_values<UInt<7>>();
}
TEST_CASE("quantize_values: formats of 5 to 8 bits without a grid give the codes of quantize_value") {
  check_values<LloydMax<4>>();
  check_values<LloydMax<5>>();
  check_values<LloydMax<6>>();
  check_values<Minifloat<2, 3>>();
  check_values<Minifloat<3, 2>>();
  check_values<Minifloat<4, 3>>();
  check_values<Minifloat<5, 2>>();
  check_values<Minifloat<5, 0>>();
  check_values<Minifloat<6, 1>>();
  check_values<Minifloat<7, 0>>();
  check_values<Book<5, 23>>();
  check_values<Book<6, 64>>();
  check_values<Book<7, 128>>();
  check_values<Book<8, 256>>();
  check_values<Truncated>();
}

namespace {
/// Weights on the borders between codes, or next to them, of many scales: the products of the vector paths are in doubt there.
template <Format F>
void check_borders() {
  std::mt19937 engine(9);
  for (int trial = 0; trial < 300; ++trial) {
    const float scale = std::uniform_real_distribution<float>(0x1p-12f, 1)(engine) * (trial % 3 == 0 ? 0.001f : 1);
    const float zero = has_zero_point_v<F> ? static_cast<float>(engine() % (1u << F::bits)) : 0;
    const Affine a{scale, zero};
    std::vector<float> w;
    for (unsigned c = 0; c + 1 < (1u << F::bits); ++c) {
      const float x = 0.5f * F::decode(static_cast<Code>(c)) + 0.5f * F::decode(static_cast<Code>(c + 1)) - zero;
      float v = x * scale;
      for (int k = 0; k < 3; ++k) v = std::nextafter(v, -1e30f);
      for (int k = 0; k < 7; ++k, v = std::nextafter(v, 1e30f)) w.push_back(v);
    }
    w.resize(std::min<std::size_t>(w.size(), 1000));
    std::vector<code_t<F>> codes(w.size());
    // One border at a time among ordinary weights, so that a wrong certainty is not hidden by its neighbours' doubt.
    quantize_values<F>(w, a, codes);
    for (std::size_t i = 0; i < w.size(); ++i) REQUIRE(codes[i] == quantize_value<F>(w[i], a));
    for (std::size_t i = 0; i < w.size(); i += 1 + w.size() / 100) {
      code_t<F> code;
      quantize_values<F>(std::span(w).subspan(i, 1), a, std::span(&code, 1));
      INFO(std::string_view(F::name) << ": weight " << w[i] << ", scale " << scale << ", zero " << zero);
      REQUIRE(code == quantize_value<F>(w[i], a));
    }
  }
}
}  // namespace

TEST_CASE("quantize_values: borders between codes fall as quantize_value says") {
  check_borders<Superfloat<1>>();
  check_borders<Superfloat<4>>();
  check_borders<Superfloat<7>>();
  check_borders<Superfloat<8>>();
  check_borders<SInt<3>>();
  check_borders<SInt<8>>();
  check_borders<UInt<4>>();
  check_borders<UInt<6>>();
  check_borders<UInt<7>>();
  check_borders<UInt<8>>();
  check_borders<Nf4>();
  check_borders<Fp4>();
  check_borders<Minifloat<2, 1>>();
  check_borders<Ternary>();
  check_borders<Shuffled>();
  check_borders<LloydMax<4>>();
  check_borders<LloydMax<5>>();
  check_borders<LloydMax<6>>();
  check_borders<Minifloat<2, 3>>();
  check_borders<Minifloat<3, 2>>();
  check_borders<Minifloat<4, 3>>();
  check_borders<Minifloat<5, 2>>();
  check_borders<Book<7, 128>>();
  check_borders<Book<8, 256>>();
}
namespace {
/// The code changes at Mantissa * 2^-23, and weights are multiplied by the reciprocal of their scale.
template <int Mantissa>
struct OneBorder {
  static constexpr int bits = 1;
  static constexpr auto name = FixedString("one border");
  static constexpr bool multiplies_by_reciprocal = true;
  static constexpr float border = static_cast<float>(Mantissa) * 0x1p-23f;
  static Code encode(float x) { return x >= border ? Code{1} : Code{0}; }
  static constexpr float decode(Code c) { return c ? 2.0f : 0.0f; }
  static Affine fit(std::span<const float> v) { return fit_abs_max(v, 2.0f); }
};

/// A weight whose product with the reciprocal 3 lies half way between the border and the float below it.
template <int Mantissa>
void check_half_way() {
  using F = OneBorder<Mantissa>;
  constexpr float scale = 1.0f / 3.0f;
  STATIC_REQUIRE(1.0f / scale == 3.0f);
  STATIC_REQUIRE((2 * Mantissa - 1) % 3 == 0);
  const float tie = static_cast<float>((2 * Mantissa - 1) / 3) * 0x1p-24f;
  const std::vector<float> w{std::nextafter(tie, 0.0f), tie, std::nextafter(tie, 2.0f)};
  std::vector<code_t<F>> codes(3);
  quantize_values<F>(w, {scale, 0}, codes);
  // A tie goes to the float with an even mantissa: the border, or the float below.
  CHECK(codes == std::vector<code_t<F>>{0, Mantissa % 2 == 0, 1});
  for (std::size_t i = 0; i < 3; ++i) CHECK(codes[i] == quantize_value<F>(w[i], {scale, 0}));
}
}  // namespace

TEST_CASE("quantize_values: a product half way between two floats is rounded to even") {
  check_half_way<(1 << 23) + 3>();
  check_half_way<(1 << 23) + 6>();
}
TEST_CASE("quantize_values: the usual formats take the vector path") {
  CHECK(encoders::UsualRounding<Superfloat<5>>::is_encoder());
  CHECK(encoders::UsualRounding<SInt<8>>::is_encoder());
  CHECK(encoders::UsualRounding<UInt<4>>::is_encoder());
  CHECK_FALSE(encoders::UsualRounding<Floor3>::is_encoder());
  CHECK_FALSE(encoders::UsualRounding<Thirds>::is_encoder());
  CHECK(encoders::EncoderSteps<Nf4>().usable);
  CHECK(encoders::EncoderSteps<Minifloat<2, 1>>().usable);
  CHECK(encoders::EncoderSteps<Floor3>().usable);
  CHECK_FALSE(encoders::EncoderSteps<SignOfZero>().usable);
  CHECK_FALSE(encoders::EncoderSteps<Periodic>().usable);
  CHECK(encoders::FloatRounding<Minifloat<2, 3>>::is_encoder());
  CHECK(encoders::FloatRounding<Minifloat<4, 3>>::is_encoder());
  CHECK(encoders::FloatRounding<Minifloat<5, 2>>::is_encoder());
  CHECK_FALSE(encoders::FloatRounding<Truncated>::is_encoder());
  CHECK(encoders::level_steps<Truncated>().usable);
  CHECK(encoders::level_steps<LloydMax<4>>().usable);
  CHECK(encoders::level_steps<LloydMax<6>>().usable);
  CHECK(encoders::level_steps<Book<5, 23>>().usable);
  CHECK(encoders::level_steps<Book<8, 256>>().usable);
  CHECK_FALSE(encoders::level_steps<SignOfZero>().usable);
  CHECK_FALSE(encoders::level_steps<Periodic>().usable);
}

namespace {

/// fit, round_trip, quantize_value, in that order and nothing else.
template <AnyScheme S>
QuantizedMatrix<S> defined_nearest(ConstMatrix w) {
  using F = typename S::format;
  using G = typename S::granularity;
  QuantizedMatrix<S> q(w.extents());
  std::vector<std::vector<float>> members(q.affines.size());
  const auto affine_of = [&](Index r, Index c) {
    return static_cast<std::size_t>(G::index(w.extents(), r, c / G::group_cols(w.cols)));
  };
  for (Index r = 0; r < w.rows; ++r)
    for (Index c = 0; c < w.cols; ++c) members[affine_of(r, c)].push_back(w(r, c));
  std::vector<float> scales(members.size());
  for (std::size_t i = 0; i < members.size(); ++i) {
    q.affines[i] = F::fit(members[i]);
    scales[i] = q.affines[i].scale;
  }
  S::scale_store::round_trip(scales);
  for (std::size_t i = 0; i < members.size(); ++i) q.affines[i].scale = scales[i];
  for (Index r = 0; r < w.rows; ++r)
    for (Index c = 0; c < w.cols; ++c)
      q.row(r)[static_cast<std::size_t>(c)] =
          static_cast<typename S::code>(quantize_value<F>(w(r, c), q.affines[affine_of(r, c)]));
  return q;
}

template <AnyScheme S>
void check_nearest() {
  for (const Extents e : examples::shapes) {
    INFO(S::name.view() << ", " << e.rows << " x " << e.cols);
    const Matrix w = examples::weights(e, 3);
    const auto expected = defined_nearest<S>(w.view());
    CHECK(quantize_nearest<S>(w.view()).value() == expected);
    // The same weights as the upper left part of a wider matrix.
    Matrix wide(e.rows + 1, e.cols + 3);
    for (Index r = 0; r < e.rows; ++r)
      for (Index c = 0; c < e.cols; ++c) wide(r, c) = w(r, c);
    CHECK(quantize_nearest<S>(ConstMatrix(wide.data(), e.rows, e.cols, e.cols + 3)).value() == expected);
    // What the algorithm keeps survives packing: its scales are as stored.
    CHECK(unpack(pack(expected)) == expected);
    // Straight to bytes, from either matrix and over what stood there before.
    auto packed = pack_nearest<S>(w.view()).value();
    CHECK(packed == pack(expected));
    CHECK(packed.provenance() == "nearest");
    for (auto& b : packed.bytes().mutable_section(packed.bytes().codes())) b = std::byte{0xFF};
    CHECK(pack_nearest(ConstMatrix(wide.data(), e.rows, e.cols, e.cols + 3), packed).ok());
    CHECK(packed == pack(expected));
  }
}

}  // namespace

TEST_CASE("quantize_nearest: is fit, round trip of the scales, quantize_value") {
  for_each_type(examples::Schemes{}, []<class S>() { check_nearest<S>(); });
}
TEST_CASE("quantize_nearest: NaN and infinity among the weights are the error of Nearest") {
  constexpr float inf = std::numeric_limits<float>::infinity(), nan = std::numeric_limits<float>::quiet_NaN();
  const auto check = []<class S>(float bad, Index row, Index column) {
    INFO(S::name.view() << " with " << bad);
    Matrix w = examples::weights({7, 45}, 5);
    w(row, column) = bad;
    const auto q = quantize_nearest<S>(w.view());
    REQUIRE(!q.ok());
    CHECK(q.error().code == ErrorCode::not_finite);
    CHECK(q.error().message.find("weight at row " + std::to_string(row) + ", column " + std::to_string(column) + " is ") == 0);
    CHECK(q.error().message == calibrate::check_finite(w.view()).error().message);
    CHECK(pack_nearest<S>(w.view()).error().message == q.error().message);
    PackedTensor<S> packed = pack_nearest<S>(examples::weights({7, 45}, 5).view()).value();
    CHECK(pack_nearest(w.view(), packed).error().message == q.error().message);
  };
  for (const float bad : {inf, -inf, nan, -nan})
    for (const auto& [row, column] : {std::pair<Index, Index>{0, 0}, {3, 31}, {6, 44}}) {
      check.operator()<Scheme<SInt<4>, PerGroup<16>>>(bad, row, column);
      check.operator()<Scheme<UInt<3>, PerGroup<16>>>(bad, row, column);
      check.operator()<Scheme<Superfloat<5>, PerTensor, ScaleF32>>(bad, row, column);
      check.operator()<Scheme<Nf4, PerGroup<8>, DoubleQuant<256>>>(bad, row, column);
      check.operator()<Scheme<SuperfloatPublished<8>, PerRow, NoScale>>(bad, row, column);
    }
}
TEST_CASE("quantize_nearest: all zeros stay zeros") {
  for_each_type(examples::Schemes{}, []<class S>() {
    if (S::bits == 1 || S::name.view().find("/e8m0/") != std::string_view::npos) return;  // one bit has no zero level
    const Matrix w(3, 40);
    const Matrix back = dequantize(quantize_nearest<S>(w.view()).value());
    INFO(S::name.view());
    for (Index i = 0; i < 120; ++i) REQUIRE(back.data()[i] == 0);
  });
}
