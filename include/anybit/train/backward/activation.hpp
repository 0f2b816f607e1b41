#pragma once
// Gradients of activation functions, alone and as the gate of a product; forwards in nn/activation.hpp. With s = 1 / (1 + e^-z):
//
//   silu       a' = s (1 + z (1 - s))
//   gelu       a' = (1 + erf(z / sqrt 2)) / 2 + z e^(-z^2 / 2) / sqrt(2 pi)
//   gelu_tanh  a' = (1 + u) / 2 + z (1 - u^2) sqrt(2 / pi) (1 + 3 0.044715 z^2) / 2,   u = tanh(sqrt(2 / pi) (z + 0.044715 z^3))
//   relu       a' = 1 where z > 0, else 0

#include <anybit/core/macros_begin.hpp>

#include <cmath>

#include <anybit/nn/activation.hpp>

namespace anybit::train::backward {
inline namespace ANYBIT_CODE {

namespace detail {

/// Overwrites z by a'(z), and `value`, if it is not null, by a(z).
inline void activation_slope(nn::Activation a, Eigen::ArrayXf& z, Eigen::ArrayXf* value) {
  if (value) {
    *value = z;
    nn::detail::activate(a, Eigen::Map<Eigen::ArrayXf>(value->data(), value->size()));
  }
  switch (a) {
    case nn::Activation::silu: {
      const Eigen::ArrayXf s = 1.0f / (1.0f + (-z).exp());
      z = s * (1.0f + z * (1.0f - s));
      return;
    }
    case nn::Activation::gelu:
      for (Eigen::Index j = 0; j < z.size(); ++j)
        z[j] = 0.5f * (1.0f + std::erf(z[j] * 0.70710678f)) + z[j] * std::exp(-0.5f * z[j] * z[j]) * 0.39894228f;
      return;
    case nn::Activation::gelu_tanh: {
      const Eigen::ArrayXf u = (0.79788456f * (z + 0.044715f * z * z * z)).tanh();
      z = 0.5f * (1.0f + u) + 0.5f * z * (1.0f - u * u) * 0.79788456f * (1.0f + 0.134145f * z * z);
      return;
    }
    case nn::Activation::relu: z = (z > 0.0f).cast<float>(); return;
  }
}

}  // namespace detail

/// dz_tj = dy_tj a'(z_tj); z as it entered the activation. dz may be dy or z.
inline void activate(nn::Activation a, ConstMatrix z, ConstMatrix dy, MutableMatrix dz, ExecutorRef executor) {
  ANYBIT_CHECK(z.extents() == dy.extents() && z.extents() == dz.extents(), "backward::activate: shapes differ");
  executor.parallel_for(z.rows, nn::token_grain, [&](Index begin, Index end) {
    Eigen::ArrayXf slope;
    for (Index t = begin; t < end; ++t) {
      slope = Eigen::Map<const Eigen::ArrayXf>(z.data + t * z.stride, z.cols);
      detail::activation_slope(a, slope, nullptr);
      Eigen::Map<Eigen::ArrayXf>(dz.data + t * dz.stride, z.cols) =
          Eigen::Map<const Eigen::ArrayXf>(dy.data + t * dy.stride, z.cols) * slope;
    }
  });
}

/// Of y = a(gate) up:  dgate = dy up a'(gate),  dup = dy a(gate). dgate may be gate, and dup may be up or dy.
inline void gated(nn::Activation a, ConstMatrix gate, ConstMatrix up, ConstMatrix dy, MutableMatrix dgate, MutableMatrix dup,
                  ExecutorRef executor) {
  ANYBIT_CHECK(gate.extents() == up.extents() && gate.extents() == dy.extents() && gate.extents() == dgate.extents() &&
                   gate.extents() == dup.extents(),
               "backward::gated: shapes differ");
  executor.parallel_for(gate.rows, nn::token_grain, [&](Index begin, Index end) {
    Eigen::ArrayXf slope, value;
    for (Index t = begin; t < end; ++t) {
      const Eigen::Map<const Eigen::ArrayXf> u(up.data + t * up.stride, up.cols), d(dy.data + t * dy.stride, up.cols);
      slope = Eigen::Map<const Eigen::ArrayXf>(gate.data + t * gate.stride, up.cols);
      detail::activation_slope(a, slope, &value);
      Eigen::Map<Eigen::ArrayXf>(dgate.data + t * dgate.stride, up.cols) = d * u * slope;
      Eigen::Map<Eigen::ArrayXf>(dup.data + t * dup.stride, up.cols) = d * value;
    }
  });
}

/// Of y = cap tanh(z / cap):  dz = dy (1 - (y / cap)^2), in place of dy.
inline void soft_cap(float cap, ConstMatrix y, MutableMatrix dy, ExecutorRef executor) {
  ANYBIT_CHECK(y.extents() == dy.extents(), "backward::soft_cap: shapes differ");
  executor.parallel_for(y.rows, nn::token_grain, [&](Index begin, Index end) {
    for (Index t = begin; t < end; ++t)
      Eigen::Map<Eigen::ArrayXf>(dy.data + t * dy.stride, y.cols) *=
          1.0f - (Eigen::Map<const Eigen::ArrayXf>(y.data + t * y.stride, y.cols) / cap).square();
  });
}

}  // namespace ANYBIT_CODE
}  // namespace anybit::train::backward

#include <anybit/core/macros_end.hpp>
