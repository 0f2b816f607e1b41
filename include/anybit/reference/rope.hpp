#pragma once
// Rotary position embedding (Su et al. 2021, arXiv:2104.09864, section 3.2.2): two values of a head turn by an angle that grows
// with the position p.
//
//   theta_i = base^(-2i / r),   i = 0 .. r/2 - 1          r: how many leading values of a head are rotated
//   angle   = p / scale * theta_i / factor_i
//   (a, b) <- (a cos - b sin, b cos + a sin)
//
//   pairs:   a, b = values 2i and 2i + 1      (the paper, LLaMA's own files, GPT-J, GGUF "norm")
//   halves:  a, b = values i and i + r/2      (GPT-NeoX, Hugging Face's LLaMA, GGUF "neox")

#include <cmath>

#include <anybit/reference/matrix.hpp>

namespace anybit::reference {
inline namespace ANYBIT_CODE {

enum class RopeLayout { pairs, halves };

struct Rope {
  Index head_dim = 0, rotated = 0;
  double base = 10000, scale = 1;
  Vector factors = {};  ///< empty, or rotated / 2 divisors of the frequencies
  RopeLayout layout = RopeLayout::pairs;
};

/// Every head of every row; row t stands at position first + t.
inline Matrix rope(Matrix x, const Rope& o, Index first = 0) {
  const Index half = o.rotated / 2;
  for (Index t = 0; t < x.rows; ++t)
    for (Index head = 0; head < x.cols; head += o.head_dim)
      for (Index i = 0; i < half; ++i) {
        const double theta = std::pow(o.base, -2.0 * static_cast<double>(i) / static_cast<double>(o.rotated));
        const double angle = static_cast<double>(first + t) / o.scale * theta / (o.factors.size() ? o.factors[i] : 1);
        const bool pairs = o.layout == RopeLayout::pairs;
        double &a = x(t, head + (pairs ? 2 * i : i)), &b = x(t, head + (pairs ? 2 * i + 1 : i + half));
        const double turned = a * std::cos(angle) - b * std::sin(angle);
        b = b * std::cos(angle) + a * std::sin(angle);
        a = turned;
      }
  return x;
}

}  // namespace ANYBIT_CODE
}  // namespace anybit::reference
