#include <anybit/tensor/rounding_ops.hpp>

#include <limits>
#include <random>
#include <vector>

#include <anybit/format/formats.hpp>
#include <anybit/scheme/double_quant.hpp>

#include "support/catch.hpp"

using namespace anybit;

namespace {

/// A 10-bit format: codes of two bytes.
struct Wide : SInt<10> {};
/// Levels on no grid, 6 bits: 0 and powers, of both signs.
struct Levels {
  static constexpr int bits = 6;
  static constexpr std::string_view name = "levels";
  static constexpr float decode(Code c) {
    float v = 0.01f;
    for (Code i = c & 31; i > 0; --i) v *= 1.17f;
    return (c & 31) == 0 ? 0 : (c & 32) != 0 ? -v : v;
  }
  static constexpr Code encode(float x) {
    Code best = 0;
    for (Code c = 1; c < 64; ++c) {
      const float d = decode(c) - x, e = decode(best) - x;
      if ((d < 0 ? -d : d) < (e < 0 ? -e : e)) best = c;
    }
    return best;
  }
  static Affine fit(std::span<const float>) { return {1, 0}; }
};
/// Codes that stand for two stretches each have no vector encoder.
struct Apart {
  static constexpr int bits = 2;
  static constexpr std::string_view name = "apart";
  static constexpr float decode(Code c) { return static_cast<float>(c); }
  static constexpr Code encode(float x) { return x > 3 || (x > 1 && x < 2) ? 1 : x > 0 ? 2 : 0; }
  static Affine fit(std::span<const float>) { return {1, 0}; }
};

template <Format F>
void check_lanes(std::uint32_t seed, bool odd_scales) {
  INFO(std::string_view(F::name) << (odd_scales ? ", some scales 0, subnormal or huge" : ""));
  std::mt19937 random(seed);
  std::normal_distribution<float> normal;
  const FormatOps& functions = format_ops_v<F>;
  float w[AffineLanes::most], out[AffineLanes::most];
  code_t<F> codes[AffineLanes::most];
  AffineLanes lanes;
  const float odd[] = {0.0f, 0x1p-140f, 0x1p-130f, 0x1p-119f, 0x1p100f, 1.0f, 0.3f, -0.0f};
  for (Index i = 0; i < AffineLanes::most; ++i) {
    const float scale = odd_scales ? odd[random() % 8] : 0.01f + std::fabs(normal(random));
    lanes.set(i, {scale, has_zero_point_v<F> ? static_cast<float>(random() % (1u << F::bits)) : 0.0f});
    // Halves of a scale are the ties.
    w[i] = i == 5       ? std::numeric_limits<float>::infinity()
           : i == 40    ? -std::numeric_limits<float>::infinity()
           : i % 3 == 0 ? scale * (static_cast<float>(random() % 64) * 0.5f - 16)
           : i % 7 == 0 ? 1e30f * normal(random)
                        : normal(random);
  }
  functions.encode_lanes(w, lanes, codes);
  functions.decode_lanes(codes, lanes, out);
  for (Index i = 0; i < AffineLanes::most; ++i) {
    INFO("lane " << i << ": " << w[i] << " by " << lanes[i].scale << " around " << lanes[i].zero);
    REQUIRE(codes[i] == quantize_value<F>(w[i], lanes[i]));
    REQUIRE(out[i] == dequantize_value<F>(codes[i], lanes[i]));
  }
  // The functions of one group agree with those of lanes.
  for (const Index n : {Index{1}, Index{17}, AffineLanes::most}) {
    const Affine a = lanes[n - 1];
    code_t<F> group[AffineLanes::most];
    float decoded[AffineLanes::most], rounded[AffineLanes::most];
    functions.encode(w, n, a, group);
    functions.decode(group, n, {2, a.zero}, decoded);
    functions.round(w, n, a, {2, a.zero}, rounded);
    for (Index i = 0; i < n; ++i) {
      REQUIRE(group[i] == quantize_value<F>(w[i], a));
      REQUIRE(decoded[i] == dequantize_value<F>(group[i], {2, a.zero}));
      REQUIRE(rounded[i] == decoded[i]);
    }
  }
}

template <Format... Fs>
void check_all() {
  std::uint32_t seed = 0;
  (check_lanes<Fs>(++seed, false), ...);
  (check_lanes<Fs>(++seed, true), ...);
}

}  // namespace

TEST_CASE("rounding ops: lanes with affines of their own get the codes and weights of the scalar definitions") {
  check_all<UInt<2>, UInt<4>, UInt<8>, SInt<3>, SInt<8>, Superfloat<3>, Superfloat<8>, Nf4, Fp4, Minifloat<2, 1>, Minifloat<4, 3>,
            Minifloat<5, 2>, Levels, Apart, Ternary, Wide>();
}

TEST_CASE("rounding ops: a matrix seen without its type is the same matrix") {
  using S = Scheme<Wide, PerGroup<5>, ScaleF32>;
  QuantizedMatrix<S> q({3, 7});
  for (std::size_t i = 0; i < q.codes.size(); ++i) q.codes[i] = static_cast<std::uint16_t>(40 * i);
  for (std::size_t i = 0; i < q.affines.size(); ++i) q.affines[i] = {static_cast<float>(i), 0};
  const AnyQuantized any(q);
  CHECK(any.scheme.name == std::string_view(S::name));
  CHECK(any.groups_per_row == 2);
  CHECK(any.end_of_group(1) == 7);
  CHECK(any.affine(2, 1) == q.affine(2, 1));
  std::uint16_t code = 0;
  std::memcpy(&code, any.code(2, 3), 2);
  CHECK(code == q.row(2)[3]);
  any.affine(1, 0).scale = 9;
  CHECK(q.affine(1, 0).scale == 9);
}

TEST_CASE("rounding ops: scales as their store gives them back") {
  CHECK(stored<Scheme<SInt<4>, PerRow, ScaleF16>>({0.1f, 0}).scale == f16_to_f32(f32_to_f16(0.1f)));
  CHECK(stored<Scheme<SInt<4>, PerRow, NoScale>>({0.1f, 0}).scale == 1);
  CHECK(stored<Scheme<Nf4, PerGroup<64>, DoubleQuant<256>>>({0.1f, 0}).scale == 0.1f);
}
