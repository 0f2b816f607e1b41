#pragma once
// Activation functions of feed-forward layers, alone and as the gate of a product (GLU variants, Shazeer, arXiv:2002.05202).

#include <anybit/core/macros_begin.hpp>

#include <cmath>

#include <anybit/core/eigen_view.hpp>
#include <anybit/exec/executor.hpp>
#include <anybit/nn/activation_kind.hpp>
#include <anybit/nn/elementwise.hpp>

namespace anybit::nn {
inline namespace ANYBIT_CODE {

namespace detail {

/// Calls f(row of x) with arrays of Eigen, some rows a thread.
template <class F>
void for_each_row(MutableMatrix x, ExecutorRef executor, F&& f) {
  executor.parallel_for(x.rows, token_grain, [&](Index begin, Index end) {
    for (Index t = begin; t < end; ++t) f(t, Eigen::Map<Eigen::ArrayXf>(x.data + t * x.stride, x.cols));
  });
}

inline void activate(Activation a, Eigen::Map<Eigen::ArrayXf> z) {
  switch (a) {
    case Activation::silu: z = z / (1.0f + (-z).exp()); return;
    case Activation::gelu:
      for (Eigen::Index j = 0; j < z.size(); ++j) z[j] = 0.5f * z[j] * (1.0f + std::erf(z[j] * 0.70710678f));
      return;
    case Activation::gelu_tanh: z = 0.5f * z * (1.0f + (0.79788456f * (z + 0.044715f * z * z * z)).tanh()); return;
    case Activation::relu: z = z.max(0.0f); return;
  }
}

}  // namespace detail

/// x_tj = a(x_tj), x (tokens, width).
inline void activate(Activation a, MutableMatrix x, ExecutorRef executor) {
  detail::for_each_row(x, executor, [&](Index, Eigen::Map<Eigen::ArrayXf> row) { detail::activate(a, row); });
}

/// x_tj = cap tanh(x_tj / cap).
inline void soft_cap(float cap, MutableMatrix x, ExecutorRef executor) {
  detail::for_each_row(x, executor, [&](Index, Eigen::Map<Eigen::ArrayXf> row) { row = cap * (row / cap).tanh(); });
}

/// gate_tj = a(gate_tj) up_tj, both (tokens, width): SwiGLU for silu, GeGLU for gelu.
inline void gated(Activation a, MutableMatrix gate, ConstMatrix up, ExecutorRef executor) {
  ANYBIT_CHECK(gate.extents() == up.extents(), "nn::gated: shapes differ");
  detail::for_each_row(gate, executor, [&](Index t, Eigen::Map<Eigen::ArrayXf> g) {
    const Eigen::Map<const Eigen::ArrayXf> u(up.data + t * up.stride, up.cols);
    if (a == Activation::silu) {  // in one pass over both rows
      g = g / (1.0f + (-g).exp()) * u;
    } else {
      detail::activate(a, g);
      g *= u;
    }
  });
}

}  // namespace ANYBIT_CODE
}  // namespace anybit::nn

#include <anybit/core/macros_end.hpp>
