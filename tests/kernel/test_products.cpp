// Every kind of scheme against the scalar reference, at odd shapes, with canaries around everything that is written and
// exact sizes around everything that is read (run under AddressSanitizer).

#include <anybit/exec/thread_pool.hpp>
#include <anybit/kernel/any_packed.hpp>
#include <anybit/kernel/matvec.hpp>
#include <anybit/kernel/reference.hpp>
#include <anybit/scheme/presets.hpp>

#include <random>

#include "support/catch.hpp"

using namespace anybit;

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
struct Curve6 {
  static constexpr int bits = 6;
  static constexpr auto name = FixedString("curve6");
  static constexpr Code encode(float x) { return x > 0 ? 63 : 0; }
  static constexpr float decode(Code c) { return (static_cast<float>(c) - 31.5f) * (static_cast<float>(c) - 20.25f) * 0.01f; }
  static constexpr Affine fit(std::span<const float> v) { return fit_abs_max(v, 10.0f); }
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

struct Shape {
  Index rows, cols, tokens;
};
// Everything that has to do with a boundary: of bytes, vectors, tiles, blocks of 512 columns, panels.
const std::vector<Shape>& shapes() {
  static const std::vector<Shape> list = [] {
    std::vector<Shape> l{{1, 1, 1},    {1, 700, 1},  {3, 7, 2},    {4, 16, 3},   {5, 31, 5},   {16, 64, 8},   {17, 65, 9},  {33, 127, 6},
                         {15, 128, 7}, {16, 129, 1}, {2, 511, 12}, {20, 512, 1}, {7, 513, 4},  {1, 1024, 2},  {6, 1100, 1}, {19, 640, 16},
                         {130, 33, 3}, {1, 5, 70},   {9, 320, 31}, {4, 4160, 1}, {2, 4700, 2}, {3, 1280, 13}};
    std::mt19937 random(20240607);
    for (int i = 0; i < 12; ++i)
      l.push_back({static_cast<Index>(random() % 40 + 1), static_cast<Index>(random() % 700 + 1), static_cast<Index>(random() % 24 + 1)});
    return l;
  }();
  return list;
}

enum class Fill { random, lowest, highest };

template <AnyScheme S>
QuantizedMatrix<S> some_weights(Extents e, unsigned seed, Fill fill = Fill::random) {
  using F = typename S::format;
  std::mt19937 random(seed);
  QuantizedMatrix<S> q(e);
  const int count = code_count_v<F>;
  const auto finite = [](Code c) { return std::isfinite(F::decode(c)); };
  Code low = 0, high = 0;
  for (int c = 0; c < count; ++c) {
    if (!finite(static_cast<Code>(c))) continue;
    if (F::decode(static_cast<Code>(c)) < F::decode(low)) low = static_cast<Code>(c);
    if (F::decode(static_cast<Code>(c)) > F::decode(high)) high = static_cast<Code>(c);
  }
  for (auto& c : q.codes) {
    Code code = fill == Fill::lowest ? low : high;
    while (fill == Fill::random && !finite(code = static_cast<Code>(random() % static_cast<unsigned>(count)))) {}
    if (fill == Fill::random && !finite(code)) code = 0;
    c = static_cast<typename S::code>(code);
  }
  std::vector<float> scales(q.affines.size());
  for (float& s : scales) s = static_cast<float>(random() % 1000) * 0.001f;  // some are 0
  S::scale_store::round_trip(scales);
  for (std::size_t i = 0; i < scales.size(); ++i) {
    q.affines[i].scale = scales[i];
    if (S::has_zero_point) q.affines[i].zero = static_cast<float>(random() % (1u << S::bits));
  }
  return q;
}

/// A matrix at an odd address, rows further apart than they are long, with canaries wherever nothing may be written.
class Guarded {
 public:
  Guarded(Index rows, Index cols, Index gap) : cols_(cols), stride_(cols + gap), storage_(static_cast<std::size_t>(rows * (cols + gap) + 33), canary) {
    view_ = {storage_.data() + 13, rows, cols, stride_};
  }
  MutableMatrix view() { return view_; }
  bool intact() const {
    for (std::size_t i = 0; i < storage_.size(); ++i) {
      const Index at = static_cast<Index>(i) - 13;
      const bool inside = at >= 0 && at < view_.rows * stride_ && at % stride_ < cols_;
      if (!inside && storage_[i] != canary) return false;
    }
    return true;
  }

 private:
  static constexpr float canary = -1234.5f;
  Index cols_, stride_;
  std::vector<float> storage_;
  MutableMatrix view_;
};

/// Activations in an allocation that ends where they end.
struct Activations {
  std::vector<float> storage;
  ConstMatrix view;
  Activations(Index tokens, Index cols, Index gap, unsigned seed) : storage(static_cast<std::size_t>(tokens * (cols + gap) - gap + 1)) {
    std::mt19937 random(seed);
    for (float& v : storage) v = static_cast<float>(static_cast<int>(random() % 2001) - 1000) * 0.001f;
    view = {storage.data() + 1, tokens, cols, cols + gap};
  }
};

/// Upper bound of the rounding of a float sum: 2^-24 times the sum of magnitudes, times a chain's length.
template <AnyScheme S>
std::vector<double> magnitudes(const QuantizedMatrix<S>& q, ConstMatrix x) {
  const Matrix w = dequantize(q);
  std::vector<double> m(static_cast<std::size_t>(x.rows * q.extents.rows));
  for (Index t = 0; t < x.rows; ++t)
    for (Index r = 0; r < q.extents.rows; ++r)
      for (Index k = 0; k < x.cols; ++k) m[static_cast<std::size_t>(t * q.extents.rows + r)] += std::fabs(static_cast<double>(w(r, k)) * static_cast<double>(x(t, k)));
  return m;
}

template <AnyScheme S>
void agree(const QuantizedMatrix<S>& q, Index tokens, unsigned seed) {
  const PackedTensor<S> w = pack(q);
  const Index rows = q.extents.rows, cols = q.extents.cols;
  CAPTURE(std::string(S::name.view()), rows, cols, tokens);
  const Activations x(tokens, cols, static_cast<Index>(seed % 3), seed);
  const auto size = magnitudes(q, x.view);
  Workspace workspace;
  for (const Compute compute : {Compute::f32, Compute::int8_per_token}) {
    const bool rounded = compute == Compute::int8_per_token;
    CAPTURE(rounded);
    const auto expected = rounded ? reference::matmul_int8(w, x.view) : reference::matmul(w, x.view);
    Guarded y(tokens, rows, static_cast<Index>(seed % 4));
    matmul(w, x.view, y.view(), compute, workspace);
    REQUIRE(y.intact());
    std::string wrong;
    for (Index t = 0; t < tokens; ++t)
      for (Index r = 0; r < rows; ++r) {
        const auto i = static_cast<std::size_t>(t * rows + r);
        // Rounded activations are up to 1/254 of the largest off; their products are as large as `size` up to that.
        const double bound = (size[i] + (rounded ? 0.01 * static_cast<double>(cols) : 0.0)) * 1e-6 + 1e-30;
        if (!(std::fabs(static_cast<double>(y.view()(t, r)) - expected[i]) <= bound) && wrong.empty())
          wrong = "token " + std::to_string(t) + " row " + std::to_string(r) + ": " + std::to_string(y.view()(t, r)) + " instead of " + std::to_string(expected[i]);
      }
    REQUIRE(wrong == "");
    // Whatever is computed along with a value must not change it.
    Guarded other(tokens, rows, 1);
    for (Index t = 0; t < tokens; ++t)
      matmul(w, x.view.row_range(t, t + 1), other.view().row_range(t, t + 1), compute, workspace);
    bool same = true;
    for (Index t = 0; t < tokens; ++t) same = same && std::equal(y.view().row(t).begin(), y.view().row(t).end(), other.view().row(t).begin());
    REQUIRE(same);
    if (!rounded) {
      Guarded sliced(tokens, rows, 0);
      for (Index begin = 0, length = 1; begin < rows; begin += length, length = length % 7 + 2) matmul_rows(w, x.view, sliced.view(), begin, std::min(rows, begin + length));
      for (Index t = 0; t < tokens; ++t) same = same && std::equal(y.view().row(t).begin(), y.view().row(t).end(), sliced.view().row(t).begin());
      REQUIRE(same);
      REQUIRE(sliced.intact());
    }
  }
}

template <AnyScheme S>
void agree_everywhere() {
  unsigned seed = 1;
  for (const Shape& s : shapes()) {
    agree(some_weights<S>({s.rows, s.cols}, seed), s.tokens, seed);
    ++seed;
  }
}

}  // namespace

TEST_CASE("superfloat products agree with the reference") {
  agree_everywhere<Scheme<Superfloat<8>>>();
  agree_everywhere<Scheme<Superfloat<5>, PerGroup<32>, ScaleF32>>();
  agree_everywhere<Scheme<Superfloat<3>, PerGroup<1>>>();
  agree_everywhere<Scheme<Superfloat<1>, PerGroup<7>, ScaleBF16>>();
  agree_everywhere<Scheme<Superfloat<2>, PerRow>>();
  agree_everywhere<Scheme<Superfloat<12>, PerGroup<100>>>();
  agree_everywhere<presets::PublishedSuperfloat8>();
}

TEST_CASE("integer products agree with the reference") {
  agree_everywhere<Scheme<SInt<8>, PerGroup<64>>>();
  agree_everywhere<Scheme<SInt<7>, PerGroup<48>>>();
  agree_everywhere<Scheme<SInt<6>, PerGroup<1024>>>();
  agree_everywhere<Scheme<SInt<4>, PerGroup<36>>>();
  agree_everywhere<Scheme<SInt<1>, PerGroup<32>>>();
  agree_everywhere<Scheme<SInt<16>, PerRow>>();
  agree_everywhere<Scheme<UInt<8>, PerGroup<128>>>();
  agree_everywhere<Scheme<UInt<4>, PerGroup<32>>>();
  agree_everywhere<Scheme<UInt<3>, PerGroup<5>>>();
  agree_everywhere<Scheme<UInt<2>, PerTensor, ScaleF32>>();
  agree_everywhere<Scheme<UInt<9>, PerGroup<128>>>();
}

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
  agree_everywhere<Scheme<Curve6, PerGroup<32>>>();
  agree_everywhere<Scheme<Reversed5, PerGroup<40>>>();
}

TEST_CASE("extreme codes times extreme activations do not saturate or overflow") {
  const auto extreme = []<AnyScheme S>(std::type_identity<S>) {
    for (const Fill fill : {Fill::lowest, Fill::highest})
      for (const float sign : {1.0f, -1.0f})
        for (const Index tokens : {1, 2, 3, 9}) {
          const Extents e{18, 2100};
          auto q = some_weights<S>(e, 3, fill);
          for (Affine& a : q.affines) a = {1, S::has_zero_point ? (fill == Fill::lowest ? static_cast<float>((1 << S::bits) - 1) : 0.0f) : 0.0f};
          const auto w = pack(q);
          Matrix x(tokens, e.cols), y(tokens, e.rows);
          std::fill_n(x.data(), x.extents().size(), sign * 127.0f);
          Workspace workspace;
          matmul(w, x.view(), y.view(), Compute::int8_per_token, workspace);
          const auto expected = reference::matmul_int8(w, x.view());
          for (std::size_t i = 0; i < expected.size(); ++i) REQUIRE(static_cast<double>(y.data()[i]) == Approx(expected[i]).epsilon(1e-6));
        }
  };
  extreme(std::type_identity<Scheme<SInt<8>, PerRow, ScaleF32>>{});
  extreme(std::type_identity<Scheme<UInt<8>, PerRow, ScaleF32>>{});
  extreme(std::type_identity<Scheme<UInt<8>, PerGroup<32>, ScaleF32>>{});
  extreme(std::type_identity<Scheme<Superfloat<8>, PerGroup<100>, ScaleF32>>{});
  extreme(std::type_identity<Scheme<SInt<7>, PerRow, ScaleF32>>{});
  extreme(std::type_identity<Scheme<UInt<7>, PerGroup<96>, ScaleF32>>{});
}

TEST_CASE("integer products are exact: whole numbers come out whole on every instruction set") {
  using S = Scheme<UInt<8>, PerGroup<32>, ScaleF32>;
  const Extents e{21, 416};
  auto q = some_weights<S>(e, 5);
  for (Affine& a : q.affines) a.scale = 1;
  Matrix x(6, e.cols), y(6, e.rows);
  std::mt19937 random(6);
  for (Index t = 0; t < 6; ++t)
    for (Index k = 0; k < e.cols; ++k) x(t, k) = k == 0 ? 127.0f : static_cast<float>(static_cast<int>(random() % 255) - 127);
  const auto w = pack(q);
  Workspace workspace;
  for (const Index tokens : {1, 2, 6}) {
    matmul(w, x.view().row_range(0, tokens), y.view().row_range(0, tokens), Compute::int8_per_token, workspace);
    for (Index t = 0; t < tokens; ++t)
      for (Index r = 0; r < e.rows; ++r) {
        long sum = 0;
        for (Index k = 0; k < e.cols; ++k)
          sum += (q.row(r)[static_cast<std::size_t>(k)] - static_cast<long>(q.affine(r, k / 32).zero)) * static_cast<long>(x(t, k));
        REQUIRE(std::abs(sum) < 1 << 24);
        REQUIRE(y(t, r) == static_cast<float>(sum));
      }
  }
}

TEST_CASE("results are the same bits for any number of threads") {
  using Super = Scheme<Superfloat<5>, PerGroup<64>>;
  using Unsigned = Scheme<UInt<4>, PerGroup<32>>;
  const auto check = []<AnyScheme S>(std::type_identity<S>) {
    const auto w = pack(some_weights<S>({333, 517}, 9));
    for (const Index tokens : {1, 2, 5, 40}) {
      const Activations x(tokens, 517, 0, 10);
      Workspace workspace;
      for (const Compute compute : {Compute::f32, Compute::int8_per_token}) {
        Matrix serial(tokens, 333);
        matmul(w, x.view, serial.view(), compute, workspace);
        for (const Index threads : {1, 2, 3, 8}) {
          ThreadPool pool(threads);
          Matrix y(tokens, 333);
          matmul(w, x.view, y.view(), compute, workspace, pool);
          REQUIRE(std::equal(y.data(), y.data() + tokens * 333, serial.data()));
        }
      }
    }
  };
  check(std::type_identity<Super>{});
  check(std::type_identity<Unsigned>{});
}

TEST_CASE("matvec is matmul of one token") {
  using S = Scheme<SInt<4>>;
  const auto w = pack(some_weights<S>({45, 300}, 11));
  const Activations x(1, 300, 0, 12);
  Matrix a(1, 45), b(1, 45), c(1, 45);
  matmul(w, x.view, a.view());
  matvec(w, x.view.row(0), b.view().row(0));
  matvec_rows(w, x.view.row(0), c.view().row(0), 0, 30);
  matvec_rows(w, x.view.row(0), c.view().row(0), 30, 45);
  REQUIRE(std::equal(a.data(), a.data() + 45, b.data()));
  REQUIRE(std::equal(a.data(), a.data() + 45, c.data()));
}

TEST_CASE("no rows, no columns, no tokens") {
  using S = Scheme<SInt<4>>;
  Workspace workspace;
  for (const Compute compute : {Compute::f32, Compute::int8_per_token}) {
    for (const Index tokens : {0, 1, 5}) {
      Matrix x(tokens, 0), y(tokens, 6);
      std::fill_n(y.data(), tokens * 6, 7.0f);
      matmul(pack(some_weights<S>({6, 0}, 1)), x.view(), y.view(), compute, workspace);
      for (Index i = 0; i < tokens * 6; ++i) REQUIRE(y.data()[i] == 0.0f);
      Matrix x2(tokens, 40), none(tokens, 0);
      matmul(pack(some_weights<S>({0, 40}, 1)), x2.view(), none.view(), compute, workspace);
    }
    Matrix none(0, 40), out(0, 6);
    matmul(pack(some_weights<S>({6, 40}, 1)), none.view(), out.view(), compute, workspace);
  }
}

TEST_CASE("NaN and infinity stay in their token") {
  using S = Scheme<SInt<4>, PerGroup<32>>;
  const auto w = pack(some_weights<S>({20, 130}, 13));
  for (const float bad : {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity()})
    for (const Index tokens : {2, 9}) {
      Matrix x(tokens, 130), y(tokens, 20), clean(tokens, 20);
      for (Index i = 0; i < tokens * 130; ++i) x.data()[i] = static_cast<float>(i % 7) - 3;
      Workspace workspace;
      for (const Compute compute : {Compute::f32, Compute::int8_per_token}) {
        x(1, 129) = 1;
        matmul(w, x.view(), clean.view(), compute, workspace);
        x(1, 129) = bad;
        matmul(w, x.view(), y.view(), compute, workspace);
        for (Index r = 0; r < 20; ++r) {
          REQUIRE(y(0, r) == clean(0, r));
          REQUIRE(!std::isfinite(y(1, r)));
          if (compute == Compute::int8_per_token) REQUIRE(std::isnan(y(1, r)));
        }
      }
    }
}

TEST_CASE("weights that are not numbers give what the float product gives") {
  using S = Scheme<Minifloat<5, 2>, PerGroup<32>, ScaleF32>;
  QuantizedMatrix<S> q({6, 40});
  for (Affine& a : q.affines) a.scale = 1;
  q.codes[7] = 0x7C;        // infinity
  q.codes[40 + 9] = 0x7E;   // NaN
  q.codes[80 + 33] = 0xFC;  // -infinity
  const auto w = pack(q);
  for (const Index tokens : {1, 7}) {
    Matrix x(tokens, 40), y(tokens, 6);
    std::fill_n(x.data(), tokens * 40, 1.0f);
    matmul(w, x.view(), y.view());
    for (Index t = 0; t < tokens; ++t) {
      REQUIRE(y(t, 0) == std::numeric_limits<float>::infinity());
      REQUIRE(std::isnan(y(t, 1)));
      REQUIRE(y(t, 2) == -std::numeric_limits<float>::infinity());
      REQUIRE(y(t, 3) == 0);
    }
  }
}

TEST_CASE("tiny and huge activations round as documented") {
  using S = Scheme<SInt<8>, PerRow, ScaleF32>;
  QuantizedMatrix<S> q({1, 4});
  q.affines[0].scale = 1;
  q.codes = {1, 1, 1, 1};
  const auto w = pack(q);
  Workspace workspace;
  for (const float unit : {1e-45f, 1e-40f, 1e-20f, 1.0f, 1e36f}) {
    Matrix x(1, 4), y(1, 1);
    x(0, 0) = 127 * unit, x(0, 1) = 0.5f * unit, x(0, 2) = 1.5f * unit, x(0, 3) = -2.5f * unit;
    matmul(w, x.view(), y.view(), Compute::int8_per_token, workspace);
    REQUIRE(static_cast<double>(y(0, 0)) == Approx(reference::matmul_int8(w, x.view())[0]));
    if (unit == 1.0f) REQUIRE(y(0, 0) == 127 + 0 + 2 - 2);
  }
  Matrix zeros(2, 4), y(2, 1);
  zeros(1, 0) = 1;
  matmul(w, zeros.view(), y.view(), Compute::int8_per_token, workspace);
  REQUIRE(y(0, 0) == 0);
  REQUIRE(y(1, 0) == 1);
}
