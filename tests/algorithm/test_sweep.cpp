#include <anybit/algorithm/feedback/sweep.hpp>

#include <cmath>
#include <vector>

#include <anybit/algorithm/compiled_methods.hpp>
#include <anybit/recipe/report.hpp>

#include "algorithm/random_layers.hpp"
#include "support/catch.hpp"

using namespace anybit;
using namespace test_layers;

namespace {

float on_grid(float v) { return std::nearbyint(4 * v) / 4; }

/// All columns in one block, each to the nearest multiple of 1/4; `Width` at once, errors inside those followed by the chooser.
template <Index Width>
Matrix swept(const gptq::Prepared& p, Index step) {
  const ConstMatrix w = p.weights.view();
  Matrix out(w.rows, w.cols);
  gptq::Band<> band(w, p.factor);
  band.enter_block(0, w.cols, 0);
  gptq::sweep_block<Width>(band, 0, w.cols, step, [&](Index t, Index k, Index end, float* kept) {
    for (Index j = k; j < end; ++j)
      for (Index r = 0; r < gptq::row_tile; ++r) {
        float now = band.compensated(t, j)[r];
        for (Index i = k; i < j; ++i) now += (band.target(t, i)[r] - kept[(i - k) * gptq::row_tile + r]) * p.factor.column(j)[i];
        kept[(j - k) * gptq::row_tile + r] = r < band.rows_of(t) ? on_grid(now) : 0.0f;
        if (r < band.rows_of(t)) out(t * gptq::row_tile + r, j) = kept[(j - k) * gptq::row_tile + r];
      }
  });
  return out;
}

}  // namespace

TEST_CASE("the sweep: columns one by one, or several at once by a chooser that follows its own errors, at any step") {
  const Index rows = 70, cols = 50;
  const Matrix w = random_matrix(rows, cols, 1), x = correlated(200, cols, 2);
  const Stats stats = *accumulate<Needs::hessian>(x.view());
  std::vector<double> h(std::size_t(cols * cols));
  stats.hessian(MatrixView<double>(h.data(), cols, cols));
  Report report;
  const auto p = gptq::prepare<double>(w.view(), MatrixView<const double>(h.data(), cols, cols), 0.01, 0,
                                       gptq::ColumnOrder::natural, cols, report);
  REQUIRE(p.has_value());
  // By the definition: q_k nearest to w_k + sum_{j<k} d_j F_jk.
  Matrix expected(rows, cols);
  for (Index r = 0; r < rows; ++r)
    for (Index k = 0; k < cols; ++k) {
      double now = double{w(r, k)};
      for (Index j = 0; j < k; ++j) now += (double{w(r, j)} - double{expected(r, j)}) * double{p->factor.column(k)[j]};
      expected(r, k) = on_grid(static_cast<float>(now));
    }
  CHECK(relative_error(expected.view(), w.view()) > 0.05);
  for (const Index step : {Index{16}, Index{32}, cols}) {
    INFO(step);
    CHECK(relative_error(expected.view(), swept<1>(*p, step).view()) == 0);
    CHECK(relative_error(expected.view(), swept<4>(*p, step).view()) == 0);
    CHECK(relative_error(expected.view(), swept<16>(*p, step).view()) == 0);
  }
}
