// Fast forms that no other folder's tests hold against reference/: rounding, searches, scaling, masks, Hadamard, perplexity.

#include <cmath>
#include <vector>

#include <anybit/algorithm/nearest.hpp>
#include <anybit/calibrate/stats.hpp>
#include <anybit/evaluate/perplexity.hpp>
#include <anybit/format/integer.hpp>
#include <anybit/prune/magnitude.hpp>
#include <anybit/prune/wanda.hpp>
#include <anybit/reference/hadamard.hpp>
#include <anybit/reference/perplexity.hpp>
#include <anybit/reference/scale_search.hpp>
#include <anybit/reference/smooth_quant.hpp>
#include <anybit/reference/wanda.hpp>
#include <anybit/transform/hadamard.hpp>
#include <anybit/transform/smooth_quant.hpp>

#include "reference/vectors.hpp"

using namespace anybit;
using namespace reference_tests;

namespace {

anybit::Matrix floats(const ref::Matrix& m) {
  anybit::Matrix out(m.rows, m.cols);
  for (Index r = 0; r < m.rows; ++r)
    for (Index c = 0; c < m.cols; ++c) out(r, c) = static_cast<float>(m(r, c));
  return out;
}

/// The same numbers, as the fast form sees them.
struct Both {
  anybit::Matrix fast;
  ref::Matrix plain;
  Both(Index rows, Index cols, unsigned seed) : fast(floats(some_matrix(rows, cols, seed))), plain(ref::matrix_of(fast)) {}
};

template <int Bits, Index Group>
void check_nearest(Index rows, Index cols, bool symmetric) {
  INFO(Bits << " bits, groups of " << Group << ", " << rows << " x " << cols);
  const Both w(rows, cols, 5);
  const Nearest<UInt<Bits>, PerGroup<Group>, ScaleF32> method{.range = symmetric ? Range::symmetric : Range::format};
  const anybit::Matrix fast = dequantize(method.quantize(w.fast.view())->matrix);
  const ref::Matrix plain = ref::nearest(w.plain, Bits, Group, symmetric);
  // A tie in float need not be one in double; the largest magnitude of a symmetric group always is one (7.5 of 8 steps).
  Index off = 0;
  for (Index r = 0; r < rows; ++r)
    for (Index c = 0; c < cols; ++c) off += std::abs(double{fast(r, c)} - plain(r, c)) > 1e-5;
  CHECK(off <= (symmetric ? rows * ceil_div(cols, Group) / 2 : rows * cols / 500));
}

template <int Bits>
void check_searches() {
  const Both w(12, 70, 9);
  const auto error = [&](const anybit::Matrix& q, double norm) {
    double sum = 0;
    for (Index r = 0; r < 12; ++r)
      for (Index c = 0; c < 70; ++c) sum += std::pow(std::abs(double{q(r, c)} - w.plain(r, c)), norm);
    return sum;
  };
  const auto fast = [&](Search search) {
    return dequantize(Nearest<UInt<Bits>, PerGroup<32>, ScaleF32>{.search = search}.quantize(w.fast.view())->matrix);
  };
  double shrunk = 0, refined = 0;
  for (Index r = 0; r < 12; ++r)
    for (Index first = 0; first < 70; first += 32) {
      const ref::Vector group = w.plain.row(r, first, std::min(first + 32, Index{70}));
      shrunk += ref::grid_error(group, ref::shrink_search(group, Bits, false), 2.4);
      refined += ref::grid_error(group, ref::refined(group, ref::shrink_search(group, Bits, false)), 2);
    }
  CHECK(error(fast(Search::mse), 2.4) == Approx(shrunk).epsilon(1e-4));
  CHECK(error(fast(Search::least_squares), 2) < refined * 1.02);  // it starts from more ranges, and moves zero points too
}

}  // namespace

TEST_CASE("fast rounding gives the reference's values") {
  check_nearest<2, 7>(5, 31, false);
  check_nearest<3, 32>(1, 1, false);
  check_nearest<4, 128>(9, 200, false);
  check_nearest<4, 16>(9, 61, true);
  check_nearest<8, 64>(9, 200, false);
}

TEST_CASE("fast searches reach the reference's errors") {
  check_searches<2>();
  check_searches<3>();
  check_searches<4>();
}

TEST_CASE("SmoothQuant's and Wanda's fast forms follow the reference") {
  const Both x(40, 23, 1), a(11, 23, 2), b(5, 23, 3);
  Stats stats(23, Needs::abs_max | Needs::mean_square);
  REQUIRE(stats.accumulate(x.fast.view()).ok());
  const ConstMatrix siblings[] = {a.fast.view(), b.fast.view()};
  for (const float alpha : {0.3f, 0.5f, 0.85f}) {
    const auto fast = SmoothQuant{.alpha = alpha}.fit(siblings, stats);
    REQUIRE(fast.ok());
    const ref::Vector plain = ref::smooth_quant(ref::column_abs_max(x.plain), {a.plain, b.plain}, double{alpha});
    for (std::size_t j = 0; j < 23; ++j) CHECK((*fast)[j] == Approx(plain.values[j]).epsilon(1e-5));
  }
  const ref::Matrix scores = ref::wanda_scores(a.plain, ref::column_norms(x.plain));
  const auto equal = [](const anybit::Mask& fast, const ref::Mask& plain) {
    for (Index r = 0; r < plain.rows; ++r)
      for (Index c = 0; c < plain.cols; ++c)
        if (fast.pruned(r, c) != (plain(r, c) == 1)) return false;
    return true;
  };
  CHECK(equal(Wanda{{.share = 0.6}}.prune(a.fast.view(), stats)->mask, ref::prune_rows(scores, 0.6)));
  CHECK(equal(Wanda{Sparsity::n_of_m(2, 4)}.prune(a.fast.view(), stats)->mask, ref::prune_n_of_m(scores, 2, 4)));
  CHECK(equal(Magnitude{{.share = 0.4}}.prune(a.fast.view())->mask, ref::prune_whole(ref::magnitudes(a.plain), 0.4)));
}

TEST_CASE("the fast Hadamard transform is the product with the matrix") {
  for (const Index n : {Index{1}, Index{2}, Index{64}, Index{128}}) {
    const auto fast = Hadamard::make(n, 0);  // no signs
    REQUIRE(fast.ok());
    Both x(3, n, 4);
    fast->forward(x.fast.view());
    const ref::Matrix plain = ref::times_transposed(x.plain, ref::normalized(ref::sylvester(n)));
    for (Index t = 0; t < 3; ++t)
      for (Index j = 0; j < n; ++j) CHECK(x.fast(t, j) == Approx(plain(t, j)).margin(1e-5));
  }
}

TEST_CASE("both protocols of perplexity score what the reference scores") {
  std::vector<std::int32_t> tokens;
  for (int i = 0; i < 61; ++i) tokens.push_back((i * i + 3 * i) % 11);
  const auto forward = [](const ref::Row<Index>& ids) {  // logits that depend on the token and its place
    ref::Matrix logits(ids.size(), 11);
    for (Index t = 0; t < ids.size(); ++t)
      for (Index v = 0; v < 11; ++v) logits(t, v) = std::sin(static_cast<double>(3 * v + 5 * ids[t] + t));
    return logits;
  };
  const auto check = [&](const evaluate::Windows& windows, ref::Protocol protocol, Index bos) {
    std::vector<double> nll;
    for (Index w = 0; w < windows.count(); ++w) {
      ref::Row<Index> ids;
      for (const std::int32_t id : windows.window(w)) ids.values.push_back(id);
      const anybit::Matrix logits = floats(forward(ids));
      for (Index k = 0; k < windows.scored_per_window(); ++k)
        nll.push_back(evaluate::negative_log_likelihood(logits.view().row(windows.first_scored + k),
                                                        windows.targets(w)[static_cast<std::size_t>(k)]));
    }
    CHECK(evaluate::perplexity(nll).value ==
          Approx(ref::perplexity(ref::Row<Index>(tokens), windows.length, protocol, forward, bos)).epsilon(1e-6));
  };
  check(*evaluate::gptq_windows(tokens, 12), ref::Protocol::gptq, -1);
  check(*evaluate::llama_cpp_windows(tokens, 12), ref::Protocol::llama_cpp, -1);
  check(*evaluate::llama_cpp_windows(tokens, 14, 9), ref::Protocol::llama_cpp, 9);
}
