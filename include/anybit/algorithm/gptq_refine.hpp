#pragma once
// The joint search of scales, zero points and codes after the sweep: with all else held still, each of them in turn goes where
// the layer error d H d^T of its row is least, round after round. Rows share nothing but H.

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <vector>

#include <anybit/algorithm/gptq_sweep.hpp>
#include <anybit/calibrate/product.hpp>
#include <anybit/tensor/quantized_matrix.hpp>

namespace anybit::gptq::inline ANYBIT_CODE {

/// All in stored column order.
struct RefineTarget {
  ConstMatrix weights;  ///< what the rows should equal
  ConstMatrix hessian;  ///< symmetric, of any unit
  /// D, if the inputs that the weights were made for are others: the objective is d H d^T + 2 w D d^T. Empty: none.
  ConstMatrix drift{};
};

/// A tile of rows, transposed as in Tile. With e = w - q, `pull_` is e H (+ w D): half the slope of the objective.
template <AnyScheme S>
class Refiner {
 public:
  Refiner(const RefineTarget& target, bool move_zeros, Index begin, Index end, QuantizedMatrix<S>& q)
      : h_(target.hessian),
        n_(h_.rows),
        begin_(begin),
        rows_(end - begin),
        move_zeros_(move_zeros),
        q_(q),
        level_(size(n_)),
        pull_(size(n_)),
        change_(size(n_)) {
    for (Index g = 0; g < groups(); ++g)
      for (Index r = 0; r < rows_; ++r) {
        const Affine unit{1, q_.affine(begin_ + r, g).zero};
        for (Index k = first(g); k < last(g); ++k) at(level_, k, r) = dequantize_value<F>(code(k, r), unit);
      }
    if (target.drift.rows > 0) {
      fill_change([&](Index k, Index r) { return target.weights(begin_ + r, k); });
      add_change(target.drift, 0, n_);
    }
    for (Index g = 0; g < groups(); ++g)
      for (Index r = 0; r < rows_; ++r) {
        const float scale = q_.affine(begin_ + r, g).scale;
        for (Index k = first(g); k < last(g); ++k) at(change_, k, r) = target.weights(begin_ + r, k) - scale * at(level_, k, r);
      }
    add_change(h_, 0, n_);
  }

  /// One pass over all groups' scales; false if none moved.
  bool move_scales() {
    bool moved = false;
    std::vector<float> through(size(n_)), ones(move_zeros_ ? static_cast<std::size_t>(n_) : 0);
    for (Index g = 0; g < groups(); ++g) moved |= move_scale(g, through, ones);
    return moved;
  }

  /// One pass over all codes; false if none changed.
  bool move_codes() {
    bool moved = false;
    for (Index i1 = 0; i1 < n_; i1 += block) moved |= move_block(i1, std::min(i1 + block, n_));
    return moved;
  }

 private:
  using F = typename S::format;
  using G = typename S::granularity;
  static constexpr Index block = 64;  // columns that follow each other one by one; all others follow by a product
  using Sums = std::array<double, static_cast<std::size_t>(row_tile)>;
  using Lanes = std::array<float, static_cast<std::size_t>(row_tile)>;

  static std::size_t size(Index cols) { return static_cast<std::size_t>(row_tile * cols); }
  static float& at(std::vector<float>& all, Index k, Index r) { return all[static_cast<std::size_t>(k * row_tile + r)]; }
  Index groups() const { return G::groups_per_row(n_); }
  Index first(Index g) const { return g * G::group_cols(n_); }
  Index last(Index g) const { return std::min(first(g) + G::group_cols(n_), n_); }
  typename S::code& code(Index k, Index r) { return q_.row(begin_ + r)[static_cast<std::size_t>(k)]; }

  template <class Value>
  void fill_change(Value value) {
    for (Index k = 0; k < n_; ++k)
      for (Index r = 0; r < rows_; ++r) at(change_, k, r) = value(k, r);
  }
  /// pull += by^T change, over columns begin .. end - 1 of the latter.
  void add_change(ConstMatrix by, Index begin, Index end) {
    calibrate::add_transposed_product<float>(by.row_range(begin, end), {&at(change_, begin, 0), end - begin, row_tile},
                                             {pull_.data(), n_, row_tile});
  }

  /// The best scale for the group's codes by least squares; with `move_zeros_`, for the zero points next to the present one too.
  /// `through` and `ones` are scratch.
  bool move_scale(Index g, std::vector<float>& through, std::vector<float>& ones) {
    const Index begin = first(g), end = last(g);
    // u is the group's levels, 1 a row of ones; u H of all columns, 1 H likewise.
    std::fill(through.begin(), through.end(), 0.0f);
    calibrate::add_transposed_product<float>(h_.row_range(begin, end), {&at(level_, begin, 0), end - begin, row_tile},
                                             {through.data(), n_, row_tile});
    double ones_ones = 0;
    if (move_zeros_) {
      std::fill(ones.begin(), ones.end(), 0.0f);
      for (Index j = begin; j < end; ++j)
        for (Index k = 0; k < n_; ++k) ones[static_cast<std::size_t>(k)] += h_(j, k);
      for (Index k = begin; k < end; ++k) ones_ones += double{ones[static_cast<std::size_t>(k)]};
    }
    Sums u_pull{}, u_u{}, ones_pull{}, u_ones{};
    for (Index k = begin; k < end; ++k)
      for (std::size_t r = 0; r < u_u.size(); ++r) {
        const auto i = static_cast<std::size_t>(k * row_tile) + r;
        u_pull[r] += double{level_[i] * pull_[i]};
        u_u[r] += double{level_[i] * through[i]};
      }
    if (move_zeros_)
      for (Index k = begin; k < end; ++k)
        for (std::size_t r = 0; r < u_u.size(); ++r) {
          const auto i = static_cast<std::size_t>(k * row_tile) + r;
          ones_pull[r] += double{pull_[i]};
          u_ones[r] += double{through[i]};
        }

    Lanes add_u{}, add_ones{}, shift{};
    bool moved = false, shifted = false;
    for (Index row = 0; row < rows_; ++row) {
      const auto r = static_cast<std::size_t>(row);
      Affine& a = q_.affine(begin_ + row, g);
      const double scale = double{a.scale};
      if (!(u_u[r] > 0) || !(scale > 0)) continue;
      Affine best = a;
      double most = 1e-6 * scale * scale * u_u[r];  // what float sums cannot resolve is no gain
      for (int step = 0; step <= (move_zeros_ ? 2 : 0); ++step) {
        const double dz = step == 2 ? -1 : step;
        const double zero = double{a.zero} + dz;
        if (step > 0 && (zero < 0 || zero > (1 << F::bits) - 1)) continue;
        // v = u - dz 1 are the levels around the new zero; q moves by s' v - s u.
        const double v_pull = u_pull[r] - dz * ones_pull[r], v_u = u_u[r] - dz * u_ones[r],
                     v_v = u_u[r] - 2 * dz * u_ones[r] + dz * dz * ones_ones;
        if (!(v_v > 0)) continue;
        const auto wanted = static_cast<float>((v_pull + scale * v_u) / v_v);
        if (!(wanted > 0) || !std::isfinite(wanted)) continue;
        const Affine candidate = stored<S>({wanted, static_cast<float>(zero)});
        const double s = double{candidate.scale};
        if (!(s > 0) || !std::isfinite(s)) continue;
        const double gain = 2 * (s * v_pull - scale * u_pull[r]) - (s * s * v_v - 2 * s * scale * v_u + scale * scale * u_u[r]);
        if (gain > most) {
          most = gain;
          best = candidate;
        }
      }
      if (best == a) continue;
      moved = true;
      // s' (u - dz 1) - s u
      const float dz = best.zero - a.zero;
      shifted |= dz != 0;
      shift[r] = dz;
      add_u[r] = -(best.scale - a.scale);
      add_ones[r] = best.scale * dz;
      a = best;
    }
    if (!moved) return false;
    for (Index k = 0; k < n_; ++k) {
      const float one = shifted ? ones[static_cast<std::size_t>(k)] : 0.0f;
      float *const pull = &at(pull_, k, 0), *const u = &at(through, k, 0);
      for (std::size_t r = 0; r < add_u.size(); ++r) pull[r] += add_u[r] * u[r] + add_ones[r] * one;
    }
    if (shifted)
      for (Index k = begin; k < end; ++k)
        for (std::size_t r = 0; r < shift.size(); ++r) (&at(level_, k, 0))[r] -= shift[r];
    return true;
  }

  bool move_block(Index i1, Index i2) {
    std::array<Lanes, static_cast<std::size_t>(block)> pull;
    for (Index k = i1; k < i2; ++k) std::copy_n(&at(pull_, k, 0), row_tile, pull[static_cast<std::size_t>(k - i1)].data());
    bool moved = false;
    for (Index k = i1; k < i2; ++k) {
      const Lanes& mine = pull[static_cast<std::size_t>(k - i1)];
      if (!(h_(k, k) > 0)) continue;  // too small for a float
      const float inverse = 1.0f / h_(k, k);
      Lanes change{};
      bool any = false;
      for (Index row = 0; row < rows_; ++row) {
        const auto r = static_cast<std::size_t>(row);
        const Affine a = q_.affine(begin_ + row, k / G::group_cols(n_));
        const float now = a.scale * at(level_, k, row), wanted = now + mine[r] * inverse;
        const Code c = quantize_value<F>(wanted, a);
        if (c == code(k, row)) continue;
        const float then = dequantize_value<F>(c, a);
        if (!(std::fabs(then - wanted) < std::fabs(now - wanted))) continue;
        code(k, row) = static_cast<typename S::code>(c);
        at(level_, k, row) = dequantize_value<F>(c, {1, a.zero});
        change[r] = now - then;
        any = true;
      }
      std::copy(change.begin(), change.end(), &at(change_, k, 0));
      if (!any) continue;
      moved = true;
      for (Index j = k + 1; j < i2; ++j) {
        const float share = h_(k, j);
        Lanes& theirs = pull[static_cast<std::size_t>(j - i1)];
        for (std::size_t r = 0; r < change.size(); ++r) theirs[r] += share * change[r];
      }
    }
    if (moved) add_change(h_, i1, i2);
    return moved;
  }

  ConstMatrix h_;
  Index n_, begin_, rows_;
  bool move_zeros_;
  QuantizedMatrix<S>& q_;
  std::vector<float> level_, pull_, change_;
};

/// At most `rounds` rounds over scales and codes. Scales stay as they are where they are not the row's own to choose: stored
/// jointly, shared by all rows, or absent.
template <AnyScheme S>
void refine(const RefineTarget& target, int rounds, bool move_zeros, QuantizedMatrix<S>& q, ExecutorRef executor) {
  constexpr bool own_scales = !S::scale_store::joint && !std::is_same_v<typename S::scale_store, NoScale> &&
                              !std::is_same_v<typename S::granularity, PerTensor>;
  executor.parallel_for(q.extents.rows, row_tile, [&](Index begin, Index end) {
    for (Index r = begin; r < end; r += row_tile) {
      Refiner<S> tile(target, move_zeros && S::has_zero_point, r, std::min(r + row_tile, end), q);
      for (int round = 0; round < rounds; ++round) {
        bool moved = false;
        if constexpr (own_scales) moved = tile.move_scales();
        moved |= tile.move_codes();
        if (!moved) break;
      }
    }
  });
}

}  // namespace anybit::gptq::inline ANYBIT_CODE
