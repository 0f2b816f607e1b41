// GPTQ, LDLQ and GPTAQ of reference/: the worked example, laws that hold for every grid, and the published runs.

#include <cmath>
#include <string>

#include <anybit/reference/gptaq.hpp>
#include <anybit/reference/gptq.hpp>
#include <anybit/reference/ldlq.hpp>
#include <anybit/reference/qronos.hpp>

#include "algorithm/gptq_runs.hpp"
#include "reference/vectors.hpp"

using namespace anybit;
using namespace reference_tests;

namespace {

double halves(double x) { return std::nearbyint(2 * x) / 2; }

/// d (H) d^T of row 0.
double row_error(const ref::Matrix& w, const ref::Matrix& q, const ref::Matrix& h, Index r = 0) {
  double sum = 0;
  for (Index i = 0; i < h.rows; ++i)
    for (Index j = 0; j < h.rows; ++j) sum += (w(r, i) - q(r, i)) * h(i, j) * (w(r, j) - q(r, j));
  return sum;
}

ref::Matrix worked_hessian() {
  ref::Matrix h(3, 3);
  h.values = {3, 2, 2, 2, 3, 1, 2, 1, 3};
  return h;
}

}  // namespace

TEST_CASE("reference: triangular factors, by hand") {
  ref::Matrix inverse_of(3, 3);
  inverse_of.values = {4, 2, 6, 2, 5, 7, 6, 7, 22};
  CHECK(ref::transposed(ref::cholesky(inverse_of)).values == std::vector<double>{2, 1, 3, 0, 2, 2, 0, 0, 3});
  const ref::Matrix h = ref::damped(worked_hessian(), 0.01), u = ref::inverse_factor(h), r = ref::upper_factor(h);
  const double expected[] = {0.97828424, -0.48550087, -0.48550087, 0, 0.60858434, -0.20085292, 0, 0, 0.57448499};
  for (std::size_t i = 0; i < 9; ++i) CHECK(u.values[i] == Approx(expected[i]).margin(1e-8));
  const ref::Matrix unit = ref::times_transposed(u, ref::transposed(r));  // R = U^-1
  for (Index i = 0; i < 3; ++i)
    for (Index j = 0; j < 3; ++j) CHECK(unit(i, j) == Approx(i == j ? 1 : 0).margin(1e-12));
}

TEST_CASE("reference: GPTQ's worked example") {
  const ref::Matrix h = worked_hessian(), u = ref::inverse_factor(ref::damped(h, 0.01));
  ref::Matrix w(2, 3);
  w.values = {0.70, 0.15, 0.20, 0.30, -0.70, 0.60};
  const ref::Matrix q = ref::feedback_loop(w, u, [](Index r, Index i, const ref::Matrix& now) { return halves(now(r, i)); });
  CHECK(q.values == std::vector<double>{0.5, 0, 0.5, 0.5, -1, 0.5});
  CHECK(row_error(w, q, h, 0) == Approx(0.2475));
  CHECK(row_error(w, q, h, 1) == Approx(0.16));
}

TEST_CASE("reference: LDLQ of single columns gives GPTQ's values, and its error is the sum over blocks") {
  const ref::Matrix w = some_matrix(5, 12, 1), x = some_matrix(40, 12, 2), h = ref::damped(gram(x, 0.05), 0.01);
  const auto column = [](Index, Index, ref::Vector target) {
    for (double& v : target) v = std::nearbyint(4 * v) / 4;
    return target;
  };
  const ref::Matrix by_gptq = ref::feedback_loop(
      w, ref::inverse_factor(h), [](Index r, Index i, const ref::Matrix& now) { return std::nearbyint(4 * now(r, i)) / 4; });
  CHECK(ref::ldlq(w, h, 1, column) == by_gptq);
  for (const Index block : {Index{1}, Index{4}, Index{5}, Index{12}}) {
    const ref::Matrix a = ref::feedback_factor(h, block), q = ref::ldlq(w, h, block, column);
    // H = A D A^T with D block diagonal: A^-1 H A^-T has nothing outside the blocks.
    const ref::Matrix inverse = ref::inverse(a);
    const ref::Matrix d = ref::times_transposed(ref::times_transposed(inverse, ref::transposed(h)), inverse);
    for (Index i = 0; i < 12; ++i)
      for (Index j = 0; j < 12; ++j)
        if (i / block != j / block) CHECK(d(i, j) == Approx(0).margin(1e-10));
    // eta = (W - W^) A, and tr((W - W^) H (W - W^)^T) = sum eta_K D_K eta_K^T.
    ref::Matrix off = w;
    for (std::size_t i = 0; i < off.values.size(); ++i) off.values[i] -= q.values[i];
    const ref::Matrix eta = ref::times_transposed(off, ref::transposed(a));
    for (const double v : eta.values) CHECK(std::abs(v) <= 0.125 + 1e-12);  // what rounding leaves of each target
    double by_blocks = 0;
    for (Index r = 0; r < 5; ++r)
      for (Index i = 0; i < 12; ++i)
        for (Index j = 0; j < 12; ++j) by_blocks += eta(r, i) * d(i, j) * eta(r, j);
    double whole = 0;
    for (Index r = 0; r < 5; ++r) whole += row_error(w, q, h, r);
    CHECK(by_blocks == Approx(whole));
  }
}

TEST_CASE("reference: GPTAQ without drift is GPTQ; with it outputs come nearer to the float model's") {
  const ref::Matrix w = some_matrix(8, 16, 3), exact = some_matrix(200, 16, 4);
  ref::Matrix x = exact;  // what the quantized layers before give
  const ref::Matrix noise = some_matrix(200, 16, 5);
  for (std::size_t i = 0; i < x.values.size(); ++i) x.values[i] += 0.3 * noise.values[i] + 0.2 * exact.values[i ^ 1];
  ref::Matrix d = ref::times_transposed(ref::transposed(exact), ref::transposed(x));
  const ref::Matrix xx = gram(x, 1), u = ref::inverse_factor(ref::damped(xx, 0.01));
  for (std::size_t i = 0; i < d.values.size(); ++i) d.values[i] -= xx.values[i];
  const auto round = [](Index r, Index i, const ref::Matrix& now) { return std::nearbyint(8 * now(r, i)) / 8; };
  const ref::Matrix plain = ref::feedback_loop(w, u, round);
  CHECK(ref::gptaq(w, u, ref::gptaq_drift(d, u, 0), round) == plain);
  const ref::Matrix aimed = ref::gptaq(w, u, ref::gptaq_drift(d, u, 1), round), wanted = ref::times_transposed(exact, w);
  CHECK(relative_square(wanted, ref::times_transposed(x, aimed)) <
        0.9 * relative_square(wanted, ref::times_transposed(x, plain)));
  const ref::Matrix h = ref::damped(xx, 0.01), none(16, 16), whole = ref::qronos(w, h, d, round);
  CHECK(ref::qronos(w, h, none, round) == plain);
  CHECK(relative_square(wanted, ref::times_transposed(x, whole)) <
        0.9 * relative_square(wanted, ref::times_transposed(x, plain)));
  // Without a grid nothing but the damping keeps V from being the least squares solution: V H = W (H + D).
  const ref::Matrix vh = ref::times_transposed(ref::qronos_target(w, h, d, 1), h),
                    wd = ref::times_transposed(w, ref::transposed(d)), wh = ref::times_transposed(w, h);
  for (std::size_t i = 0; i < vh.values.size(); ++i) CHECK(vh.values[i] == Approx(wh.values[i] + wd.values[i]));
}

TEST_CASE("reference: GPTQ reproduces the published implementation") {
  ANYBIT_TEST_DATA_OR_SKIP(path, "vectors/gptq.safetensors");
  const auto file = io::SafetensorsFile::open(path);
  REQUIRE(file.ok());
  int whole = 0, count = 0;
  for (const test_support::GptqRun& run : test_support::gptq_runs) {
    const std::string layer(run.name, 1), id(run.name);
    const ref::Matrix w = read(*file, layer + ".W"), x = read(*file, layer + ".X");
    const ref::GptqResult q = ref::gptq(w, gram(x, 2),
                                        {.bits = run.bits,
                                         .group = run.group < 0 ? 0 : run.group,
                                         .symmetric = run.sym,
                                         .act_order = run.act_order,
                                         .static_groups = run.static_groups,
                                         .mse = run.mse,
                                         .damp = static_cast<double>(run.damp),
                                         .block = run.block});
    const auto codes = *file->read<std::uint8_t>(id + ".codes");
    const auto groups = *file->read<std::int32_t>(id + ".g_idx");
    Index off = 0;
    for (std::size_t i = 0; i < codes.size(); ++i) off += q.codes.values[i] != codes[i];
    for (Index c = 0; c < w.cols; ++c) REQUIRE(q.group_of[c] == groups[static_cast<std::size_t>(c)]);
    const double rel_err = relative_square(ref::times_transposed(x, w), ref::times_transposed(x, q.weights));
    INFO(id << ": " << off << " of " << codes.size() << " codes differ, error " << rel_err << " against " << run.rel_err);
    CHECK(static_cast<double>(off) <= 0.015 * static_cast<double>(codes.size()));
    CHECK(rel_err == Approx(run.rel_err).epsilon(0.02));
    whole += off == 0, ++count;
  }
  INFO(whole << " of " << count << " runs without one differing code");
  CHECK(count == 44);
  CHECK(whole >= 38);
}
