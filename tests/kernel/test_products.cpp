#include "kernel/products.hpp"

using namespace anybit;
using namespace products;

TEST_CASE("extreme codes times extreme activations do not saturate or overflow") {
  const auto extreme = []<AnyScheme S>(std::type_identity<S>) {
    for (const Fill fill : {Fill::lowest, Fill::highest})
      for (const float sign : {1.0f, -1.0f})
        for (const Index tokens : {1, 2, 3, 9}) {
          const Extents e{18, 2100};
          auto q = some_weights<S>(e, 3, fill);
          for (Affine& a : q.affines)
            a = {1, S::has_zero_point ? (fill == Fill::lowest ? static_cast<float>((1 << S::bits) - 1) : 0.0f) : 0.0f};
          const auto w = pack(q);
          Matrix x(tokens, e.cols), y(tokens, e.rows);
          std::fill_n(x.data(), x.extents().size(), sign * 127.0f);
          Workspace workspace;
          matmul(w, x.view(), y.view(), Compute::int8_per_token, workspace);
          const auto expected = packed_reference::matmul_int8(w, x.view());
          for (std::size_t i = 0; i < expected.size(); ++i)
            REQUIRE(static_cast<double>(y.data()[i]) == Approx(expected[i]).epsilon(1e-6));
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
          sum +=
              (q.row(r)[static_cast<std::size_t>(k)] - static_cast<long>(q.affine(r, k / 32).zero)) * static_cast<long>(x(t, k));
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
      const InputAtOddPlace x(tokens, 517, 0, 10);
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
  const InputAtOddPlace x(1, 300, 0, 12);
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
      for (const Compute compute : all_computes) {
        x(1, 129) = 1;
        matmul(w, x.view(), clean.view(), compute, workspace);
        x(1, 129) = bad;
        matmul(w, x.view(), y.view(), compute, workspace);
        for (Index r = 0; r < 20; ++r) {
          REQUIRE(y(0, r) == clean(0, r));
          REQUIRE(!std::isfinite(y(1, r)));
          if (rounds_to_int8(compute)) REQUIRE(std::isnan(y(1, r)));
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
    REQUIRE(static_cast<double>(y(0, 0)) == Approx(packed_reference::matmul_int8(w, x.view())[0]));
    if (unit == 1.0f) REQUIRE(y(0, 0) == 127 + 0 + 2 - 2);
  }
  Matrix zeros(2, 4), y(2, 1);
  zeros(1, 0) = 1;
  matmul(w, zeros.view(), y.view(), Compute::int8_per_token, workspace);
  REQUIRE(y(0, 0) == 0);
  REQUIRE(y(1, 0) == 1);
}
