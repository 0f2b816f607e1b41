// Hessians that nobody would wish for: never a crash, never a code or scale that is not finite, never worse than rounding to
// nearest in the metric of the true Hessian, and every fallback told.

#include <array>
#include <cmath>
#include <limits>
#include <string>
#include <vector>

#include <anybit/algorithm/compiled_methods.hpp>
#include <anybit/algorithm/gptq.hpp>
#include <anybit/format/formats.hpp>
#include <anybit/scheme/double_quant.hpp>

#include "algorithm/random_layers.hpp"
#include "support/catch.hpp"

using namespace anybit;
using namespace test_layers;

namespace {

enum Kind {
  rank_one,
  duplicated_columns,
  mixed_sizes,  ///< 1e30 and 1e-30 side by side
  few_tokens,   ///< fewer than columns
  zero_tokens,
  one_nan,
  dead_columns,
  all_dead,
  tiny,
  huge,
  indefinite,
  nearly_singular,
  kinds
};

struct Trial {
  Kind kind;
  Matrix w;
  Stats stats;
  bool usable = true;  ///< false: the statistics or the quantization must be refused
};

Trial make_trial(int number) {
  std::mt19937 gen(static_cast<unsigned>(number) + 77);
  std::normal_distribution<double> normal;
  const auto pick = [&](Index low, Index high) { return std::uniform_int_distribution<Index>(low, high)(gen); };
  const Kind kind = static_cast<Kind>(number % kinds);
  const Index n = pick(1, 19), rows = pick(1, 5);
  Trial t{kind, Matrix(rows, n), Stats(n, Needs::hessian)};
  const float sizes[] = {1, 1, 1, 1e-3f, 1e-30f, 1e30f, 0};
  const float size = sizes[static_cast<std::size_t>(pick(0, 6))];
  for (Index i = 0; i < t.w.extents().size(); ++i) t.w.data()[i] = size * static_cast<float>(std::clamp(normal(gen), -3.0, 3.0));

  const Index tokens = kind == rank_one ? 1 : kind == few_tokens ? 1 + n / 3 : kind == zero_tokens ? 0 : 3 * n;
  std::vector<double> size_of(static_cast<std::size_t>(n), 1.0);
  for (Index j = 0; j < n; ++j) {
    double& s = size_of[static_cast<std::size_t>(j)];
    if (kind == mixed_sizes) s = pick(0, 1) == 0 ? 1e30 : 1e-30;
    if (kind == dead_columns && pick(0, 2) == 0) s = 0;
    if (kind == all_dead) s = 0;
    if (kind == tiny) s = 1e-30;
    if (kind == huge) s = 1e75;
  }
  if (kind == indefinite || kind == huge || kind == nearly_singular) {  // no activations in float give these
    std::vector<double> h(static_cast<std::size_t>(n * n));
    const auto at = [n](Index i, Index j) { return static_cast<std::size_t>(i * n + j); };
    for (Index k = 0; k < n; ++k) {
      std::vector<double> v(static_cast<std::size_t>(n));
      for (double& x : v) x = normal(gen) * size_of[0];
      for (Index i = 0; i < n; ++i)
        for (Index j = 0; j < n; ++j) h[at(i, j)] += v[static_cast<std::size_t>(i)] * v[static_cast<std::size_t>(j)];
    }
    for (Index i = 0; i < n; ++i)
      for (Index j = 0; j < i; ++j) {
        if (kind == indefinite) h[at(i, j)] = h[at(j, i)] = 10 * normal(gen);
        if (kind == nearly_singular) h[at(i, j)] = h[at(j, i)] = std::sqrt(h[at(i, i)] * h[at(j, j)]) * (1 - 1e-15);
      }
    REQUIRE(t.stats.set_hessian({h.data(), n, n}, 7).ok());
    return t;
  }
  Matrix x(tokens, n);
  for (Index k = 0; k < tokens; ++k) {
    for (Index j = 0; j < n; ++j) x(k, j) = static_cast<float>(normal(gen) * size_of[static_cast<std::size_t>(j)]);
    if (kind == duplicated_columns)
      for (Index j = 1; j < n; ++j)
        if (j % 2 == 1) x(k, j) = x(k, j - 1);
  }
  if (kind == one_nan) {
    x(pick(0, tokens - 1), pick(0, n - 1)) = std::numeric_limits<float>::quiet_NaN();
    CHECK(!t.stats.accumulate(x.view()).ok());
    CHECK(t.stats.tokens() == 0);
    std::vector<double> h(static_cast<std::size_t>(n * n), 1.0);
    h[static_cast<std::size_t>(pick(0, n * n - 1))] = std::numeric_limits<double>::quiet_NaN();
    CHECK(!t.stats.set_hessian({h.data(), n, n}, 7).ok());
    t.usable = false;  // nothing has been added
    return t;
  }
  REQUIRE(t.stats.accumulate(x.view()).ok());
  t.usable = tokens > 0;
  return t;
}

struct Tally {
  int nearest = 0, raised = 0, refused = 0;
};

template <class Method>
void check_trial(const Trial& t, const Method& method, Tally& tally) {
  using S = typename Method::scheme;
  const auto q = method.quantize(t.w.view(), t.stats, {});
  INFO(method.describe() << ' ' << std::string_view(S::name) << ": " << (q ? q->report.done : q.error().message));
  if (!t.usable) {
    REQUIRE(!q.ok());
    CHECK(!q.error().message.empty());
    ++tally.refused;
    return;
  }
  REQUIRE(q.ok());
  bool sound = true;
  for (const Affine a : q->matrix.affines) sound = sound && std::isfinite(a.scale) && a.scale >= 0 && std::isfinite(a.zero);
  for (const auto c : q->matrix.codes) sound = sound && c < code_count_v<typename S::format>;
  auto as_stored = q->matrix;
  grid::round_trip_joint(AnyQuantized(as_stored));
  for (Affine& a : as_stored.affines) a = stored<S>(a);
  CHECK((sound && as_stored.affines == q->matrix.affines));

  const Square h = hessian_of(t.stats);
  const auto error = [&](const Matrix& m) { return objective(t.w.view(), m.view(), h); };
  const auto nearest = grid::round_to_grid<S>(t.w.view(), method.grid_fit());
  const double mine = error(dequantize(q->matrix)), plain = error(dequantize(nearest));
  const double unresolved = 1e-9 * std::fabs(plain) + 1e-12 * std::fabs(error(Matrix(t.w.rows(), t.w.cols())));
  if (!(std::isfinite(plain) && std::isfinite(unresolved))) return;  // 1e30 weights and 1e75 inputs
  CHECK(mine <= plain + unresolved);
  const bool swept = q->report.done.find("gptq") == 0;
  CHECK((q->report.done == q->report.requested) == swept);
  if (!swept) CHECK(!q->report.as_requested());
  if (q->report.output_error)
    CHECK(std::isfinite(*q->report.output_error));
  else
    CHECK(t.kind == indefinite);
  tally.nearest += !swept;
  tally.raised += swept && !q->report.as_requested();
}

}  // namespace

TEST_CASE("the ladder: 10,000 Hessians that nobody would wish for") {
  std::array<Tally, static_cast<std::size_t>(kinds)> tally;
  for (int number = 0; number < 10000; ++number) {
    const Trial t = make_trial(number);
    INFO("trial " << number << ", kind " << t.kind << ", " << t.w.rows() << " x " << t.w.cols());
    Tally& mine = tally[static_cast<std::size_t>(t.kind)];
    switch (number / kinds % 6) {
      case 0: check_trial(t, Gptq<UInt<3>, PerGroup<8>>{}, mine); break;
      case 1: check_trial(t, Gptq<UInt<3>, PerGroup<8>>{.act_order = true}, mine); break;
      case 2: check_trial(t, Gptq<UInt<3>, PerGroup<8>>::best(), mine); break;
      case 3: check_trial(t, Gptq<Superfloat<4>, PerGroup<8>>::best(), mine); break;
      case 4: check_trial(t, Gptq<Nf4, PerGroup<8>, DoubleQuant<256>>::best(), mine); break;
      default: check_trial(t, Gptq<UInt<2>, PerRow, ScaleF32>{.range = Range::min_max, .refine = 3}, mine);
    }
    if (number % 17 == 0 && t.usable) {
      const Gptq<UInt<3>, PerGroup<8>> method;
      const auto lenient = method.quantize(t.w.view(), t.stats, {}),
                 strict = method.quantize(t.w.view(), t.stats, {.strict = true});
      CHECK(strict.ok() == lenient->report.as_requested());
      if (!strict.ok()) CHECK(strict.error().code == ErrorCode::degraded);
    }
  }
  // The rungs are really climbed.
  const auto of = [&](Kind k) { return tally[static_cast<std::size_t>(k)]; };
  CHECK(of(all_dead).nearest > 800);
  CHECK(of(dead_columns).raised > 300);
  CHECK(of(indefinite).raised + of(indefinite).nearest > 600);
  CHECK(of(one_nan).refused + of(zero_tokens).refused > 1600);
  CHECK(of(rank_one).nearest < 800);
}
