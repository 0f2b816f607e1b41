// One rounding for several products, by row range: the bits of matmul, for every kind of weights and way of rounding. And what
// happens to results on their way: lists, sums, biases, 16 bits, gates.

#include <anybit/kernel/gated_rows.hpp>
#include <anybit/kernel/matvec.hpp>

#include <limits>

#include "kernel/products.hpp"
#include "support/hostile_executor.hpp"
#include "support/same_bits.hpp"

using namespace anybit;
using products::Guarded;
using products::InputAtOddPlace;
using products::some_weights;
using test_support::same_bits;

namespace {

std::vector<ActivationMode> all_modes() {
  return {Compute::f32, Compute::bf16, Compute::int8_per_token, Compute::int8_per_block, ActivationMode::int8_static(0.004f)};
}

/// Rows of w into y in slices of odd lengths.
void in_slices(const AnyPacked& w, const Activations& a, const OutputTokens& y) {
  const Index rows = w.extents().rows;
  for (Index begin = 0, length = 1; begin < rows; begin += length, length = length % 41 + 5)
    w.matmul_rows(a, y, begin, std::min(rows, begin + length));
}

Matrix product(const AnyPacked& w, ConstMatrix x, ActivationMode mode) {
  Matrix y(x.rows, w.extents().rows);
  Workspace workspace;
  w.matmul(x, y.view(), mode, {}, workspace);
  return y;
}

template <AnyScheme S>
AnyPacked packed(Index rows, Index cols, unsigned seed) {
  return AnyPacked(pack(some_weights<S>({rows, cols}, seed)));
}

/// Two tensors of each scheme share a rounding.
template <AnyScheme S, AnyScheme Other = S>
void shares(Index cols) {
  CAPTURE(std::string(S::name.view()), std::string(Other::name.view()), cols);
  for (const bool prepared : {false, true})
    for (const ActivationMode mode : all_modes()) {
      const auto tensor = pack(some_weights<S>({70, cols}, 1));
      AnyPacked q(tensor), k = packed<Other>(19, cols, 2);
      if (prepared) q.prepare(mode.compute(), {}, 0.1f), k.prepare(mode.compute(), {}, 0.1f);
      ActivationPlan plan = q.plan(mode);
      REQUIRE(plan.join(k.plan(mode)));
      for (const Index tokens : {1, 2, 5, 8, 23, 70, 131}) {
        CAPTURE(prepared, std::string(name(mode.compute())), tokens);
        const InputAtOddPlace x(tokens, cols, 3, static_cast<unsigned>(tokens));
        Workspace workspace;
        test_support::HostileExecutor hostile(static_cast<unsigned>(tokens));
        const Activations a = round_activations(x.view, plan, workspace, hostile);
        Matrix expected(tokens, 70);
        if (!prepared) {
          Workspace other;
          matmul(tensor, x.view, expected.view(), mode, other);  // through the type
        } else {
          expected = product(q, x.view, mode);
        }
        Guarded y(tokens, 70, 2);
        in_slices(q, a, y.view());
        REQUIRE(y.intact());
        REQUIRE(same_bits(Matrix(ConstMatrix(y.view())), expected));
        Matrix second(tokens, 19);
        in_slices(k, a, second.view());
        REQUIRE(same_bits(second, product(k, x.view, mode)));
      }
    }
}

}  // namespace

TEST_CASE("one rounding serves several tensors, to the bit of each product alone") {
  using Int4 = Scheme<SInt<4>, PerGroup<32>>;
  using Int6 = Scheme<SInt<6>, PerGroup<32>>;
  shares<Int4>(131);
  shares<Int4, Int6>(256);                                                // codes in other units, another lowest level
  shares<Scheme<UInt<4>, PerGroup<32>>, Int4>(160);                       // with and without zero points
  shares<Scheme<SInt<8>, PerRow, ScaleF32>>(700);                         // more columns than a segment
  shares<Scheme<Nf4, PerGroup<64>>, Scheme<SInt<3>, PerGroup<64>>>(192);  // one in float, one in integers
  shares<Scheme<UInt<9>, PerGroup<32>>>(96);
  shares<Scheme<Ternary, PerTensor, ScaleF32, Base3>, Scheme<SInt<2>, PerRow, ScaleF32>>(100);
}

TEST_CASE("a typed tensor and its tiles multiply by row range with rounded activations") {
  using S = Scheme<SInt<5>, PerGroup<64>>;
  const auto w = pack(some_weights<S>({77, 200}, 3));
  const InputAtOddPlace x(9, 200, 1, 4);
  for (const Compute compute : {Compute::int8_per_token, Compute::int8_per_block}) {
    Workspace workspace;
    Matrix expected(9, 77), y(9, 77), tiles(9, 77);
    matmul(w, x.view, expected.view(), compute, workspace);
    const kernel::TiledWeights tiled = kernel::tile_weights(w, compute);
    ActivationPlan plan = plan_activations(w, compute);
    REQUIRE(plan.join(kernel::plan_activations(tiled, compute)));
    const Activations a = round_activations(x.view, plan, workspace);
    for (const auto& [begin, end] : {std::pair<Index, Index>{0, 3}, {3, 40}, {40, 77}}) {
      matmul_rows(w, a, y.view(), begin, end);
      matmul_rows(tiled, a, tiles.view(), begin, end);
    }
    CHECK(same_bits(y, expected));
    CHECK(same_bits(tiles, expected));
  }
}

TEST_CASE("plans join only where one rounding serves both") {
  using Groups32 = Scheme<SInt<4>, PerGroup<32>>;
  const AnyPacked w = packed<Groups32>(8, 96, 1);
  ActivationPlan plan = w.plan(Compute::int8_per_token);
  CHECK(plan.join(plan));
  CHECK(plan.serves(w.plan(Compute::int8_per_token)));
  CHECK_FALSE(plan.join(packed<Groups32>(8, 64, 1).plan(Compute::int8_per_token)));
  CHECK_FALSE(plan.join(packed<Scheme<SInt<4>, PerGroup<48>>>(8, 96, 1).plan(Compute::int8_per_token)));
  CHECK_FALSE(plan.join(w.plan(Compute::int8_per_block)));
  CHECK_FALSE(plan.serves(w.plan(Compute::f32)));
  CHECK_FALSE(w.plan(ActivationMode::int8_static(0.5f)).serves(w.plan(ActivationMode::int8_static(0.25f))));
  auto q = some_weights<Groups32>({8, 96}, 1);
  for (std::uint32_t j = 0; j < 96; ++j) q.column_order.push_back(95 - j);
  const AnyPacked ordered(pack(q)), same_order(pack(q));
  CHECK_FALSE(plan.join(ordered.plan(Compute::int8_per_token)));
  CHECK(ordered.plan(Compute::int8_per_token).serves(same_order.plan(Compute::int8_per_token)));
  // What did not join is refused by name.
  AnyPacked tiled = w;
  tiled.prepare(Compute::int8_per_token);
  CHECK_FALSE(plan.serves(tiled.plan(Compute::int8_per_token)));
  CHECK(plan.join(tiled.plan(Compute::int8_per_token)));
}

TEST_CASE("a list of tokens is read and written in place") {
  using S = Scheme<SInt<4>, PerGroup<32>>;
  const std::vector<std::int32_t> list{7, 0, 3, 3, 11, 5};
  for (const bool ordered : {false, true})
    for (const bool prepared : {false, true})
      for (const ActivationMode mode : all_modes()) {
        CAPTURE(ordered, prepared, std::string(name(mode.compute())));
        auto q = some_weights<S>({70, 96}, 1);
        for (std::uint32_t j = 0; ordered && j < 96; ++j) q.column_order.push_back(j * 5 % 96);
        AnyPacked w(pack(q));
        if (prepared) w.prepare(mode.compute());
        const InputAtOddPlace x(12, 96, 5, 2);
        const auto n = static_cast<Index>(list.size());
        Matrix gathered(n, 96);
        for (Index i = 0; i < n; ++i)
          std::copy_n(x.view.row(list[static_cast<std::size_t>(i)]).data(), 96, gathered.view().row(i).data());
        const Matrix expected = product(w, gathered.view(), mode);
        Workspace workspace;
        Matrix y(n, 70);
        w.matmul(InputTokens(x.view).at(list), y.view(), mode, {}, workspace);
        CHECK(same_bits(y, expected));
        // Added to the rows that they came from, times a factor each.
        std::vector<float> factors;
        for (Index i = 0; i < n; ++i) factors.push_back(0.25f * static_cast<float>(i + 1));
        Matrix sums(12, 70), by_hand(12, 70), times(n, 70);  // a matrix between: else the compiler rounds once for both
        for (Index i = 0; i < n; ++i)
          for (Index r = 0; r < 70; ++r) times(i, r) = expected(i, r) * factors[static_cast<std::size_t>(i)];
        for (Index i = 0; i < 12 * 70; ++i) sums.data()[i] = by_hand.data()[i] = static_cast<float>(i % 7);
        for (Index i = 0; i < n; ++i)
          for (Index r = 0; r < 70; ++r) by_hand(list[static_cast<std::size_t>(i)], r) += times(i, r);
        const Activations a = round_activations(InputTokens(x.view).at(list), w.plan(mode), workspace);
        in_slices(w, a, OutputTokens(sums.view()).at(list).added().times(factors));
        CHECK(same_bits(sums, by_hand));
      }
}

TEST_CASE("results are added, biased and stored in 16 bits as they leave") {
  using S = Scheme<SInt<6>, PerGroup<32>>;
  AnyPacked w = packed<S>(130, 96, 1);
  std::vector<float> bias;
  for (int i = 0; i < 130; ++i) bias.push_back(static_cast<float>(i % 13) - 6);
  for (const bool prepared : {false, true})
    for (const Index tokens : {1, 9, 150}) {
      CAPTURE(prepared, tokens);
      if (prepared) w.prepare(Compute::int8_per_token);
      const InputAtOddPlace x(tokens, 96, 0, 5);
      const Matrix plain = product(w, x.view, Compute::int8_per_token);
      Workspace workspace;
      const Activations a = round_activations(x.view, w.plan(Compute::int8_per_token), workspace);
      Guarded y(tokens, 130, 3);
      for (Index t = 0; t < tokens; ++t) std::fill(y.view().row(t).begin(), y.view().row(t).end(), 0.5f);
      in_slices(w, a, OutputTokens(y.view()).added().with_bias(bias));
      CHECK(y.intact());
      bool same = true;
      for (Index t = 0; t < tokens; ++t)
        for (Index r = 0; r < 130; ++r) same = same && y.view()(t, r) == 0.5f + (plain(t, r) + bias[static_cast<std::size_t>(r)]);
      CHECK(same);
      for (const FloatType type : {FloatType::f16, FloatType::bf16}) {
        const auto to = [&](float v) { return type == FloatType::f16 ? f32_to_f16(v) : f32_to_bf16(v); };
        const auto from = [&](std::uint16_t v) { return type == FloatType::f16 ? f16_to_f32(v) : bf16_to_f32(v); };
        const std::uint16_t before = to(1.5f);
        std::vector<std::uint16_t> halves(static_cast<std::size_t>(tokens * 140), before);
        in_slices(w, a, OutputTokens(halves.data(), type, tokens, 130, 140).added());
        same = true;
        for (Index t = 0; t < tokens; ++t)
          for (Index r = 0; r < 140; ++r)
            same = same && halves[static_cast<std::size_t>(t * 140 + r)] == (r < 130 ? to(from(before) + plain(t, r)) : before);
        CHECK(same);
        // Inputs of 16 bits are what they are as floats.
        std::vector<std::uint16_t> in;
        Matrix wide(tokens, 96);
        for (Index t = 0; t < tokens; ++t)
          for (Index j = 0; j < 96; ++j) in.push_back(to(x.view(t, j))), wide(t, j) = from(in.back());
        Workspace other;  // `a` lies in the first
        for (const ActivationMode mode : all_modes()) {
          Matrix found(tokens, 130);
          w.matmul(InputTokens(in.data(), type, tokens, 96, 96), found.view(), mode, {}, other);
          CHECK(same_bits(found, product(w, wide.view(), mode)));
        }
      }
    }
}

TEST_CASE("SwiGLU of two matrices, as its equation says") {
  using S = Scheme<SInt<4>, PerGroup<32>>;
  AnyPacked gate = packed<S>(150, 96, 1), up = packed<S>(150, 96, 2);
  for (const ActivationMode mode : all_modes())
    for (const Index tokens : {1, 3, 70}) {
      gate.prepare(mode.compute()), up.prepare(mode.compute());
      const InputAtOddPlace x(tokens, 96, 0, 5);
      const Matrix g = product(gate, x.view, mode), u = product(up, x.view, mode);
      ActivationPlan plan = gate.plan(mode);
      REQUIRE(plan.join(up.plan(mode)));
      Workspace workspace;
      const Activations a = round_activations(x.view, plan, workspace);
      Guarded y(tokens, 150, 1);
      Matrix whole(tokens, 150);
      gated_rows(gate, up, a, y.view(), 0, 70);
      gated_rows(gate, up, a, y.view(), 70, 150);
      gated_rows(gate, up, a, whole.view(), 0, 150);
      CHECK(y.intact());
      CHECK(same_bits(Matrix(ConstMatrix(y.view())), whole));
      double worst = 0;
      for (Index t = 0; t < tokens; ++t)
        for (Index r = 0; r < 150; ++r) {
          const double z = static_cast<double>(g(t, r)), expected = z / (1 + std::exp(-z)) * static_cast<double>(u(t, r));
          worst = std::max(worst, std::fabs(static_cast<double>(whole(t, r)) - expected) / (1 + std::fabs(expected)));
        }
      CHECK(worst < 1e-6);
    }
}

TEST_CASE("no tokens and no columns: nothing is read, and sums of nothing are 0") {
  using S = Scheme<SInt<4>, PerGroup<32>>;
  for (const bool prepared : {false, true})
    for (const ActivationMode mode : all_modes()) {
      AnyPacked w = packed<S>(40, 96, 1), none = packed<S>(40, 0, 1);
      if (prepared) w.prepare(mode.compute()), none.prepare(mode.compute());
      Workspace workspace;
      w.matmul_rows(round_activations(ConstMatrix(nullptr, 0, 96), w.plan(mode), workspace), MutableMatrix(nullptr, 0, 40), 0,
                    40);
      Matrix y(3, 40);
      for (Index i = 0; i < 120; ++i) y.data()[i] = 7;
      none.matmul_rows(round_activations(ConstMatrix(nullptr, 3, 0, 0), none.plan(mode), workspace), y.view(), 0, 40);
      CHECK(std::all_of(y.data(), y.data() + 120, [](float v) { return v == 0; }));
    }
}

TEST_CASE("NaN and infinity in a token reach only that token") {
  using S = Scheme<SInt<4>, PerGroup<32>>;
  for (const bool prepared : {false, true})
    for (const ActivationMode mode : all_modes())
      for (const float bad : {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity()}) {
        AnyPacked w = packed<S>(70, 96, 1);
        if (prepared) w.prepare(mode.compute());
        Matrix x(9, 96);
        for (Index i = 0; i < 9 * 96; ++i) x.data()[i] = static_cast<float>(i % 17) - 8;
        const Matrix expected = product(w, x.view(), mode);
        x(4, 50) = bad;
        Workspace workspace;
        Matrix y(9, 70);
        in_slices(w, round_activations(x.view(), w.plan(mode), workspace), y.view());
        bool same = true, spoiled = false;
        for (Index t = 0; t < 9; ++t)
          for (Index r = 0; r < 70; ++r) {
            if (t == 4)
              spoiled = spoiled || !is_finite(y(t, r));
            else
              same = same && y(t, r) == expected(t, r);
          }
        CHECK(same);
        CHECK(spoiled);
      }
}

namespace {

/// Counts how often it is called.
struct Counting {
  Index threads;
  int loops = 0;
  Index concurrency() const { return threads; }
  template <class Body>
  void parallel_for(Index n, Index, Body&& body) {
    ++loops;
    if (n > 0) body(Index{0}, n);
  }
};

}  // namespace

TEST_CASE("one token is rounded without the executor and one thread multiplies without it") {
  using S = Scheme<SInt<4>, PerGroup<32>>;
  for (const bool prepared : {false, true})
    for (const ActivationMode mode : all_modes()) {
      AnyPacked w = packed<S>(200, 256, 1);
      if (prepared) w.prepare(mode.compute());
      Workspace workspace;
      const Matrix x(1, 256);
      Matrix y(1, 200);
      Counting one{1}, two{2};
      w.matmul(x.view(), y.view(), mode, one, workspace);
      CHECK(one.loops == 0);
      round_activations(x.view(), w.plan(mode), workspace, two);
      CHECK(two.loops == 0);
      w.matmul(x.view(), y.view(), mode, two, workspace);
      CHECK(two.loops == 1);
      const Matrix many(512, 256);
      Matrix out(512, 200);
      two.loops = 0;
      w.matmul(many.view(), out.view(), mode, two, workspace);
      CHECK(two.loops <= 2);
    }
}

TEST_CASE("codes are quotients of the scale, ties to even, whatever the size of the scale") {
  unsigned seed = 1;
  for (const float size : {1e-44f, 1e-39f, 3e-30f, 1e-12f, 1.0f, 127.0f, 3e9f, 1e25f, 3.4e38f})
    for (int trial = 0; trial < 200; ++trial) {
      float x[37];
      for (float& v : x) {
        seed = seed * 1664525u + 1013904223u;
        v = (static_cast<float>(seed >> 8) * 0x1p-23f - 1) * size;
        if (seed % 5 == 0) v = static_cast<float>(static_cast<int>(seed >> 24) - 128) / 254.0f * size;  // halves of codes
        if (seed % 11 == 0) v *= 1e-30f;
      }
      if (trial % 3 == 0) x[5] = size;
      for (const float fixed : {0.0f, size / 200}) {
        std::int8_t codes[37];
        const float scale = kernel::round_token(x, 37, codes, fixed);
        bool same = true;
        for (int i = 0; i < 37; ++i) {
          const float quotient = scale == 0 ? 0 : x[i] / scale;
          same = same && codes[i] == static_cast<int>(std::nearbyint(std::min(std::max(quotient, -127.0f), 127.0f)));
        }
        CAPTURE(size, trial, fixed, scale);
        REQUIRE(same);
      }
    }
}
