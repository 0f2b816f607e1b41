// Norms, activations, rotary positions, linears and embeddings against their equations in double.

#include <cmath>
#include <functional>
#include <limits>
#include <memory>
#include <random>
#include <vector>

#include <anybit/exec/thread_pool.hpp>
#include <anybit/nn/activation.hpp>
#include <anybit/nn/embedding.hpp>
#include <anybit/nn/linear.hpp>
#include <anybit/nn/norm.hpp>
#include <anybit/nn/rope.hpp>

#include "support/catch.hpp"
#include "support/same_bits.hpp"

using namespace anybit;
using test_support::same_bits;

namespace {

Matrix random_matrix(unsigned seed, Index rows, Index cols, float size = 1) {
  std::mt19937 rng(seed);
  std::normal_distribution<float> normal(0, size);
  Matrix m(rows, cols);
  for (Index i = 0; i < m.extents().size(); ++i) m.data()[i] = normal(rng);
  return m;
}
std::vector<float> random_vector(unsigned seed, Index size) {
  const Matrix m = random_matrix(seed, 1, size);
  return {m.data(), m.data() + size};
}
double at(std::span<const float> v, Index j) { return static_cast<double>(v[static_cast<std::size_t>(j)]); }

/// Runs `op` on a copy of x, alone and with three threads, whose bits must agree.
Matrix run(const Matrix& x, Index width, const std::function<void(ConstMatrix, MutableMatrix, ExecutorRef)>& op) {
  Matrix one(x.rows(), width), many(x.rows(), width);
  op(x.view(), one.view(), {});
  ThreadPool pool(3);
  op(x.view(), many.view(), pool);
  REQUIRE(same_bits(one, many));
  return one;
}
Matrix in_place(const Matrix& x, const std::function<void(MutableMatrix, ExecutorRef)>& op) {
  return run(x, x.cols(), [&](ConstMatrix from, MutableMatrix to, ExecutorRef executor) {
    for (Index t = 0; t < from.rows; ++t) std::copy_n(from.row(t).data(), from.cols, to.row(t).data());
    op(to, executor);
  });
}

}  // namespace

TEST_CASE("norms: rows of any width, gains less 1, with and without a bias") {
  for (const Index width : {1, 7, 33, 64}) {
    CAPTURE(width);
    const Matrix x = random_matrix(1, 11, width, 3);
    const auto gain = random_vector(2, width), bias = random_vector(3, width);
    for (const bool unit_offset : {false, true}) {
      const Matrix y = run(x, width, [&](ConstMatrix from, MutableMatrix to, ExecutorRef executor) {
        nn::rms_norm(from, gain, 1e-5f, to, executor, unit_offset);
      });
      for (Index t = 0; t < 11; ++t) {
        double squares = 0;
        for (Index j = 0; j < width; ++j) squares += at(x.view().row(t), j) * at(x.view().row(t), j);
        for (Index j = 0; j < width; ++j)
          CHECK(static_cast<double>(y(t, j)) == Approx(at(x.view().row(t), j) * (at(gain, j) + (unit_offset ? 1 : 0)) /
                                                       std::sqrt(squares / static_cast<double>(width) + 1e-5))
                                                    .epsilon(1e-5)
                                                    .margin(1e-6));
      }
    }
    for (const bool with_bias : {false, true}) {
      const Matrix y = run(x, width, [&](ConstMatrix from, MutableMatrix to, ExecutorRef executor) {
        nn::layer_norm(from, gain, with_bias ? std::span<const float>(bias) : std::span<const float>(), 1e-5f, to, executor);
      });
      for (Index t = 0; t < 11; ++t) {
        double mean = 0, variance = 0;
        for (Index j = 0; j < width; ++j) mean += at(x.view().row(t), j) / static_cast<double>(width);
        for (Index j = 0; j < width; ++j) variance += std::pow(at(x.view().row(t), j) - mean, 2) / static_cast<double>(width);
        for (Index j = 0; j < width; ++j)
          CHECK(static_cast<double>(y(t, j)) ==
                Approx((at(x.view().row(t), j) - mean) * at(gain, j) / std::sqrt(variance + 1e-5) + (with_bias ? at(bias, j) : 0))
                    .epsilon(1e-5)
                    .margin(1e-5));
      }
    }
  }
}

TEST_CASE("activations, alone and as gates, from zero to where e^-z overflows") {
  Matrix z = random_matrix(4, 5, 19, 2);
  z(0, 0) = 0, z(0, 1) = 90, z(0, 2) = -90, z(0, 3) = -0.0f;
  const Matrix up = random_matrix(5, 5, 19);
  const auto exact = [](nn::Activation a, double v) {
    switch (a) {
      case nn::Activation::silu: return v / (1 + std::exp(-v));
      case nn::Activation::gelu: return v * (1 + std::erf(v / std::sqrt(2.0))) / 2;
      case nn::Activation::gelu_tanh:
        return v * (1 + std::tanh(std::sqrt(2 / 3.14159265358979) * (v + 0.044715 * v * v * v))) / 2;
      default: return v > 0 ? v : 0;
    }
  };
  for (const nn::Activation a : {nn::Activation::silu, nn::Activation::gelu, nn::Activation::gelu_tanh, nn::Activation::relu}) {
    CAPTURE(static_cast<int>(a));
    const Matrix alone = in_place(z, [&](MutableMatrix x, ExecutorRef executor) { nn::activate(a, x, executor); });
    const Matrix gated = in_place(z, [&](MutableMatrix x, ExecutorRef executor) { nn::gated(a, x, up.view(), executor); });
    for (Index t = 0; t < 5; ++t)
      for (Index j = 0; j < 19; ++j) {
        const double v = exact(a, static_cast<double>(z(t, j)));
        CHECK(static_cast<double>(alone(t, j)) == Approx(v).epsilon(1e-5).margin(2e-6));
        CHECK(static_cast<double>(gated(t, j)) == Approx(v * static_cast<double>(up(t, j))).epsilon(1e-5).margin(2e-6));
      }
  }
}

TEST_CASE("rotary positions: halves are pairs whose rows were sorted; values behind rotary_dim stay") {
  const Index heads = 3, head_dim = 10, rotary = 6, tokens = 37;
  const Matrix pairs = random_matrix(6, tokens, heads * head_dim);
  const auto place = [&](Index j) {  // of value j of a head in the order of halves
    return j % head_dim >= rotary ? j : j - j % head_dim + j % 2 * (rotary / 2) + j % head_dim / 2;
  };
  Matrix halves(tokens, heads * head_dim);
  for (Index t = 0; t < tokens; ++t)
    for (Index j = 0; j < halves.cols(); ++j) halves(t, place(j)) = pairs(t, j);
  const std::vector<float> factors{1, 2, 4};
  const auto turned = [&](const Matrix& x, nn::RopeOrder order) {
    const nn::RopeTable table({rotary, 500, 2, factors, order}, 100, tokens);
    return in_place(x, [&](MutableMatrix to, ExecutorRef executor) { table.apply(to, head_dim, executor); });
  };
  const Matrix a = turned(pairs, nn::RopeOrder::pairs), b = turned(halves, nn::RopeOrder::halves);
  for (Index t = 0; t < tokens; ++t)
    for (Index j = 0; j < a.cols(); ++j) {
      CHECK(a(t, j) == Approx(b(t, place(j))).epsilon(1e-5).margin(1e-6));  // products may be fused in one and not the other
      if (j % head_dim >= rotary) CHECK(a(t, j) == pairs(t, j));
    }
  const Index i = 2;  // by the equation
  const double angle = 136.0 / 2 * std::pow(500.0, -2.0 * i / rotary) / 4;
  CHECK(static_cast<double>(a(36, 10 + 2 * i)) == Approx(static_cast<double>(pairs(36, 10 + 2 * i)) * std::cos(angle) -
                                                         static_cast<double>(pairs(36, 10 + 2 * i + 1)) * std::sin(angle))
                                                      .epsilon(1e-5));
}

TEST_CASE("a linear adds its bias and its adapter, and hands both to other weights") {
  for (const Index tokens : {1, 70}) {
    const Matrix x = random_matrix(7, tokens, 21);
    nn::Linear linear(random_matrix(8, 13, 21));
    Workspace workspace;
    const auto apply = [&] {
      return run(x, 13,
                 [&](ConstMatrix from, MutableMatrix to, ExecutorRef executor) { linear.apply(from, to, executor, workspace); });
    };
    const Matrix plain = apply();
    const std::vector<float> bias = random_vector(9, 13);
    const auto adapter = std::make_shared<nn::LowRank>(nn::LowRank{random_matrix(10, 3, 21), random_matrix(11, 13, 3), 0.5f});
    linear.set_bias(bias);
    linear.set_adapter(adapter);
    const Matrix y = apply();
    const auto product = [](const Matrix& w, Index r, std::span<const float> v) {
      double sum = 0;
      for (Index j = 0; j < w.cols(); ++j) sum += static_cast<double>(w(r, j)) * at(v, j);
      return sum;
    };
    for (Index t = 0; t < tokens; ++t)
      for (Index r = 0; r < 13; ++r) {
        double expected = product(*linear.dense(), r, x.view().row(t));
        CHECK(static_cast<double>(plain(t, r)) == Approx(expected).epsilon(1e-5).margin(1e-5));
        for (Index k = 0; k < 3; ++k)
          expected += 0.5 * static_cast<double>(adapter->b(r, k)) * product(adapter->a, k, x.view().row(t));
        CHECK(static_cast<double>(y(t, r)) == Approx(expected + at(bias, r)).epsilon(1e-5).margin(1e-5));
      }
    const nn::Linear other = linear.with_weights(nn::Linear(random_matrix(12, 13, 21)));
    CHECK(other.bias() == bias);
    CHECK(other.adapter() == adapter.get());
  }
}

TEST_CASE("embedding: row ids[t] of the table becomes row t") {
  const Matrix table = random_matrix(13, 9, 6);
  const std::vector<std::int32_t> ids{8, 0, 8, 3};
  Matrix x(4, 6);
  nn::embed(nn::Linear(Matrix(table.view())), ids, x.view());
  for (Index t = 0; t < 4; ++t)
    for (Index j = 0; j < 6; ++j) CHECK(x(t, j) == table(ids[static_cast<std::size_t>(t)], j));
}
