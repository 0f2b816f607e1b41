#pragma once
// The joint search of scales, zero points and codes after the sweep: each of them in turn, all others fixed, moves to the least
// layer error d H d^T of its row, round after round. Rows share only H.

#include <anybit/core/macros_begin.hpp>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <numeric>
#include <vector>

#include <anybit/algorithm/feedback/sweep.hpp>
#include <anybit/core/finite.hpp>
#include <anybit/dense/product.hpp>
#include <anybit/exec/executor.hpp>

namespace anybit::gptq {
inline namespace ANYBIT_CODE {

/// All in stored column order.
struct RefineTarget {
  ConstMatrix weights;  ///< what the rows should equal
  ConstMatrix hessian;  ///< symmetric, of any unit
  /// D, if the inputs that the weights were made for are others: the objective is d H d^T + 2 w D d^T. Empty: none.
  ConstMatrix drift{};
};

/// A tile of rows, transposed as in Band. With e = w - q, `pull_` is e H (+ w D): half the slope of the objective.
/// A template so that only programs that quantize compile its products.
template <class Real = float>
class Refiner {
 public:
  Refiner(const RefineTarget& target, bool move_zeros, Index begin, Index end, const AnyQuantized& q)
      : h_(target.hessian),
        n_(h_.rows),
        begin_(begin),
        rows_(end - begin),
        move_zeros_(move_zeros),
        q_(q),
        positions_(static_cast<std::size_t>(n_)),
        codes_(n_, q.format().wide),
        level_(size(n_)),
        pull_(size(n_)),
        change_(size(n_)) {
    std::iota(positions_.begin(), positions_.end(), Index{0});
    codes_.read(begin_, rows_, positions_, q_);
    for (Index g = 0; g < groups(); ++g) {
      const AffineLanes units = levels_of(g);
      for (Index k = first(g); k < last(g); ++k) {
        q_.format().decode_lanes(codes_.column(k), units, &at(level_, k, 0));
        std::fill_n(&at(level_, k, 0) + rows_, row_tile - rows_, 0.0f);
      }
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

  /// Codes and affines that moved, to where they came from.
  void write() const { codes_.write(begin_, rows_, positions_, q_); }

 private:
  static constexpr Index block = 64;  // columns that follow each other one by one; all others follow by a product
  using Sums = std::array<double, static_cast<std::size_t>(row_tile)>;
  using Lanes = std::array<float, static_cast<std::size_t>(row_tile)>;

  static std::size_t size(Index cols) { return static_cast<std::size_t>(row_tile * cols); }
  static float& at(std::vector<float>& all, Index k, Index r) { return all[static_cast<std::size_t>(k * row_tile + r)]; }
  Index groups() const { return q_.groups_per_row; }
  Index first(Index g) const { return g * q_.group_cols; }
  Index last(Index g) const { return q_.end_of_group(g); }
  /// Of group g of all rows; rows past the end have a grid of their own.
  AffineLanes affines_of(Index g) const {
    AffineLanes lanes;
    for (Index r = 0; r < rows_; ++r) lanes.set(r, q_.affine(begin_ + r, g));
    return lanes;
  }
  /// The same grids in units of a level.
  AffineLanes levels_of(Index g) const {
    AffineLanes lanes = affines_of(g);
    for (float& s : lanes.scales) s = 1;
    return lanes;
  }

  template <class Value>
  void fill_change(Value value) {
    for (Index k = 0; k < n_; ++k)
      for (Index r = 0; r < rows_; ++r) at(change_, k, r) = value(k, r);
  }
  /// pull += by^T change, over columns begin .. end - 1 of the latter.
  void add_change(ConstMatrix by, Index begin, Index end) {
    dense::add_transposed_product<Real>(by.row_range(begin, end), {&at(change_, begin, 0), end - begin, row_tile},
                                        {pull_.data(), n_, row_tile});
  }

  /// The best scale for the group's codes by least squares; with `move_zeros_`, for the zero points next to the present one too.
  /// `through` and `ones` are scratch.
  bool move_scale(Index g, std::vector<float>& through, std::vector<float>& ones) {
    const Index begin = first(g), end = last(g);
    // u is the group's levels, 1 a row of ones; u H of all columns, 1 H likewise.
    std::fill(through.begin(), through.end(), 0.0f);
    dense::add_transposed_product<Real>(h_.row_range(begin, end), {&at(level_, begin, 0), end - begin, row_tile},
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
        if (step > 0 && (zero < 0 || zero > (1 << q_.format().bits) - 1)) continue;
        // v = u - dz 1 are the levels around the new zero; q moves by s' v - s u.
        const double v_pull = u_pull[r] - dz * ones_pull[r], v_u = u_u[r] - dz * u_ones[r],
                     v_v = u_u[r] - 2 * dz * u_ones[r] + dz * dz * ones_ones;
        if (!(v_v > 0)) continue;
        const auto wanted = static_cast<float>((v_pull + scale * v_u) / v_v);
        if (!(wanted > 0) || !is_finite(wanted)) continue;
        const Affine candidate = q_.scheme.stored({wanted, static_cast<float>(zero)});
        const double s = double{candidate.scale};
        if (!(s > 0) || !is_finite(s)) continue;
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
    Index group = -1;
    AffineLanes affines, units;
    alignas(64) std::byte codes[2 * row_tile];
    alignas(64) float wanted[row_tile], then[row_tile];
    for (Index k = i1; k < i2; ++k) {
      const Lanes& mine = pull[static_cast<std::size_t>(k - i1)];
      if (!(h_(k, k) > 0)) continue;  // too small for a float
      if (group < 0 || k >= last(group)) {
        group = k / q_.group_cols;
        affines = affines_of(group);
        units = levels_of(group);
      }
      const float inverse = 1.0f / h_(k, k);
      float* const level = &at(level_, k, 0);
      for (Index r = 0; r < row_tile; ++r) wanted[r] = affines.scales[r] * level[r] + mine[static_cast<std::size_t>(r)] * inverse;
      q_.format().encode_lanes(wanted, affines, codes);
      q_.format().decode_lanes(codes, affines, then);
      Lanes change{};
      std::array<bool, static_cast<std::size_t>(row_tile)> better{};
      bool any = false;
      for (Index r = 0; r < rows_; ++r) {
        const auto i = static_cast<std::size_t>(r);
        const float now = affines.scales[r] * level[r];
        better[i] = std::fabs(then[r] - wanted[r]) < std::fabs(now - wanted[r]);
        change[i] = better[i] ? now - then[r] : 0.0f;
        any = any || better[i];
      }
      std::copy(change.begin(), change.end(), &at(change_, k, 0));
      if (!any) continue;
      moved = true;
      codes_.replace(k, codes, better);
      q_.format().decode_lanes(codes_.column(k), units, level);
      std::fill_n(level + rows_, row_tile - rows_, 0.0f);
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
  const AnyQuantized& q_;
  std::vector<Index> positions_;
  TileCodes codes_;
  std::vector<float> level_, pull_, change_;
};

/// At most `rounds` rounds over scales and codes. Scales stay as they are where they are not the row's own to choose: stored
/// jointly, shared by all rows, or absent.
template <class Real = float>
void refine(const RefineTarget& target, int rounds, bool move_zeros, const AnyQuantized& q, ExecutorRef executor) {
  const bool own_scales = !q.scheme.joint_scales && !q.scheme.no_scales && !q.scheme.per_tensor;
  parallel_tiles(executor, q.extents.rows, row_tile, [&](Index begin, Index end) {
    for (Index r = begin; r < end; r += row_tile) {
      Refiner<Real> tile(target, move_zeros && q.format().zero_point, r, std::min(r + row_tile, end), q);
      for (int round = 0; round < rounds; ++round) {
        bool moved = own_scales && tile.move_scales();
        moved |= tile.move_codes();
        if (!moved) break;
      }
      tile.write();
    }
  });
}

}  // namespace ANYBIT_CODE
}  // namespace anybit::gptq

#include <anybit/core/macros_end.hpp>
