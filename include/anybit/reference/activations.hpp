#pragma once
// The functions between linears.
//
//   relu(x) = max(0, x)        silu(x) = x / (1 + e^-x)
//   gelu(x) = x/2 (1 + erf(x / sqrt 2))                                         (Hendrycks & Gimpel 2016, arXiv:1606.08415)
//   gelu_tanh(x) = x/2 (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3)))                 (GPT-2, Gemma)
//   softmax(x)_i = e^(x_i - max x) / sum_j e^(x_j - max x)
// Gated MLPs (Shazeer 2020, arXiv:2002.05202) multiply act(gate) by up: SwiGLU with silu, GeGLU with gelu.

#include <algorithm>
#include <cmath>

#include <anybit/reference/matrix.hpp>

namespace anybit::reference {
inline namespace ANYBIT_CODE {

inline double relu(double x) { return x > 0 ? x : 0; }
inline double silu(double x) { return x / (1 + std::exp(-x)); }
inline double gelu(double x) { return x / 2 * (1 + std::erf(x / std::sqrt(2.0))); }
inline double gelu_tanh(double x) {
  const double pi = 3.14159265358979323846;
  return x / 2 * (1 + std::tanh(std::sqrt(2 / pi) * (x + 0.044715 * x * x * x)));
}

inline Vector softmax(Vector x) {
  const double most = *std::max_element(x.begin(), x.end());
  double sum = 0;
  for (double& v : x) sum += v = std::exp(v - most);
  for (double& v : x) v /= sum;
  return x;
}

/// act(gate) * up, value by value.
template <class Activation>
Matrix gated(const Matrix& gate, const Matrix& up, Activation act) {
  Matrix out = up;
  for (Index r = 0; r < out.rows; ++r)
    for (Index c = 0; c < out.cols; ++c) out(r, c) *= act(gate(r, c));
  return out;
}

}  // namespace ANYBIT_CODE
}  // namespace anybit::reference
