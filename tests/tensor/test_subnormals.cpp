#include <anybit/kernel/matvec.hpp>
#include <anybit/tensor/pack.hpp>

#include <vector>

#include <anybit/format/formats.hpp>

#include "support/catch.hpp"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

using namespace anybit;

namespace {

/// While one lives, subnormal operands count as 0 and subnormal results become 0, as in programs linked with -ffast-math.
class FlushedSubnormals {
 public:
#if defined(__x86_64__)
  FlushedSubnormals() : before_(_mm_getcsr()) { _mm_setcsr(before_ | 0x8040u); }
  ~FlushedSubnormals() { _mm_setcsr(before_); }

 private:
  unsigned before_;
#elif defined(__aarch64__) && defined(__GNUC__)
  FlushedSubnormals() {
    __asm__ volatile("mrs %0, fpcr" : "=r"(before_));
    __asm__ volatile("msr fpcr, %0" ::"r"(before_ | 1ull << 24));
  }
  ~FlushedSubnormals() { __asm__ volatile("msr fpcr, %0" ::"r"(before_)); }

 private:
  std::uint64_t before_;
#else
  FlushedSubnormals() {}
#endif
};

/// Every finite code in a row, and again in the opposite order; weights and products against F::decode, computed before.
template <Format F>
void check() {
  INFO(std::string_view(F::name));
  using S = Scheme<F, PerRow, ScaleF32>;
  std::vector<Code> codes;
  for (unsigned c = 0; c < (1u << F::bits); ++c)
    if (const float level = F::decode(static_cast<Code>(c)); level - level == 0) codes.push_back(static_cast<Code>(c));
  const auto n = static_cast<Index>(codes.size());
  QuantizedMatrix<S> q({2, n});
  std::vector<float> expected;
  double sums[2] = {};
  for (Index r = 0; r < 2; ++r) {
    q.affine(r, 0) = {1, 0};
    for (Index i = 0; i < n; ++i) {
      q.row(r)[static_cast<std::size_t>(i)] = static_cast<code_t<F>>(codes[static_cast<std::size_t>(r == 0 ? i : n - 1 - i)]);
      expected.push_back(F::decode(q.row(r)[static_cast<std::size_t>(i)]));
      if (expected.back() > 0) sums[r] += expected.back();
    }
  }
  const PackedTensor<S> t = pack(q);
  // Positive levels only: their sum is not lost in larger ones.
  Matrix x(3, n), y(3, 2);
  for (Index i = 0; i < n; ++i) x(0, i) = x(1, i) = x(2, i) = F::decode(codes[static_cast<std::size_t>(i)]) > 0 ? 1.0f : 0.0f;
  Matrix weights, one(1, 2);
  std::vector<float> decoded(static_cast<std::size_t>(n));
  {
    const FlushedSubnormals flushed;
    weights = dequantize(t);
    decoding::dequantize_codes<F>(q.row(0).data(), {1, 0}, n, decoded.data());
    matvec(t, x.view().row(0), one.view().row(0));
    matmul(t, x.view(), y.view());
  }
  for (Index i = 0; i < n; ++i) {
    INFO("code " << codes[static_cast<std::size_t>(i)]);
    CHECK(weights(0, i) == expected[static_cast<std::size_t>(i)]);
    CHECK(weights(1, i) == expected[static_cast<std::size_t>(n + i)]);
    CHECK(decoded[static_cast<std::size_t>(i)] == expected[static_cast<std::size_t>(i)]);
  }
  CHECK(one(0, 0) == Approx(sums[0]).epsilon(1e-6));
  CHECK(y(2, 0) == Approx(sums[0]).epsilon(1e-6));
}

}  // namespace

TEST_CASE("subnormals: minifloats decode and multiply the same where subnormal floats count as 0") {
  check<Minifloat<2, 1>>();
  check<Minifloat<2, 3>>();
  check<Minifloat<3, 2>>();
  check<Minifloat<3, 4>>();
  check<Minifloat<2, 5>>();
  check<Minifloat<4, 3>>();
  check<Minifloat<5, 2>>();
  check<Minifloat<5, 2, MinifloatSpecials::none>>();
  check<Minifloat<5, 1>>();
  check<Minifloat<4, 0>>();
  check<Minifloat<6, 1>>();
  check<Minifloat<7, 0>>();
  check<Minifloat<4, 5>>();
}

TEST_CASE("subnormals: the row that lost its small weights") {
  using S = Scheme<Minifloat<2, 3>, PerRow, ScaleF32>;
  QuantizedMatrix<S> q({1, 128});
  q.affines = {{1, 0}};
  q.row(0)[0] = static_cast<std::uint8_t>(Minifloat<2, 3>::encode(7.5f));
  for (std::size_t i = 1; i < 128; ++i) q.row(0)[i] = static_cast<std::uint8_t>(Minifloat<2, 3>::encode(0.5f));
  const PackedTensor<S> t = pack(q);
  const std::vector<float> ones(128, 1.0f);
  float y = 0;
  {
    const FlushedSubnormals flushed;
    matvec(t, ones, std::span(&y, 1));
  }
  CHECK(y == 71.0f);
}
