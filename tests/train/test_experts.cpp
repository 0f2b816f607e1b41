// The backward pass of a router's choice against central differences of the equation in double.

#include <anybit/nn/experts.hpp>

#include <string>
#include <vector>

#include <anybit/reference/experts.hpp>
#include <anybit/train/backward/experts.hpp>

#include "support/catch.hpp"
#include "train/differences.hpp"

using namespace anybit;
using namespace train_tests;
namespace backward = anybit::train::backward;

TEST_CASE("backward: router, through the weights of the chosen experts") {
  for (const Index experts : {Index{1}, Index{3}, Index{7}})
    for (const Index used : {Index{1}, Index{2}, experts}) {
      if (used > experts) continue;
      for (const auto kind :
           {nn::RouterWeights::softmax, nn::RouterWeights::renormalized, nn::RouterWeights::softmax_of_chosen}) {
        CAPTURE(experts, used, static_cast<int>(kind));
        constexpr Index tokens = 5;
        const Matrix z = some(1, tokens, experts), outputs = some(2, tokens, experts);  // dy . E_e(x)
        nn::Routing routing;
        routing.choose(z.view(), used, kind);
        std::vector<float> dweights;
        for (Index t = 0; t < tokens; ++t)
          for (const Index e : routing.experts(t)) dweights.push_back(outputs(t, e));
        ref::Matrix wide = ref::matrix_of(z);
        const auto loss = [&] {
          double sum = 0;
          for (Index t = 0; t < tokens; ++t) {
            const ref::Vector w = ref::router_weights(wide.row(t), used, kind != nn::RouterWeights::softmax);
            for (Index e = 0; e < experts; ++e) sum += w[e] * static_cast<double>(outputs(t, e));
          }
          return sum;
        };
        const std::vector<double> want = slopes(wide.values, loss);
        const Matrix got = alone_and_threaded([&](ExecutorRef executor) {
          Matrix dz(tokens, experts);
          backward::router(routing, z.view(), kind, dweights, dz.view(), executor);
          return dz;
        });
        double most = 0;
        for (const double w : want) most = std::max(most, std::abs(w));
        if (most > 1e-6) check_gradient(got, want);
      }
    }
}

TEST_CASE("backward: rows of an expert are scaled on their way in and added on their way out") {
  const Matrix z = some(3, 9, 4), dy = some(4, 9, 5);
  nn::Routing routing;
  routing.choose(z.view(), 2, nn::RouterWeights::softmax);
  Matrix sum(9, 5);
  for (Index e = 0; e < 4; ++e) {
    const nn::ExpertTokens list = routing.of(e);
    Matrix rows(list.size(), 5);
    backward::expert_outputs(dy.view(), list, rows.view(), {});
    for (Index i = 0; i < rows.rows(); ++i)
      CHECK(rows(i, 3) == dy(list.rows[static_cast<std::size_t>(i)], 3) * list.weights[static_cast<std::size_t>(i)]);
    backward::add_to_rows(rows.view(), list.rows, sum.view());
  }
  for (Index t = 0; t < 9; ++t)
    CHECK(sum(t, 1) == Approx(dy(t, 1) * (routing.weights(t)[0] + routing.weights(t)[1])).epsilon(1e-5));
  const std::vector<float> hidden{1, 2}, dhidden{0.5f, 1};
  CHECK(backward::weight_gradient(hidden, dhidden, 0.5f) == 5);
  CHECK(backward::weight_gradient(hidden, dhidden, 0) == 0);
}
