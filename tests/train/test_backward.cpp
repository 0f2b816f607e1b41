// Every backward op against central differences of its equation in double, at odd sizes, with one thread and three.

#include <array>
#include <cmath>
#include <functional>
#include <limits>
#include <memory>
#include <vector>

#include <anybit/core/finite.hpp>
#include <anybit/nn/activation.hpp>
#include <anybit/nn/rope.hpp>
#include <anybit/reference/activations.hpp>
#include <anybit/reference/attention.hpp>
#include <anybit/reference/kl.hpp>
#include <anybit/reference/norms.hpp>
#include <anybit/reference/rope.hpp>
#include <anybit/scheme/presets.hpp>
#include <anybit/tensor/pack_nearest.hpp>
#include <anybit/train/backward/activation.hpp>
#include <anybit/train/backward/attention.hpp>
#include <anybit/train/backward/cross_entropy.hpp>
#include <anybit/train/backward/embedding.hpp>
#include <anybit/train/backward/linear.hpp>
#include <anybit/train/backward/norm.hpp>

#include "support/catch.hpp"
#include "support/same_bits.hpp"
#include "train/differences.hpp"

using namespace anybit;
using namespace train_tests;
namespace backward = anybit::train::backward;

namespace {

std::span<const float> values_of(const Matrix& m) { return {m.data(), static_cast<std::size_t>(m.extents().size())}; }
std::span<float> values_of(Matrix& m) { return {m.data(), static_cast<std::size_t>(m.extents().size())}; }

/// Element by element: the equations of packed weights hold for the weights as decoded.
Matrix decoded(const nn::Linear& w) {
  Matrix out(w.extents().rows, w.extents().cols);
  for (Index r = 0; r < out.rows(); ++r) w.read_row(r, out.view().row(r));
  return out;
}

}  // namespace

TEST_CASE("backward: linear with a bias and an adapter") {
  struct Shape {
    Index tokens, inputs, outputs, rank;
  };
  for (const Shape& shape : {Shape{1, 1, 1, 1}, {3, 7, 5, 2}, {9, 33, 18, 4}}) {
    const Index tokens = shape.tokens, inputs = shape.inputs, outputs = shape.outputs, rank = shape.rank;
    CAPTURE(tokens, inputs, outputs);
    const Matrix x = some(1, tokens, inputs), dy = some(2, tokens, outputs);
    nn::Linear linear(some(3, outputs, inputs));
    linear.set_bias(some_values(4, outputs));
    const auto low = std::make_shared<nn::LowRank>(nn::LowRank{some(5, rank, inputs), some(6, outputs, rank), 1.5f});
    linear.set_adapter(low);

    ref::Matrix dx = ref::matrix_of(x), w = ref::matrix_of(*linear.dense()), a = ref::matrix_of(low->a),
                b = ref::matrix_of(low->b);
    std::vector<double> bias(linear.bias().begin(), linear.bias().end());
    const auto loss = [&] {
      ref::Matrix y = ref::times_transposed(dx, w);
      const ref::Matrix more = ref::times_transposed(ref::times_transposed(dx, a), b);
      for (Index t = 0; t < y.rows; ++t)
        for (Index r = 0; r < y.cols; ++r) y(t, r) += 1.5 * more(t, r) + bias[static_cast<std::size_t>(r)];
      return weighed(y, dy);
    };
    backward::LinearGradient g;
    const Matrix got = alone_and_threaded([&](ExecutorRef executor) {
      g = {Matrix(outputs, inputs), std::vector<float>(static_cast<std::size_t>(outputs)), Matrix(rank, inputs),
           Matrix(outputs, rank)};
      Matrix out(tokens, inputs);
      backward::linear(linear, x.view(), dy.view(), out.view(), g, executor);
      return out;
    });
    check_gradient(got, slopes(dx.values, loss));
    check_gradient(g.weight, slopes(w.values, loss));
    check_gradient(g.a, slopes(a.values, loss));
    check_gradient(g.b, slopes(b.values, loss));
    CHECK(off(g.bias.data(), slopes(bias, loss)) < 1e-4);

    // Gradients add up, and frozen tensors stay empty.
    backward::LinearGradient only_a{.a = g.a};
    backward::linear(linear, x.view(), dy.view(), MutableMatrix(), only_a, {});
    CHECK(only_a.weight.empty());
    for (Index i = 0; i < g.a.extents().size(); ++i) CHECK(only_a.a.data()[i] == Approx(2 * g.a.data()[i]).margin(1e-6));
  }
}

TEST_CASE("backward: a packed linear gives the gradient of its decoded weights, several panels and a ragged group") {
  const Index tokens = 5, inputs = 200, outputs = 600;
  const Matrix w = some(1, outputs, inputs), dy = some(2, tokens, outputs);
  const auto compare = [&](const nn::Linear& packed) {
    const nn::Linear floats(decoded(packed));
    const Matrix got = alone_and_threaded([&](ExecutorRef executor) {
      Matrix out(tokens, inputs);
      backward::add_times_weights(packed, dy.view(), out.view(), executor);
      return out;
    });
    ref::Matrix want = ref::times_transposed(ref::matrix_of(dy), ref::transposed(ref::matrix_of(*floats.dense())));
    check_gradient(got, want.values, 1e-5);
  };
  compare(nn::Linear(AnyPacked(*pack_nearest<Scheme<Superfloat<5>, PerGroup<128>, ScaleF16>>(w.view()))));
  compare(nn::Linear(AnyPacked(*pack_nearest<Scheme<Nf4, PerGroup<64>, DoubleQuant<256>>>(w.view()))));
}

TEST_CASE("backward: norms of rows of any width, a row of zeros, gains less 1") {
  for (const Index width : {1, 6, 35}) {
    CAPTURE(width);
    Matrix x = some(1, 7, width, 2);
    for (float& v : x.view().row(3)) v = 0;
    const Matrix dy = some(2, 7, width), gain = some(3, 1, width);
    ref::Matrix at = ref::matrix_of(x);
    ref::Vector g = ref::matrix_of(gain).row(0);
    const double epsilon = 0.01f;
    const auto compare = [&](const std::function<ref::Matrix()>& forward,
                             const std::function<void(MutableMatrix, std::span<float>, ExecutorRef)>& op) {
      Matrix dgain;
      const Matrix dx = alone_and_threaded([&](ExecutorRef executor) {
        Matrix out(7, width);
        dgain = Matrix(1, width);
        op(out.view(), values_of(dgain), executor);
        return out;
      });
      const auto loss = [&] { return weighed(forward(), dy); };
      std::vector<double> by_gain;
      for (Index j = 0; j < width; ++j) {
        const double here = g[j];
        g[j] = here + 1e-5;
        const double above = loss();
        g[j] = here - 1e-5;
        by_gain.push_back((above - loss()) / 2e-5), g[j] = here;
      }
      const auto want = slopes(at.values, loss);
      const double most = *std::max_element(want.begin(), want.end());
      if (std::abs(most) > 1e-6) check_gradient(dx, want);  // LayerNorm of one column does not depend on it
      check_gradient(dgain, by_gain);
    };
    compare([&] { return ref::rms_norm(at, g, epsilon); },
            [&](MutableMatrix out, std::span<float> dgain, ExecutorRef executor) {
              backward::rms_norm(x.view(), values_of(gain), 0.01f, dy.view(), out, dgain, executor);
            });
    compare(
        [&] {
          ref::Vector more = g;
          for (double& v : more) v += 1;
          return ref::rms_norm(at, more, epsilon);
        },
        [&](MutableMatrix out, std::span<float> dgain, ExecutorRef executor) {
          backward::rms_norm(x.view(), values_of(gain), 0.01f, dy.view(), out, dgain, executor, true);
        });
    std::vector<float> dbias(static_cast<std::size_t>(width));
    if (width > 1)
      compare([&] { return ref::layer_norm(at, g, ref::Vector(width), epsilon); },
              [&](MutableMatrix out, std::span<float> dgain, ExecutorRef executor) {
                std::fill(dbias.begin(), dbias.end(), 0.f);
                backward::layer_norm(x.view(), values_of(gain), 0.01f, dy.view(), out, dgain, dbias, executor);
              });
    for (Index j = 0; j < width && width > 1; ++j) {
      double sum = 0;
      for (Index t = 0; t < 7; ++t) sum += static_cast<double>(dy(t, j));
      CHECK(static_cast<double>(dbias[static_cast<std::size_t>(j)]) == Approx(sum).margin(1e-5));
    }
  }
}

TEST_CASE("backward: activations and gated products, zeros and large values included") {
  struct Case {
    nn::Activation a;
    double (*f)(double);
  };
  Matrix z = some(1, 5, 19, 2);
  z(0, 0) = 30, z(0, 1) = -30, z(1, 3) = 100, z(1, 4) = -100;
  const Matrix up = some(2, 5, 19), dy = some(3, 5, 19);
  for (const Case& one : {Case{nn::Activation::silu, ref::silu}, Case{nn::Activation::gelu, ref::gelu},
                          Case{nn::Activation::gelu_tanh, ref::gelu_tanh}, Case{nn::Activation::relu, ref::relu}}) {
    CAPTURE(static_cast<int>(one.a));
    const nn::Activation a = one.a;
    const auto f = one.f;
    ref::Matrix at = ref::matrix_of(z), other = ref::matrix_of(up);
    const Matrix dz = alone_and_threaded([&](ExecutorRef executor) {
      Matrix out(5, 19);
      backward::activate(a, z.view(), dy.view(), out.view(), executor);
      return out;
    });
    check_gradient(dz, slopes(at.values, [&] {
                     ref::Matrix y = at;
                     for (double& v : y.values) v = f(v);
                     return weighed(y, dy);
                   }));
    Matrix dup;
    const Matrix dgate = alone_and_threaded([&](ExecutorRef executor) {
      Matrix gate(z.view());
      dup = Matrix(up.view());
      backward::gated(a, gate.view(), dup.view(), dy.view(), gate.view(), dup.view(), executor);  // in place
      return gate;
    });
    const auto loss = [&] { return weighed(ref::gated(at, other, f), dy); };
    check_gradient(dgate, slopes(at.values, loss));
    check_gradient(dup, slopes(other.values, loss));
  }
  Matrix zero(1, 3), ones(1, 3), out(1, 3);
  for (float& v : ones.view().row(0)) v = 1;
  backward::activate(nn::Activation::relu, zero.view(), ones.view(), out.view(), {});
  CHECK(out(0, 1) == 0);  // the convention of the field at the kink
  backward::activate(nn::Activation::silu, zero.view(), ones.view(), out.view(), {});
  CHECK(out(0, 1) == 0.5f);
}

TEST_CASE("backward: rotary positions turn gradients back") {
  for (const auto order : {nn::RopeOrder::pairs, nn::RopeOrder::halves}) {
    const Matrix x = some(1, 6, 3 * 10), dy = some(2, 6, 3 * 10);
    const nn::RopeTable table({.rotary_dim = 8, .base = 50, .order = order}, 2, 6);
    Matrix dx(dy.view());
    table.apply_transposed(dx.view(), 10, {});
    ref::Matrix at = ref::matrix_of(x);
    const ref::Rope rope{.head_dim = 10,
                         .rotated = 8,
                         .base = 50,
                         .layout = order == nn::RopeOrder::pairs ? ref::RopeLayout::pairs : ref::RopeLayout::halves};
    check_gradient(dx, slopes(at.values, [&] { return weighed(ref::rope(at, rope, 2), dy); }));
  }
}

TEST_CASE("backward: attention with grouped queries, one token and several tiles") {
  struct Shape {
    Index tokens, heads, kv_heads, head_dim;
  };
  for (const Shape& shape : {Shape{1, 2, 1, 3}, {7, 6, 2, 5}, {70, 2, 2, 3}}) {
    const Index tokens = shape.tokens, heads = shape.heads, kv_heads = shape.kv_heads, d = shape.head_dim;
    CAPTURE(tokens, heads, kv_heads, d);
    const Matrix q = some(1, tokens, heads * d), k = some(2, tokens, kv_heads * d), v = some(3, tokens, kv_heads * d),
                 dout = some(4, tokens, heads * d);
    Matrix dk, dv;
    const Matrix dq = alone_and_threaded([&](ExecutorRef executor) {
      Matrix out(tokens, heads * d);
      dk = Matrix(tokens, kv_heads * d), dv = Matrix(tokens, kv_heads * d);
      backward::attention({heads, kv_heads, d}, q.view(), k.view(), v.view(), dout.view(), out.view(), dk.view(), dv.view(),
                          executor);
      return out;
    });
    ref::Matrix rq = ref::matrix_of(q), rk = ref::matrix_of(k), rv = ref::matrix_of(v);
    const auto loss = [&] { return weighed(ref::attention(rq, rk, rv, d), dout); };
    check_gradient(dv, slopes(rv.values, loss));
    if (tokens == 1) {  // one probability, which is 1
      for (const Matrix* m : {&dq, static_cast<const Matrix*>(&dk)})
        for (const float g : values_of(*m)) CHECK(std::abs(g) < 1e-6f);
      continue;
    }
    check_gradient(dq, slopes(rq.values, loss));
    check_gradient(dk, slopes(rk.values, loss));
  }
}

TEST_CASE("backward: attention with a window, a cap, slopes, a scale, and later positions") {
  const Index tokens = 67, heads = 4, kv_heads = 2, d = 3;
  const Matrix q = some(1, tokens, heads * d), k = some(2, tokens, kv_heads * d), v = some(3, tokens, kv_heads * d),
               dout = some(4, tokens, heads * d);
  const std::vector<float> slopes{0.5f, 0.25f, 0.125f, 0};
  ref::Vector reference_slopes(4);
  for (Index h = 0; h < 4; ++h) reference_slopes[h] = static_cast<double>(slopes[static_cast<std::size_t>(h)]);
  const auto compare = [&](const nn::AttentionOptions& options, const ref::AttentionOptions& same) {
    Matrix dk, dv;
    const Matrix dq = alone_and_threaded([&](ExecutorRef executor) {
      Matrix out(tokens, heads * d);
      dk = Matrix(tokens, kv_heads * d), dv = Matrix(tokens, kv_heads * d);
      backward::attention({heads, kv_heads, d}, q.view(), k.view(), v.view(), dout.view(), out.view(), dk.view(), dv.view(),
                          executor, options);
      return out;
    });
    ref::Matrix rq = ref::matrix_of(q), rk = ref::matrix_of(k), rv = ref::matrix_of(v);
    const auto loss = [&] { return weighed(ref::attention(rq, rk, rv, d, same), dout); };
    check_gradient(dq, train_tests::slopes(rq.values, loss));
    check_gradient(dk, train_tests::slopes(rk.values, loss));
    check_gradient(dv, train_tests::slopes(rv.values, loss));
  };
  nn::AttentionOptions window, all, later;
  window.window = 5;
  compare(window, {.window = 5, .slopes = {}});
  all.scale = 2, all.soft_cap = 1.5f, all.window = 40, all.slopes = slopes;
  compare(all, {.scale = 2, .soft_cap = 1.5, .window = 40, .slopes = reference_slopes});
  later.causal = false, later.window = 9;
  compare(later, {.window = 9, .slopes = {}, .causal = false});
}

TEST_CASE("backward: embedding adds rows of tokens that come twice") {
  const std::vector<std::int32_t> ids{4, 0, 4, 2, 4};
  const Matrix dx = some(1, 5, 70);
  const Matrix got = alone_and_threaded([&](ExecutorRef executor) {
    Matrix out(6, 70);
    backward::embed(ids, dx.view(), out.view(), executor, 2);
    return out;
  });
  for (Index j = 0; j < 70; ++j) {
    CHECK(got(4, j) == Approx(2 * (dx(0, j) + dx(2, j) + dx(4, j))).margin(1e-5));
    CHECK(got(0, j) == 2 * dx(1, j));
    CHECK(got(5, j) == 0);
  }
}

TEST_CASE("backward: cross entropy with masked positions") {
  const Index vocabulary = 37;
  const Matrix z = some(1, 4, vocabulary, 4);
  const std::vector<std::int32_t> labels{5, backward::no_label, 36, 0};
  double loss = 0;
  const Matrix dz = alone_and_threaded([&](ExecutorRef executor) {
    Matrix out(z.view());
    loss = backward::cross_entropy(out.view(), labels, 0.25f, executor);
    return out;
  });
  ref::Matrix at = ref::matrix_of(z);
  const auto truth = [&] {
    double sum = 0;
    for (const Index t : {0, 2, 3}) sum += ref::log_sum_exp(at.row(t)) - at(t, labels[static_cast<std::size_t>(t)]);
    return sum;
  };
  CHECK(loss == Approx(truth()).epsilon(1e-6));
  auto want = slopes(at.values, truth);
  for (double& g : want) g *= 0.25;
  check_gradient(dz, want);
  for (const float g : dz.view().row(1)) CHECK(g == 0);

  Matrix bad(z.view());
  bad(2, 1) = std::numeric_limits<float>::quiet_NaN();
  CHECK_FALSE(is_finite(backward::cross_entropy(bad.view(), labels, 1, {})));
  Matrix huge(1, vocabulary);
  huge(0, 3) = 3e38f;
  CHECK(backward::cross_entropy(huge.view(), std::array{std::int32_t{3}}, 1, {}) == 0);
}

TEST_CASE("backward: KL divergence from a teacher at a temperature") {
  const Matrix z = some(1, 3, 29, 3), teacher = some(2, 3, 29, 3);
  for (const float temperature : {1.0f, 2.5f}) {
    double loss = 0;
    const Matrix dz = alone_and_threaded([&](ExecutorRef executor) {
      Matrix out(z.view()), other(teacher.view());
      loss = backward::kl_to_teacher(out.view(), other.view(), temperature, 1, executor);
      return out;
    });
    ref::Matrix at = ref::matrix_of(z), fixed = ref::matrix_of(teacher);
    const double t = static_cast<double>(temperature);
    const auto truth = [&] {
      double sum = 0;
      for (Index r = 0; r < 3; ++r) {
        ref::Vector p = at.row(r), q = fixed.row(r);
        for (double& v : p) v /= t;
        for (double& v : q) v /= t;
        sum += t * t * ref::kl_divergence(q, p, -1e9);
      }
      return sum;
    };
    CHECK(loss == Approx(truth()).epsilon(1e-5));
    check_gradient(dz, slopes(at.values, truth));
  }
  Matrix same(z.view()), again(z.view());
  CHECK(std::abs(backward::kl_to_teacher(same.view(), again.view(), 1, 1, {})) < 1e-6);
  for (const float g : values_of(same)) CHECK(g == 0);
}
