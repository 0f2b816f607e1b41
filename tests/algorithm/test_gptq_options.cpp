// Group-aware order, grids from compensated weights, and GPTAQ's drift, each against the published loop in double.

#include <algorithm>
#include <limits>
#include <numeric>
#include <string>
#include <vector>

#include <anybit/algorithm/compiled_methods.hpp>
#include <anybit/algorithm/gptq.hpp>
#include <anybit/format/formats.hpp>
#include <anybit/reference/qronos.hpp>
#include <anybit/scheme/double_quant.hpp>

#include "algorithm/reference_loop.hpp"
#include "support/catch.hpp"

using namespace anybit;
using namespace test_layers;

namespace {

constexpr Index inputs = 61;

struct Layer {
  Matrix w = random_matrix(9, inputs, 11, 0.1f), x = correlated(150, inputs, 12), x0 = correlated(150, inputs, 12);
  Stats stats{inputs, Needs::hessian | Needs::input_drift};
  Square h, d;

  Layer() {
    const Matrix noise = random_matrix(150, inputs, 13, 0.3f);
    for (Index i = 0; i < noise.extents().size(); ++i) x0.data()[i] += noise.data()[i] + 0.2f * x.data()[i];
    REQUIRE(stats.accumulate(x.view(), x0.view()).ok());
    h = hessian_of(stats);
    d = Square(inputs, inputs);
    for (Index i = 0; i < inputs; ++i)
      for (Index j = 0; j < inputs; ++j)
        for (Index t = 0; t < 150; ++t) d(i, j) += 2.0 / 150 * (double{x0(t, i)} - double{x(t, i)}) * double{x(t, j)};
  }
};

/// By repeated search for the largest: groups of g by their largest diagonal entry, columns inside likewise.
std::vector<Index> group_aware_order(const Square& h, Index g) {
  std::vector<std::vector<Index>> groups(std::size_t(ceil_div(inputs, g)));
  for (Index j = 0; j < inputs; ++j) groups[std::size_t(j / g)].push_back(j);
  const auto weight = [&](Index j) { return h(j, j); };
  std::vector<Index> order;
  while (!groups.empty()) {
    std::size_t best = 0;
    const auto largest = [&](std::size_t i) {
      double m = 0;
      for (const Index j : groups[i]) m = std::max(m, weight(j));
      return m;
    };
    for (std::size_t i = 1; i < groups.size(); ++i)
      if (largest(i) > largest(best)) best = i;
    while (!groups[best].empty()) {
      auto next = groups[best].begin();
      for (auto j = next; j != groups[best].end(); ++j)
        if (weight(*j) > weight(*next)) next = j;
      order.push_back(*next);
      groups[best].erase(next);
    }
    groups.erase(groups.begin() + std::ptrdiff_t(best));
  }
  return order;
}

std::vector<Index> natural_order() {
  std::vector<Index> order(std::size_t{inputs});
  std::iota(order.begin(), order.end(), Index{0});
  return order;
}

/// Codes of `method` against the published loop in `order`. Grids: those of the result, or, if `fresh`, found anew by the loop
/// from what the columns of a group have become when the group begins.
template <class Method>
void check_against_loop(const Layer& layer, const Method& method, const std::vector<Index>& order, bool fresh) {
  using S = typename Method::scheme;
  const auto q = method.quantize(layer.w.view(), layer.stats, {});
  INFO(method.describe() << ' ' << std::string_view(S::name) << (q ? "" : q.error().message));
  REQUIRE(q.ok());
  CHECK(q->report.as_requested());
  CHECK(q->matrix.column_order.empty());
  const Index g = S::granularity::group_cols(inputs);
  const Square u = loop_factor(layer.h, double{method.damp}, order);
  const Square p = method.drift > 0 && !method.whole_drift
                       ? reference::gptaq_drift(reference::reordered(layer.d, reference::Order(order)), u, double{method.drift})
                       : Square{};
  const auto group = [&](std::size_t i) { return order[i] / g; };
  Matrix aim = layer.w;
  if (method.whole_drift) {
    const Square target = reference::qronos_target(reference::matrix_of(layer.w), reference::damped(layer.h, double{method.damp}),
                                                   layer.d, double{method.drift});
    for (Index r = 0; r < aim.rows(); ++r)
      for (Index j = 0; j < inputs; ++j) aim(r, j) = static_cast<float>(target(r, j));
  }
  std::vector<Affine> found(static_cast<std::size_t>(layer.w.rows()));  // the present grid of each row
  float scale_error = 0;
  const Matrix expected =
      reference_loop<typename S::format>(aim, u, order, p, [&](Index r, std::size_t i, const std::vector<double>& row) {
        if (!fresh) return q->matrix.affine(r, group(i));
        Affine& grid = found[static_cast<std::size_t>(r)];
        if (i == 0 || group(i) != group(i - 1)) {
          std::vector<float> values;
          for (std::size_t k = i; k < row.size() && group(k) == group(i); ++k) values.push_back(static_cast<float>(row[k]));
          grid = method.grid_fit().template fit<S>(values);
          scale_error = std::max(scale_error, std::fabs(q->matrix.affine(r, group(i)).scale / grid.scale - 1));
        }
        return grid;
      });
  const Matrix back = dequantize(q->matrix);
  Index off = 0;
  for (Index r = 0; r < back.rows(); ++r)
    for (Index c = 0; c < back.cols(); ++c) off += std::fabs(back(r, c) - expected(r, c)) > 1e-4f * std::fabs(expected(r, c));
  CHECK(off <= 2);
  CHECK(scale_error < 1e-4f);
}

}  // namespace

TEST_CASE("group-aware order: the published loop in that order, and no column order to store") {
  const Layer layer;
  for (const Index block : {Index{1}, Index{7}, Index{20}, Index{128}}) {
    check_against_loop(layer, Gptq<UInt<4>, PerGroup<8>, ScaleF32>{.block = block, .static_groups = true, .group_aware = true},
                       group_aware_order(layer.h, 8), false);
    check_against_loop(layer, Gptq<UInt<3>, PerGroup<16>>{.block = block, .group_aware = true}, group_aware_order(layer.h, 16),
                       false);
    check_against_loop(layer, Gptq<Superfloat<5>, PerGroup<16>>{.block = block, .group_aware = true},
                       group_aware_order(layer.h, 16), false);
    check_against_loop(layer, Gptq<Nf4, PerGroup<16>, DoubleQuant<256>>{.block = block, .group_aware = true},
                       group_aware_order(layer.h, 16), false);
    check_against_loop(layer, Gptq<UInt<4>, PerRow, ScaleF32>{.block = block, .group_aware = true},
                       group_aware_order(layer.h, inputs), false);
  }
}

TEST_CASE("fresh grids: found on weights that are compensated up to the group") {
  const Layer layer;
  for (const Index block : {Index{1}, Index{7}, Index{128}}) {
    check_against_loop(layer, Gptq<UInt<4>, PerGroup<8>, ScaleF32>{.block = block, .fresh_grids = true}, natural_order(), true);
    check_against_loop(layer, Gptq<UInt<3>, PerGroup<16>, ScaleF32>{.block = block, .group_aware = true, .fresh_grids = true},
                       group_aware_order(layer.h, 16), true);
    check_against_loop(layer,
                       Gptq<Superfloat<4>, PerGroup<13>, ScaleF32>{.block = block, .group_aware = true, .fresh_grids = true},
                       group_aware_order(layer.h, 13), true);
  }
}

TEST_CASE("drift: GPTAQ's loop") {
  const Layer layer;
  for (const float alpha : {0.25f, 1.0f})
    for (const Index block : {Index{1}, Index{7}, Index{20}, Index{128}}) {
      check_against_loop(layer, Gptq<UInt<4>, PerGroup<16>, ScaleF32>{.block = block, .static_groups = true, .drift = alpha},
                         natural_order(), false);
      check_against_loop(layer, Gptq<Superfloat<4>, PerGroup<16>, ScaleF32>{.block = block, .fresh_grids = true, .drift = alpha},
                         natural_order(), true);
      check_against_loop(
          layer, Gptq<UInt<3>, PerGroup<8>, ScaleF32>{.block = block, .group_aware = true, .fresh_grids = true, .drift = alpha},
          group_aware_order(layer.h, 8), true);
    }
}

TEST_CASE("whole_drift: Qronos' target in GPTQ's loop") {
  const Layer layer;
  for (const float share : {0.5f, 1.0f})
    for (const Index block : {Index{7}, Index{128}}) {
      check_against_loop(
          layer,
          Gptq<UInt<4>, PerGroup<16>, ScaleF32>{.block = block, .static_groups = true, .drift = share, .whole_drift = true},
          natural_order(), false);
      check_against_loop(layer,
                         Gptq<UInt<3>, PerGroup<8>, ScaleF32>{
                             .block = block, .group_aware = true, .fresh_grids = true, .drift = share, .whole_drift = true},
                         group_aware_order(layer.h, 8), true);
    }
}

TEST_CASE("whole_drift: the target in several tiles of rows and blocks of columns by its equation") {
  constexpr Index rows = 70, n = 150;
  const Matrix w = random_matrix(rows, n, 21, 0.1f), pull = random_matrix(rows, n, 22, 0.02f), x = correlated(300, n, 23);
  const Stats stats = *accumulate<Needs::hessian>(x.view());
  const Square h = hessian_of(stats);
  Report report;
  auto prepared = gptq::prepare<double>(w.view(), {h.values.data(), n, n}, 0.01, 0, gptq::ColumnOrder::group_aware, 16, report);
  REQUIRE(prepared);
  REQUIRE(gptq::aim_at_outputs(pull.view(), *prepared, {}));
  const Square shift = reference::times_transposed(reference::matrix_of(pull), reference::inverse(reference::damped(h, 0.01)));
  double error = 0, whole = 0;
  for (Index r = 0; r < rows; ++r)
    for (Index k = 0; k < n; ++k) {
      const Index j = prepared->order[std::size_t(k)];
      const double off = double{prepared->weights(r, k)} - double{w(r, j)} - shift(r, j);
      error += off * off, whole += shift(r, j) * shift(r, j);
    }
  CHECK(error < 1e-6 * whole);
}

TEST_CASE("drift brings the outputs nearer to the float model's") {
  const Layer layer;
  const auto distance = [&](const Matrix& q) {
    double sum = 0;
    for (Index t = 0; t < layer.x.rows(); ++t)
      for (Index r = 0; r < q.rows(); ++r) {
        double off = 0;
        for (Index j = 0; j < inputs; ++j)
          off += double{layer.w(r, j)} * double{layer.x0(t, j)} - double{q(r, j)} * double{layer.x(t, j)};
        sum += off * off;
      }
    return sum;
  };
  for (const int refine : {0, 5}) {
    Gptq<UInt<4>, PerGroup<16>> method{.refine = refine};
    const double without = distance(dequantize(method.quantize(layer.w.view(), layer.stats, {})->matrix));
    method.drift = 1;
    const auto q = method.quantize(layer.w.view(), layer.stats, {});
    CHECK(q->report.as_requested());
    const double step_by_step = distance(dequantize(q->matrix));
    CHECK(step_by_step < 0.97 * without);
    method.whole_drift = true;
    const auto whole = method.quantize(layer.w.view(), layer.stats, {});
    CHECK(whole->report.as_requested());
    CHECK(distance(dequantize(whole->matrix)) < (refine > 0 ? 1.03 : 1) * step_by_step);
  }
}

TEST_CASE("statistics of drift: by the definition, merged, divided, as bytes") {
  const Layer layer;
  const auto drift_of = [](const Stats& s) {
    std::vector<double> flat(std::size_t(inputs * inputs));
    s.drift(MatrixView<double>(flat.data(), inputs, inputs));
    return flat;
  };
  const auto equals = [&](const std::vector<double>& got, const auto& factor) {
    double largest = 0, off = 0;
    for (Index i = 0; i < inputs; ++i)
      for (Index j = 0; j < inputs; ++j) {
        const double wanted = layer.d(i, j) * factor(std::size_t(i), std::size_t(j));
        largest = std::max(largest, std::fabs(wanted));
        off = std::max(off, std::fabs(got[std::size_t(i * inputs + j)] - wanted));
      }
    return off < 1e-5 * largest;
  };
  const auto one = [](std::size_t, std::size_t) { return 1.0; };
  CHECK(equals(drift_of(layer.stats), one));

  Stats first(inputs, Needs::hessian | Needs::input_drift), second = first;
  REQUIRE(first.accumulate(layer.x.view().row_range(0, 31), layer.x0.view().row_range(0, 31)).ok());
  REQUIRE(second.accumulate(layer.x.view().row_range(31, 150), layer.x0.view().row_range(31, 150)).ok());
  REQUIRE(first.merge(second).ok());
  CHECK(equals(drift_of(first), one));

  const auto bytes = first.to_bytes();
  const auto read = Stats::from_bytes(bytes, "memory");
  REQUIRE(read.ok());
  CHECK(drift_of(*read) == drift_of(first));
  CHECK(!Stats::from_bytes(std::span(bytes).first(bytes.size() - 8), "memory").ok());

  std::vector<float> divisor(std::size_t{inputs});
  for (std::size_t j = 0; j < divisor.size(); ++j) divisor[j] = 0.5f + static_cast<float>(j);
  first.divide_inputs(divisor);
  CHECK(equals(drift_of(first), [&](std::size_t i, std::size_t j) { return 1 / double{divisor[i]} / double{divisor[j]}; }));

  CHECK(!first.accumulate(layer.x.view()).ok());  // the float model's inputs are missing
  CHECK(!first.accumulate(layer.x.view(), layer.x0.view().row_range(0, 9)).ok());
  Matrix bad(layer.x0.view());
  bad(3, 4) = std::numeric_limits<float>::quiet_NaN();
  const Index tokens = first.tokens();
  CHECK(!first.accumulate(layer.x.view(), bad.view()).ok());
  CHECK(first.tokens() == tokens);
  Stats plain(inputs, Needs::hessian);  // the second set of inputs is not asked for
  CHECK(plain.accumulate(layer.x.view(), layer.x0.view()).ok());
}

TEST_CASE("options that contradict each other are refused") {
  const Layer layer;
  using Method = Gptq<UInt<4>, PerGroup<16>>;
  const auto message = [&](const Method& method, const Stats& stats) {
    const auto q = method.quantize(layer.w.view(), stats, {});
    REQUIRE(!q.ok());
    return q.error().message;
  };
  const auto has = [](const std::string& text, const char* part) { return text.find(part) != std::string::npos; };
  CHECK(has(message(Method{.act_order = true, .group_aware = true}, layer.stats), "choose one"));
  CHECK(has(message(Method{.refine = -1}, layer.stats), "refine is -1"));
  CHECK(has(message(Method{.weighted = true}, layer.stats), "the search off"));
  CHECK(has(message(Method{.search = Search::mse, .weighted = true}, layer.stats), "2.4"));
  CHECK(has(message(Method{.drift = 1.5f}, layer.stats), "drift is 1.5"));
  CHECK(has(message(Method{.whole_drift = true}, layer.stats), "whole_drift has no drift"));
  CHECK(has(message(Method{.drift = 0.25f}, *accumulate<Needs::hessian>(layer.x.view())), "drift"));
}
