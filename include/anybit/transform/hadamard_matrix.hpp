#pragma once
// Hadamard matrices by Paley's constructions: entries 1 and -1, orthogonal rows, H H^T = n I. Saved models depend on the matrix
// of each order: it must never change.

#include <array>
#include <cstddef>
#include <vector>

#include <anybit/core/types.hpp>

namespace anybit::paley {
inline namespace ANYBIT_CODE {

/// The largest order that is built. Products with such a matrix cost its order for each element.
inline constexpr Index max_order = 512;

/// q = prime^exponent with an odd prime and an exponent of 1, 2 or 3, for which the field is easy to write down; else prime = 0.
struct PrimePower {
  Index prime = 0;
  int exponent = 0;
};
inline PrimePower prime_power(Index q) {
  if (q < 3 || q % 2 == 0) return {};
  Index p = 3;
  while (p * p <= q && q % p != 0) p += 2;
  if (q % p != 0) p = q;
  Index power = p;
  for (int e = 1; e <= 3; ++e, power *= p)
    if (power == q) return {p, e};
  return {};
}

enum class Construction { none, first, second };
/// Order q + 1 for q = 3 mod 4 (the first), 2 (q + 1) for q = 1 mod 4 (the second).
inline Construction construction(Index order) {
  if (order < 4 || order > max_order || order % 4 != 0) return Construction::none;
  if (prime_power(order - 1).prime != 0) return Construction::first;
  const Index q = order / 2 - 1;
  return q % 4 == 1 && prime_power(q).prime != 0 ? Construction::second : Construction::none;
}

/// The field of q elements: polynomials a_0 + a_1 x + .. over the integers mod p, numbered a_0 + a_1 p + a_2 p^2, modulo an
/// irreducible x^e + b x + c.
class Field {
 public:
  explicit Field(Index q) : q_(q), prime_(prime_power(q).prime), exponent_(prime_power(q).exponent) {
    if (exponent_ > 1) find_modulus();
    character_.assign(static_cast<std::size_t>(q), -1);
    for (Index i = 0; i < q; ++i) character_[static_cast<std::size_t>(square(i))] = 1;
    character_[0] = 0;
  }
  Index size() const { return q_; }
  /// 1 for a square, -1 for another element, 0 for zero: the quadratic character of a - b.
  int character_of_difference(Index a, Index b) const {
    Index difference = 0, unit = 1;
    for (int i = 0; i < exponent_; ++i, a /= prime_, b /= prime_, unit *= prime_)
      difference += (a % prime_ - b % prime_ + prime_) % prime_ * unit;
    return character_[static_cast<std::size_t>(difference)];
  }

 private:
  /// Of degree 2 or 3 a polynomial without roots is irreducible.
  void find_modulus() {
    for (linear_ = 0; linear_ < prime_; ++linear_)
      for (constant_ = 1; constant_ < prime_; ++constant_) {
        bool root = false;
        for (Index x = 0; x < prime_ && !root; ++x) {
          Index power = 1;
          for (int i = 0; i < exponent_; ++i) power = power * x % prime_;
          root = (power + linear_ * x + constant_) % prime_ == 0;
        }
        if (!root) return;
      }
    ANYBIT_CHECK(false, "Field: no irreducible polynomial");
  }
  Index square(Index a) const {
    std::array<Index, 3> digits{};
    for (Index& d : digits) d = a % prime_, a /= prime_;
    std::array<Index, 5> product{};
    for (std::size_t i = 0; i < 3; ++i)
      for (std::size_t j = 0; j < 3; ++j) product[i + j] = (product[i + j] + digits[i] * digits[j]) % prime_;
    // x^(e + k) = -b x^(k + 1) - c x^k
    const auto e = static_cast<std::size_t>(exponent_);
    for (std::size_t k = product.size(); k-- > e && e > 1;) {
      product[k - e + 1] = (product[k - e + 1] + product[k] * (prime_ - linear_)) % prime_;
      product[k - e] = (product[k - e] + product[k] * (prime_ - constant_)) % prime_;
    }
    Index out = 0;
    for (std::size_t i = e; i-- > 0;) out = out * prime_ + product[i];
    return out;
  }

  Index q_, prime_;
  int exponent_;
  Index linear_ = 0, constant_ = 0;
  std::vector<int> character_;
};

/// The matrix of an order that has a construction, row by row.
inline std::vector<float> matrix(Index order) {
  const Construction how = construction(order);
  ANYBIT_CHECK(how != Construction::none, "paley::matrix: no such order");
  const bool first = how == Construction::first;
  const Field field(first ? order - 1 : order / 2 - 1);
  // A border of ones around the characters of all differences, skew for the first construction, symmetric for the second.
  const auto bordered = [&](Index i, Index j) {
    if (i == 0 || j == 0) return i == j ? 0 : i == 0 || !first ? 1 : -1;
    return field.character_of_difference(i - 1, j - 1);
  };
  std::vector<float> h;
  for (Index i = 0; i < order; ++i)
    for (Index j = 0; j < order; ++j) {
      if (first) {
        h.push_back(static_cast<float>(i == j ? 1 : bordered(i, j)));
      } else {
        const int s = bordered(i / 2, j / 2);
        const bool low = i % 2 != 0, right = j % 2 != 0;
        // [1 1; 1 -1] for each entry of S; [1 -1; -1 -1] on its zero diagonal
        h.push_back(static_cast<float>(s != 0 ? (low && right ? -s : s) : (low || right ? -1 : 1)));
      }
    }
  return h;
}

}  // namespace ANYBIT_CODE
}  // namespace anybit::paley
