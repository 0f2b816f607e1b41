#pragma once
// The randomized Hadamard transform: an orthogonal matrix that spreads an outlier evenly over all coordinates, with n log n
// additions. See docs/methods/quarot.md. Readable twin: reference/hadamard.hpp.
// QuaRot (Ashkboos et al., 2024) is this rotation of whole models: model/rotate.hpp.

#include <anybit/core/macros_begin.hpp>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>
#include <limits>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include <anybit/core/result.hpp>
#include <anybit/core/view.hpp>
#include <anybit/exec/executor.hpp>
#include <anybit/simd/xsimd_compat.hpp>
#include <anybit/transform/hadamard_matrix.hpp>

ANYBIT_VECTOR_CODE_BEGIN
namespace anybit {
inline namespace ANYBIT_CODE {

namespace detail {

/// n as a product of orders of Paley's matrices and a power of two: the choice is part of what saved models mean.
struct HadamardPlan {
  std::vector<Index> orders;  ///< descending
  Index power = 1;
  /// Additions an element. Products take 16 columns at a time, which are there only if the power of two fills them.
  Index cost() const {
    Index sum = static_cast<Index>(std::bit_width(static_cast<std::size_t>(power)));
    for (const Index order : orders) sum += order;
    if (!orders.empty() && power < 16) sum += orders.back() * (16 / power - 1);
    return sum;
  }
};

/// Tries every way to give the divisors of n's odd part their powers of two.
template <class = void>
void plan_hadamard(Index odd, Index power, std::vector<Index> orders, std::optional<HadamardPlan>& best) {
  if (odd == 1) {
    std::sort(orders.rbegin(), orders.rend());
    HadamardPlan plan{std::move(orders), power};
    if (!best || plan.cost() < best->cost()) best = std::move(plan);
    return;
  }
  for (Index divisor = 3; divisor <= std::min(odd, paley::max_order); divisor += 2) {
    if (odd % divisor != 0) continue;
    for (Index twos = 4; twos <= power && divisor * twos <= paley::max_order; twos *= 2)
      if (paley::construction(divisor * twos) != paley::Construction::none) {
        std::vector<Index> more = orders;
        more.push_back(divisor * twos);
        plan_hadamard(odd / divisor, power / twos, std::move(more), best);
      }
  }
}
inline std::optional<HadamardPlan> plan_hadamard(Index n) {
  if (n < 1 || n > Index{1} << 31) return std::nullopt;
  const Index power = Index{1} << std::countr_zero(static_cast<std::size_t>(n));
  std::optional<HadamardPlan> best;
  plan_hadamard(n / power, power, {}, best);
  return best;
}

/// Every run of `order` elements times the Sylvester matrix of that order, a power of two that divides n. Sums are in the order
/// of the stages, so that all instruction sets give the same bits.
inline void sylvester(float* x, Index n, Index order) {
  const auto butterflies = [n, x](Index half) __attribute__((always_inline)) {
    for (Index block = 0; block < n; block += 2 * half)
      for (Index i = block; i < block + half; ++i) {
        const float a = x[i], b = x[i + half];
        x[i] = a + b;
        x[i + half] = a - b;
      }
  };
  // Constant widths first: compilers unroll and vectorize what lies within a vector.
  Index half = 1;
  if (order >= 16) butterflies(1), butterflies(2), butterflies(4), butterflies(8), half = 16;
  if (half == 16)  // two stages at once: half the memory traffic
    for (; 4 * half <= order; half *= 4)
      for (Index block = 0; block < n; block += 4 * half)
        for (Index i = block; i < block + half; i += simd::width) {
          const simd::f32 a = simd::load(x + i), b = simd::load(x + i + half), c = simd::load(x + i + 2 * half),
                          d = simd::load(x + i + 3 * half);
          const simd::f32 ab = a + b, a_b = a - b, cd = c + d, c_d = c - d;
          simd::store(x + i, ab + cd), simd::store(x + i + half, a_b + c_d);
          simd::store(x + i + 2 * half, ab - cd), simd::store(x + i + 3 * half, a_b - c_d);
        }
  for (; half < order; half *= 2) butterflies(half);
}

/// y(p, :) = sum over q of h(p, q) x(q, :) in place, for `order` rows of `columns` <= simd::width floats, `stride` apart.
/// h(p, q) is h[p * row_step + q * column_step]. Products with 1 and -1 are exact and sums are in the order of q: all
/// instruction sets give the same bits.
inline void multiply_columns(const float* h, Index row_step, Index column_step, Index order, float* x, Index stride,
                             Index columns) {
  alignas(64) float strip[static_cast<std::size_t>(paley::max_order * simd::width)];
  const auto move = [&](auto&& each) {
    for (Index q = 0; q < order; ++q) each(x + q * stride, strip + q * simd::width);
  };
  if (columns == simd::width)
    move([](float* from, float* to) { simd::store(to, simd::load(from)); });
  else
    move([columns](float* from, float* to) { simd::store(to, simd::load_partial(from, columns)); });
  const auto rows = [&]<Index Rows>(std::integral_constant<Index, Rows>, Index p) {
    simd::f32 sum[static_cast<std::size_t>(Rows)];
    for (Index r = 0; r < Rows; ++r) sum[r] = simd::zero();
    const float* from = h + p * row_step;
    for (Index q = 0; q < order; ++q) {
      const simd::f32 value = simd::load(strip + q * simd::width);
#pragma GCC unroll 8
      for (Index r = 0; r < Rows; ++r) sum[r] = simd::fma(simd::broadcast(from[r * row_step + q * column_step]), value, sum[r]);
    }
    for (Index r = 0; r < Rows; ++r)
      if (columns == simd::width)
        simd::store(x + (p + r) * stride, sum[r]);
      else
        simd::store_partial(x + (p + r) * stride, sum[r], columns);
  };
  Index p = 0;
  for (; p + 8 <= order; p += 8) rows(std::integral_constant<Index, 8>(), p);
  if (p < order) rows(std::integral_constant<Index, 4>(), p);  // orders are multiples of 4
}

}  // namespace detail

/// R = H diag(s) / sqrt(n): orthogonal, all its entries of equal magnitude. H is a Kronecker product of Paley's matrices and a
/// Sylvester matrix, s are random signs. What (n, seed) means never changes, so that a file need store no more. Copies share
/// their tables.
class Hadamard {
 public:
  static bool exists(Index n) { return detail::plan_hadamard(n).has_value(); }

  /// n = 2^k m, m a product of orders of Paley's matrices (12, 20, 28, 36, 44, 52, 60 ..). Seed 0: all signs are 1.
  static Result<Hadamard> make(Index n, std::uint64_t seed = 0) {
    const auto plan = detail::plan_hadamard(n);
    if (!plan) return Error{ErrorCode::unsupported, "hadamard: there is no matrix of order " + std::to_string(n) + near(n)};
    auto tables = std::make_shared<Tables>();
    tables->power = plan->power;
    for (const Index order : plan->orders) tables->factors.push_back({order, paley::matrix(order)});
    const float scale = static_cast<float>(1 / std::sqrt(static_cast<double>(n)));
    std::uint64_t state = seed, bits = 0;
    for (Index j = 0; j < n; ++j) {
      if (j % 64 == 0 && seed != 0) {  // splitmix64
        bits = state += 0x9E3779B97F4A7C15u;
        bits = (bits ^ (bits >> 30)) * 0xBF58476D1CE4E5B9u;
        bits = (bits ^ (bits >> 27)) * 0x94D049BB133111EBu;
        bits ^= bits >> 31;
      }
      tables->scales.push_back((bits >> (j % 64)) & 1 ? -scale : scale);
    }
    return Hadamard(std::move(tables), seed);
  }

  Index size() const { return static_cast<Index>(tables_->scales.size()); }
  std::uint64_t seed() const { return seed_; }
  friend bool operator==(const Hadamard& a, const Hadamard& b) { return a.size() == b.size() && a.seed_ == b.seed_; }

  /// v = R v in place.
  void forward(std::span<float> v) const {
    check(static_cast<Index>(v.size()));
    scale(v.data());
    multiply(v.data(), false);
  }
  /// v = R^T v in place, which undoes forward().
  void inverse(std::span<float> v) const {
    check(static_cast<Index>(v.size()));
    multiply(v.data(), true);
    scale(v.data());
  }
  /// Every row for itself: X becomes X R^T. If the rows of W are rotated too, W R^T, their products W X^T stay what they were.
  void forward(MutableMatrix rows, ExecutorRef executor = {}) const {
    parallel_tiles(executor, rows.rows, row_grain(), [&](Index begin, Index end) {
      for (Index r = begin; r < end; ++r) forward(rows.row(r));
    });
  }
  void inverse(MutableMatrix rows, ExecutorRef executor = {}) const {
    parallel_tiles(executor, rows.rows, row_grain(), [&](Index begin, Index end) {
      for (Index r = begin; r < end; ++r) inverse(rows.row(r));
    });
  }

 private:
  struct Factor {
    Index order;
    std::vector<float> entries;
  };
  struct Tables {
    std::vector<float> scales;  ///< signs / sqrt(n)
    std::vector<Factor> factors;
    Index power = 1;
  };
  Hadamard(std::shared_ptr<const Tables> tables, std::uint64_t seed) : tables_(std::move(tables)), seed_(seed) {}

  void check(Index n) const { ANYBIT_CHECK(n == size(), "Hadamard: made for vectors of another length"); }
  /// A slice of less work than some ten thousand additions costs more than it saves.
  Index row_grain() const { return std::max<Index>(1, 4096 / size()); }
  void scale(float* x) const {
    const float* s = tables_->scales.data();
    for (Index j = 0, n = size(); j < n; ++j) x[j] *= s[j];
  }
  /// By H or its transpose.
  void multiply(float* x, bool transposed) const {
    const Index n = size();
    Index inner = n;
    for (const Factor& f : tables_->factors) {
      const Index outer = inner;
      inner /= f.order;
      for (Index block = 0; block < n; block += outer)
        for (Index j = 0; j < inner; j += simd::width)
          detail::multiply_columns(f.entries.data(), transposed ? 1 : f.order, transposed ? f.order : 1, f.order, x + block + j,
                                   inner, std::min(simd::width, inner - j));
    }
    detail::sylvester(x, n, tables_->power);
  }
  static std::string near(Index n) {
    constexpr Index reach = 1024;
    if (n < 1 || n > Index{1} << 31) return {};
    Index below = n - 1, above = n + 1;
    while (below > n - reach && !exists(below)) --below;
    while (above < n + reach && !exists(above)) ++above;
    std::string text;
    if (exists(below)) text += std::to_string(below);
    if (exists(above)) text += (text.empty() ? "" : " and ") + std::to_string(above);
    return text.empty() ? text : "; nearest to it are " + text;
  }

  std::shared_ptr<const Tables> tables_;
  std::uint64_t seed_ = 0;
};

}  // namespace ANYBIT_CODE
}  // namespace anybit
ANYBIT_VECTOR_CODE_END

#include <anybit/core/macros_end.hpp>
