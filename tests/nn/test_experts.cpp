#include <anybit/nn/experts.hpp>

#include <cmath>
#include <limits>
#include <random>
#include <vector>

#include <anybit/core/matrix.hpp>
#include <anybit/exec/thread_pool.hpp>
#include <anybit/reference/experts.hpp>

#include "support/catch.hpp"

using namespace anybit;
using nn::RouterWeights;
using nn::Routing;

namespace {

Matrix random_logits(Index tokens, Index experts, unsigned seed) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal(0, 2);
  Matrix m(tokens, experts);
  for (Index i = 0; i < m.extents().size(); ++i) m.data()[i] = normal(random);
  return m;
}

/// The list of every expert holds each of its tokens once, in order, with the weight that the token has there.
void check_lists(const Routing& routing, Index tokens, Index experts) {
  Index entries = 0;
  for (Index e = 0; e < experts; ++e) {
    const nn::ExpertTokens list = routing.of(e);
    entries += list.size();
    for (Index i = 0; i < list.size(); ++i) {
      const auto at = static_cast<std::size_t>(i);
      if (i > 0) CHECK(list.rows[at] > list.rows[at - 1]);
      const std::size_t slot = routing.slots(e)[at], used = static_cast<std::size_t>(routing.used());
      REQUIRE(slot / used == static_cast<std::size_t>(list.rows[at]));
      CHECK(routing.experts(list.rows[at])[slot % used] == e);
      CHECK(routing.weights(list.rows[at])[slot % used] == list.weights[at]);
    }
  }
  CHECK(entries == tokens * routing.used());
}

}  // namespace

TEST_CASE("routing: the chosen experts and weights are the reference's for every kind of weights") {
  Routing routing;  // kept from case to case
  for (const Index experts : {Index{1}, Index{2}, Index{5}, Index{61}})
    for (const Index used : {Index{1}, Index{2}, experts - 1, experts}) {
      if (used < 1 || used > experts) continue;
      const Matrix z = random_logits(7, experts, static_cast<unsigned>(experts));
      for (const auto kind : {RouterWeights::softmax, RouterWeights::renormalized, RouterWeights::softmax_of_chosen}) {
        CAPTURE(experts, used, static_cast<int>(kind));
        routing.choose(z.view(), used, kind);
        const reference::Matrix wide = reference::matrix_of(z);
        for (Index t = 0; t < z.rows(); ++t) {
          const reference::Vector want = reference::router_weights(wide.row(t), used, kind != RouterWeights::softmax);
          float sum = 0;
          for (Index i = 0; i < used; ++i) {
            const auto at = static_cast<std::size_t>(i);
            CHECK(static_cast<double>(routing.weights(t)[at]) == Approx(want[routing.experts(t)[at]]).epsilon(1e-5));
            CHECK(want[routing.experts(t)[at]] > 0);
            if (i > 0) CHECK(z(t, routing.experts(t)[at]) <= z(t, routing.experts(t)[at - 1]));
            sum += routing.weights(t)[at];
          }
          if (kind != RouterWeights::softmax) CHECK(sum == Approx(1).epsilon(1e-6));
          if (kind == RouterWeights::softmax && used < experts) CHECK(sum < 1);
        }
        check_lists(routing, z.rows(), experts);
      }
    }
}

TEST_CASE("routing: ties go to the first expert, and logits out of range leave every choice valid") {
  constexpr float inf = std::numeric_limits<float>::infinity(), none = std::numeric_limits<float>::quiet_NaN();
  const float rows[][4] = {{0, 0, 0, 0}, {1, 3, 3, 1}, {none, 1, none, 2}, {none, none, none, none}, {-inf, -inf, 5, -inf}};
  Matrix z(5, 4);
  for (Index t = 0; t < 5; ++t) std::copy_n(rows[t], 4, z.data() + 4 * t);
  Routing routing;
  routing.choose(z.view(), 2, RouterWeights::renormalized);
  const auto chosen = [&](Index t) { return std::vector<Index>(routing.experts(t).begin(), routing.experts(t).end()); };
  CHECK(chosen(0) == std::vector<Index>{0, 1});
  CHECK(chosen(1) == std::vector<Index>{1, 2});
  CHECK(chosen(2) == std::vector<Index>{3, 1});
  CHECK(chosen(3) == std::vector<Index>{0, 1});
  CHECK(chosen(4) == std::vector<Index>{2, 0});
  CHECK(routing.weights(0)[0] == 0.5f);
  CHECK(routing.weights(4)[0] == 1.0f);
  // Logits so far apart that the second weight is 0.
  Matrix far(1, 3);
  far(0, 0) = 1000, far(0, 1) = -1000, far(0, 2) = -2000;
  routing.choose(far.view(), 2, RouterWeights::softmax);
  CHECK(routing.weights(0)[0] == 1.0f);
  CHECK(routing.weights(0)[1] == 0.0f);
  routing.choose(Matrix(0, 3).view(), 2, RouterWeights::softmax);
  for (Index e = 0; e < 3; ++e) CHECK(routing.of(e).size() == 0);
}

TEST_CASE("experts: rows gathered by list and added back by weight give the mixture") {
  constexpr Index tokens = 37, width = 13, experts = 5, used = 3;
  const Matrix x = random_logits(tokens, width, 1), z = random_logits(tokens, experts, 2);
  ThreadPool pool(3);
  for (const ExecutorRef executor : {ExecutorRef(), ExecutorRef(pool)}) {
    Routing routing;
    routing.choose(z.view(), used, RouterWeights::softmax);
    // Expert e multiplies by e + 1, so that the mixture multiplies by the sum of weights times e + 1.
    Matrix y(tokens, width);
    for (Index e = 0; e < experts; ++e) {
      const nn::ExpertTokens list = routing.of(e);
      Matrix rows(list.size(), width);
      nn::gather_rows(x.view(), list.rows, rows.view(), executor);
      for (Index i = 0; i < rows.extents().size(); ++i) rows.data()[i] *= static_cast<float>(e + 1);
      nn::add_rows(rows.view(), list, y.view(), executor);
    }
    for (Index t = 0; t < tokens; ++t) {
      const reference::Vector w = reference::router_weights(reference::matrix_of(z).row(t), used, false);
      double factor = 0;
      for (Index e = 0; e < experts; ++e) factor += w[e] * static_cast<double>(e + 1);
      for (Index j = 0; j < width; ++j)
        CHECK(static_cast<double>(y(t, j)) == Approx(factor * static_cast<double>(x(t, j))).margin(1e-5));
    }
    Matrix gated(tokens, width);
    nn::add_gated_rows(x.view(), z.view().col_range(0, 1), gated.view(), executor);
    for (Index t = 0; t < tokens; ++t)
      CHECK(static_cast<double>(gated(t, 4)) ==
            Approx(static_cast<double>(x(t, 4)) / (1 + std::exp(-static_cast<double>(z(t, 0))))).margin(1e-6));
  }
}
