#include <anybit/algorithm/compiled_methods.hpp>
#include <anybit/prune/magnitude.hpp>
#include <anybit/prune/sparse_gpt.hpp>
#include <anybit/prune/wanda.hpp>

#include <algorithm>
#include <limits>
#include <string>
#include <utility>

#include <anybit/calibrate/accumulate.hpp>
#include <anybit/exec/thread_pool.hpp>
#include <anybit/reference/sparse_gpt.hpp>

#include "algorithm/random_layers.hpp"
#include "prune/second_moments.hpp"
#include "support/catch.hpp"

using namespace anybit;
using test_support::second_moments;
using namespace test_layers;

namespace {

const std::pair<Index, Index> shapes[] = {{1, 1}, {1, 9}, {5, 1}, {3, 31}, {67, 33}, {65, 130}, {4, 64}};
const Sparsity patterns[] = {Sparsity::n_of_m(2, 4), Sparsity::n_of_m(4, 8), Sparsity::n_of_m(1, 4), Sparsity::n_of_m(3, 7),
                             Sparsity::n_of_m(0, 3), Sparsity::n_of_m(5, 5), Sparsity::n_of_m(1, 1)};

Index zeros_in(const Matrix& w) {
  return std::count_if(w.data(), w.data() + w.extents().size(), [](float v) { return v == 0; });
}

/// Every run keeps exactly as many weights as it may.
void check_exact_pattern(const Mask& mask, const Sparsity& s) {
  CHECK(check_pattern(mask, s).ok());
  Index expected = 0;
  for (Index c = 0; c < mask.cols(); c += s.of) expected += std::max<Index>(std::min<Index>(s.of, mask.cols() - c) - s.keep, 0);
  CHECK(mask.count() == expected * mask.rows());
}

template <class Method>
Pruned pruned(const Method& method, const Matrix& w, const Stats& stats) {
  auto p = method.prune(w.view(), stats);
  INFO((p.ok() ? "" : p.error().message));
  REQUIRE(p.ok());
  for (Index r = 0; r < w.rows(); ++r)
    for (Index c = 0; c < w.cols(); ++c) {
      REQUIRE(std::isfinite(p->weights(r, c)));
      if (p->mask.pruned(r, c)) REQUIRE(p->weights(r, c) == 0);
    }
  return *std::move(p);
}

/// Pruned and kept scores of all weights that are compared do not overlap.
struct Cut {
  double most_pruned = -1, least_kept = std::numeric_limits<double>::infinity();
  void see(bool gone, double score) {
    if (gone)
      most_pruned = std::max(most_pruned, score);
    else
      least_kept = std::min(least_kept, score);
  }
};

}  // namespace

TEST_CASE("a mask counts, applies and knows patterns") {
  Mask m(3, 70);
  CHECK(m.count() == 0);
  m.prune(0, 0), m.prune(2, 69), m.prune(1, 63), m.prune(1, 64), m.prune(1, 64);
  CHECK(m.count() == 4);
  CHECK(m.sparsity() == Approx(4 / 210.0));
  CHECK((m.pruned(1, 64) && !m.pruned(1, 65) && !m.pruned(0, 64)));
  Matrix w = random_matrix(3, 70, 1);
  const Matrix before = w;
  apply(m, w.view());
  CHECK(mask_of_zeros(w.view()) == m);
  for (Index c = 1; c < 70; ++c) CHECK(w(0, c) == before(0, c));
  m.restore(1, 64);
  CHECK(m.count() == 3);
  CHECK(Mask(0, 5).sparsity() == 0);

  Mask four(2, 6);  // 2:4 needs two pruned of the first four, and none of the last two
  four.prune(0, 1), four.prune(0, 2), four.prune(1, 3);
  const auto wrong = check_pattern(four, Sparsity::n_of_m(2, 4));
  REQUIRE(!wrong.ok());
  CHECK(wrong.error().message == "row 1 has 3 weights left in columns 0 to 3; 2:4 allows 2");
  four.prune(1, 0);
  CHECK(check_pattern(four, Sparsity::n_of_m(2, 4)).ok());
}

TEST_CASE("wanda and magnitude: the worked example") {
  Matrix w(2, 4), x(1, 4);
  const float rows[2][4] = {{4, 0, 1, -1}, {3, -2, -1, -3}}, norms[4] = {1, 2, 8, 3};
  for (Index c = 0; c < 4; ++c) {
    x(0, c) = norms[c];
    for (Index r = 0; r < 2; ++r) w(r, c) = rows[r][c];
  }
  const Pruned by_wanda = pruned(Wanda{}, w, second_moments(x));
  const bool expected[2][4] = {{false, true, false, true}, {true, true, false, false}};
  const Pruned by_magnitude = pruned(Magnitude{.compare = Compare::row}, w, {});
  const bool plain[2][4] = {{false, true, true, false}, {false, true, true, false}};  // of the two ones the first goes
  for (Index r = 0; r < 2; ++r)
    for (Index c = 0; c < 4; ++c) {
      CHECK(by_wanda.mask.pruned(r, c) == expected[r][c]);
      CHECK(by_magnitude.mask.pruned(r, c) == plain[r][c]);
      CHECK(by_wanda.weights(r, c) == (expected[r][c] ? 0.0f : w(r, c)));
    }
  CHECK(by_wanda.report.done == "wanda(50%)");
  CHECK(by_magnitude.report.done == "magnitude(50% of each row)");
  CHECK(by_wanda.report.as_requested());
}

TEST_CASE("the share of zeros is exact, and the smallest scores go") {
  for (const auto& [rows, cols] : shapes)
    for (const double share : {0.0, 0.1, 1 / 3.0, 0.5, 0.9, 1.0}) {
      INFO(rows << " x " << cols << ", " << share);
      const Matrix w = random_matrix(rows, cols, 21), x = correlated(40, cols, 22);
      const Stats stats = second_moments(x);
      const auto all = static_cast<Index>(static_cast<double>(rows * cols) * share),
                 of_row = static_cast<Index>(static_cast<double>(cols) * share);
      const auto norm = stats.mean_square();
      const auto score = [&](Index r, Index c, bool with_norm) {
        return std::fabs(double{w(r, c)}) * (with_norm ? std::sqrt(double{norm[static_cast<std::size_t>(c)]}) : 1);
      };
      for (const bool wanda : {false, true}) {
        const auto run = [&](Compare compare) {
          return wanda ? pruned(Wanda{{.share = share}, compare}, w, stats) : pruned(Magnitude{{.share = share}, compare}, w, {});
        };
        const Pruned by_row = run(Compare::row), by_matrix = run(Compare::matrix), by_share = run(Compare::row_share);
        CHECK(by_row.mask.count() == of_row * rows);
        CHECK(by_matrix.mask.count() == all);
        CHECK(by_share.mask.count() == all);
        Cut whole, shares;
        for (Index r = 0; r < rows; ++r) {
          Cut row;
          std::vector<std::pair<double, Index>> sorted;
          double total = 0, sum = 0;
          for (Index c = 0; c < cols; ++c) {
            const double s = score(r, c, wanda);
            row.see(by_row.mask.pruned(r, c), s);
            whole.see(by_matrix.mask.pruned(r, c), s);
            sorted.emplace_back(s, c);
            total += s;
            if (!by_row.mask.pruned(r, c)) CHECK(by_row.weights(r, c) == w(r, c));
          }
          std::sort(sorted.begin(), sorted.end());
          for (const auto& [s, c] : sorted) shares.see(by_share.mask.pruned(r, c), (sum += s) / total);
          CHECK(row.most_pruned <= row.least_kept * (1 + 1e-6));
        }
        CHECK(whole.most_pruned <= whole.least_kept * (1 + 1e-6));
        CHECK(shares.most_pruned <= shares.least_kept * (1 + 1e-6));
      }
      CHECK(pruned(SparseGpt{.sparsity = {.share = share}, .block = 32}, w, stats).mask.count() == all);
    }
}

TEST_CASE("patterns N:M are exact for every method, ragged columns too") {
  for (const auto& [rows, cols] : shapes)
    for (const Sparsity& s : patterns) {
      INFO(rows << " x " << cols << ", " << s.describe());
      const Matrix w = random_matrix(rows, cols, 31), x = correlated(40, cols, 32);
      const Stats stats = second_moments(x);
      check_exact_pattern(pruned(Magnitude{s}, w, {}).mask, s);
      check_exact_pattern(pruned(Wanda{s}, w, stats).mask, s);
      check_exact_pattern(pruned(SparseGpt{.sparsity = s, .block = 5}, w, stats).mask, s);
    }
}

TEST_CASE("through_threshold takes the first score that would stay as well") {
  const Matrix w = random_matrix(8, 40, 41);
  const Sparsity s{.share = 0.25, .through_threshold = true};
  CHECK(pruned(Magnitude{s}, w, {}).mask.count() == 81);
  CHECK(pruned(Magnitude{s, Compare::row}, w, {}).mask.count() == 8 * 11);
  Matrix equal(4, 10);
  std::fill_n(equal.data(), 40, 2.0f);
  CHECK(pruned(Magnitude{s}, equal, {}).mask.count() == 40);  // ties go together
  CHECK(pruned(Magnitude{{.share = 0.25}}, equal, {}).mask.count() == 10);
}

TEST_CASE("sparsegpt does what the reference does") {
  const Matrix w = random_matrix(70, 61, 11, 0.1f), x = correlated(150, 61, 12);
  const Stats stats = second_moments(x);
  const Square u = reference::inverse_factor(reference::damped(hessian_of(stats), double{0.01f}));
  const auto check = [&](const Sparsity& s, Index block) {
    INFO(s.describe() << ", block " << block);
    const Pruned mine = pruned(SparseGpt{.sparsity = s, .block = block}, w, stats);
    const auto expected = reference::sparse_gpt(
        reference::matrix_of(w), u,
        {.share = s.share, .keep = s.is_pattern() ? s.keep : 0, .of = s.is_pattern() ? s.of : 0, .block = block});
    double worst = 0;
    for (Index r = 0; r < w.rows(); ++r)
      for (Index c = 0; c < w.cols(); ++c) {
        REQUIRE(mine.mask.pruned(r, c) == (expected.mask(r, c) == 1));
        worst = std::max(worst, std::fabs(double{mine.weights(r, c)} - expected.weights(r, c)));
      }
    CHECK(worst < 5e-6);
    CHECK(mine.report.as_requested());
    CHECK(mine.report.done == mine.report.requested);
  };
  for (const Index block : {Index{1}, Index{7}, Index{16}, Index{128}})
    for (const double share : {0.3, 0.5, 0.8}) check({.share = share}, block);
  for (const Sparsity& s : patterns)
    for (const Index block : {Index{7}, Index{128}}) check(s, block);
}

TEST_CASE("sparsegpt beats wanda, and wanda magnitude, on correlated inputs") {
  const Matrix w = random_matrix(48, 96, 5), x = correlated(400, 96, 6);
  const Stats stats = second_moments(x);
  for (const Sparsity& s : {Sparsity{.share = 0.5}, Sparsity{.share = 0.7}, Sparsity::n_of_m(2, 4), Sparsity::n_of_m(4, 8)}) {
    INFO(s.describe());
    const double plain = *pruned(Magnitude{s}, w, stats).report.output_error,
                 wanda = *pruned(Wanda{s}, w, stats).report.output_error,
                 mine = *pruned(SparseGpt{.sparsity = s}, w, stats).report.output_error;
    CHECK(wanda < plain);
    CHECK(mine < 0.8 * wanda);
  }
}

TEST_CASE("pruning gives equal results for any number of threads") {
  const Matrix w = random_matrix(200, 70, 4), x = correlated(100, 70, 5);
  const Stats stats = second_moments(x);
  const auto check = [&](const auto& method) {
    const Pruned serial = pruned(method, w, stats);
    for (const int threads : {2, 3, 8}) {
      ThreadPool pool(threads);
      const auto p = method.prune(w.view(), stats, {.executor = pool});
      REQUIRE(p.ok());
      CHECK(p->mask == serial.mask);
      CHECK(std::equal(p->weights.data(), p->weights.data() + 14000, serial.weights.data()));
      CHECK(p->report.output_error == serial.report.output_error);
    }
  };
  for (const Sparsity& s : {Sparsity{.share = 0.6}, Sparsity::n_of_m(2, 4)}) {
    check(Magnitude{s});
    check(Wanda{s});
    check(Wanda{s, Compare::row_share});
    check(SparseGpt{.sparsity = s, .block = 16});
  }
}

TEST_CASE("sparsegpt on 200 Hessians that nobody would wish for") {
  std::mt19937 gen(99);
  std::normal_distribution<double> normal;
  int plain = 0;
  for (int trial = 0; trial < 200; ++trial) {
    const Index n = 1 + trial % 23;
    const auto at = [n](Index i, Index j) { return static_cast<std::size_t>(i * n + j); };
    std::vector<double> h(static_cast<std::size_t>(n * n));
    const int kind = trial % 9, rank = kind == 0 ? 1 : kind == 1 ? static_cast<int>(n / 2) : static_cast<int>(n);
    for (int k = 0; k < rank; ++k) {
      std::vector<double> v(static_cast<std::size_t>(n));
      for (Index i = 0; i < n; ++i) {
        double& x = v[static_cast<std::size_t>(i)];
        x = normal(gen);
        if (kind == 2) x *= i % 2 ? 1e30 : 1e-30;
        if (kind == 3) x *= 1e-30;
        if (kind == 4 && i % 2) x = v[static_cast<std::size_t>(i - 1)];  // duplicated columns
        if (kind == 5 && i % 3 == 0) x = 0;                              // dead columns
        if (kind == 6) x = 0;                                            // all dead
        if (kind == 7) x *= 1e75;
      }
      for (Index i = 0; i < n; ++i)
        for (Index j = 0; j < n; ++j) h[at(i, j)] += v[static_cast<std::size_t>(i)] * v[static_cast<std::size_t>(j)];
    }
    if (kind == 8)  // indefinite
      for (Index i = 0; i < n; ++i)
        for (Index j = 0; j < i; ++j) h[at(i, j)] = h[at(j, i)] = 10 * normal(gen);
    Stats stats(n, Needs::hessian);
    REQUIRE(stats.set_hessian({h.data(), n, n}, 7).ok());
    const Matrix w = random_matrix(6, n, static_cast<unsigned>(trial), trial % 4 == 0 ? 1e-3f : trial % 4 == 1 ? 1e30f : 1.0f);
    INFO("trial " << trial << ", kind " << kind << ", n " << n);
    const Sparsity s = trial % 2 ? Sparsity::n_of_m(2, 4) : Sparsity{.share = 0.5};
    const Pruned mine = pruned(SparseGpt{.sparsity = s, .block = 8}, w, stats), other = pruned(Magnitude{s}, w, {});
    const Square metric = hessian_of(stats);
    const double got = objective(w.view(), mine.weights.view(), metric),
                 theirs = objective(w.view(), other.weights.view(), metric),
                 whole = objective(w.view(), Matrix(6, n).view(), metric);
    CHECK(got <= theirs + 1e-9 * std::fabs(theirs) + 1e-12 * std::fabs(whole));
    if (s.is_pattern())
      check_exact_pattern(mine.mask, s);
    else
      CHECK(mine.mask.count() == 3 * n);
    plain += mine.report.done.find("magnitude") == 0;
    const auto strict = SparseGpt{.sparsity = s, .block = 8}.prune(w.view(), stats, {.strict = true});
    CHECK(strict.ok() == mine.report.as_requested());
    if (!strict.ok()) CHECK(strict.error().code == ErrorCode::degraded);
  }
  CHECK(plain > 0);
  CHECK(plain < 150);
}

TEST_CASE("dead inputs lose their weights first") {
  const Matrix w = random_matrix(16, 40, 7);
  Matrix x = correlated(100, 40, 8);
  for (Index t = 0; t < 100; ++t) x(t, 3) = x(t, 17) = 0;
  const Stats stats = second_moments(x);
  for (const Pruned& p : {pruned(Wanda{{.share = 0.05}}, w, stats), pruned(SparseGpt{.sparsity = {.share = 0.05}}, w, stats)}) {
    CHECK(p.mask.count() == 32);
    for (Index r = 0; r < 16; ++r) CHECK((p.mask.pruned(r, 3) && p.mask.pruned(r, 17)));
  }
  CHECK(pruned(Wanda{}, w, stats).report.as_requested());
  CHECK(!pruned(SparseGpt{}, w, stats).report.as_requested());  // it tells, as gptq does

  const Matrix nothing(50, 40);
  const Pruned by_size = pruned(Wanda{}, w, second_moments(nothing));
  CHECK(by_size.mask == pruned(Magnitude{.compare = Compare::row}, w, {}).mask);
  CHECK(!by_size.report.as_requested());
  CHECK(!Wanda{}.prune(w.view(), second_moments(nothing), {.strict = true}).ok());
}

TEST_CASE("the pruned weights of a compensated row are no copies: zeros count, survivors moved") {
  const Matrix w = random_matrix(8, 32, 9), x = correlated(200, 32, 10);
  const Pruned p = pruned(SparseGpt{}, w, second_moments(x));
  CHECK(zeros_in(p.weights) == 128);
  Index moved = 0;
  for (Index i = 0; i < 256; ++i) moved += p.weights.data()[i] != 0 && p.weights.data()[i] != w.data()[i];
  CHECK(moved > 100);
  CHECK(p.report.weight_error == Approx(relative_error(w.view(), p.weights.view())));
}

TEST_CASE("pruning refuses what it cannot use, naming value and range") {
  const Matrix w = random_matrix(3, 8, 3), x = correlated(20, 8, 4);
  const Stats stats = second_moments(x);
  const auto message = [&](const auto& method, const Stats& s) {
    const auto p = method.prune(w.view(), s);
    REQUIRE(!p.ok());
    return p.error().message;
  };
  const auto has = [](const std::string& text, const char* part) {
    INFO(text);
    CHECK(text.find(part) != std::string::npos);
  };
  has(message(Magnitude{{.share = 1.5}}, stats), "magnitude: sparsity is 1.500000; it is a share and must lie from 0 to 1");
  has(message(Wanda{{.share = -0.1}}, stats), "-0.1");
  has(message(Wanda{{.share = std::nan("")}}, stats), "nan");
  has(message(SparseGpt{.sparsity = Sparsity::n_of_m(5, 4)}, stats), "pattern 5:4 keeps 5 of every 4 columns");
  has(message(Magnitude{Sparsity::n_of_m(2, 0)}, stats), "2:0");
  has(message(Magnitude{Sparsity::n_of_m(-1, 4)}, stats), "-1:4");
  has(message(SparseGpt{.damp = 0}, stats), "sparsegpt: damp is 0; it must lie above 0");
  has(message(SparseGpt{.block = 0}, stats), "block is 0; it must be at least 1");
  has(message(Wanda{}, Stats(8, Needs::mean_square)), "wanda: the statistics have seen 0 tokens");
  has(message(SparseGpt{}, Stats(8, Needs::hessian)), "sparsegpt: the statistics have seen 0 tokens");
  has(message(SparseGpt{}, Stats(8, Needs::mean_square)), "needs hessian");
  has(message(Wanda{}, Stats(8, Needs::hessian)), "needs mean_square");
  has(message(Wanda{}, Stats(9, Needs::mean_square)), "9 inputs");
  Matrix bad = w;
  bad(2, 5) = std::numeric_limits<float>::infinity();
  has(Magnitude{}.prune(bad.view()).error().message, "row 2, column 5");
  CHECK(!Wanda{}.prune(Matrix(0, 8).view(), stats).ok());
}
