#pragma once
// What learned rounding learns of some rows of a matrix: an offset of every weight in front of rounding and two factors for the
// ends of every group's grid, moved by the signs of a gradient. See docs/methods/learned_rounding.md.

#include <anybit/core/macros_begin.hpp>

#include <algorithm>
#include <array>
#include <cmath>
#include <vector>

#include <anybit/core/finite.hpp>
#include <anybit/core/matrix.hpp>
#include <anybit/tensor/rounding_ops.hpp>

namespace anybit::learned {
inline namespace ANYBIT_CODE {

/// Rows begin .. end - 1 of a matrix that has codes and affines already: with offsets 0 and factors 1 they come out unchanged.
class Rows {
 public:
  /// `w` is the whole matrix and `q` its codes, without a column order. `learn_ends`: the grids may move; `move_zeros`: their
  /// zero points too.
  Rows(ConstMatrix w, const AnyQuantized& q, Index begin, Index end, bool learn_ends, bool move_zeros)
      : q_(q),
        begin_(begin),
        rows_(end - begin),
        cols_(w.cols),
        learn_ends_(learn_ends && !q.scheme.joint_scales && !q.scheme.no_scales && !q.scheme.per_tensor),
        move_zeros_(move_zeros && q.format().zero_point),
        distance_(q.format().level_distance()),
        base_(rows_, cols_),
        offset_(rows_, cols_),
        values_(rows_, cols_),
        codes_(static_cast<std::size_t>(rows_ * cols_ * q.code_bytes())) {
    const float far[2] = {-std::numeric_limits<float>::max(), std::numeric_limits<float>::max()};
    std::array<float, 2> ends{};
    q.format().round(far, 2, {1, 0}, {1, 0}, ends.data());
    lowest_ = ends[0], highest_ = ends[1];
    for (Index r = 0; r < rows_; ++r)
      for (Index g = 0; g < q_.groups_per_row; ++g) {
        grids_.push_back({q_.affine(begin_ + r, g), q_.affine(begin_ + r, g), 1, 1});
        find_base(w, r, g);
      }
  }

  /// Rounds with the present offsets and factors: values() and codes.
  void round() {
    std::vector<float> shifted(static_cast<std::size_t>(std::min(q_.group_cols, cols_)));
    for (Index r = 0; r < rows_; ++r)
      for (Index g = 0; g < q_.groups_per_row; ++g) {
        Grid& grid = at(r, g);
        grid.now = moved(grid);
        const Index first = g * q_.group_cols, count = q_.end_of_group(g) - first;
        const float unit = grid.now.scale * distance_;
        for (Index i = 0; i < count; ++i)
          shifted[static_cast<std::size_t>(i)] = base_(r, first + i) + unit * offset_(r, first + i);
        std::byte* const codes = code(r, first);
        q_.format().encode(shifted.data(), count, grid.now, codes);
        q_.format().decode(codes, count, grid.now, values_.view().row(r).data() + first);
      }
  }
  /// The weights that round() gave, (rows, columns).
  ConstMatrix values() const { return values_.view(); }

  /// Codes and affines of the last round() become those of q.
  void keep(Index r) const {
    const std::byte* const from = codes_.data() + r * cols_ * q_.code_bytes();
    std::copy_n(from, cols_ * q_.code_bytes(), q_.code(begin_ + r, 0));
    if (!learn_ends_) return;
    for (Index g = 0; g < q_.groups_per_row; ++g) q_.affine(begin_ + r, g) = at(r, g).now;
  }

  /// One step against the signs of `slope`, the gradient of a loss by values(): rounding counts as the identity, and as constant
  /// beyond the ends of a grid. Offsets move by `rate` and stay in -1/2 .. 1/2 of a level's distance, factors by `ends_rate`.
  void step(ConstMatrix slope, float rate, float ends_rate) {
    for (Index r = 0; r < rows_; ++r)
      for (Index g = 0; g < q_.groups_per_row; ++g) {
        Grid& grid = at(r, g);
        const float scale = grid.now.scale;
        if (!(scale > 0)) continue;
        const Index first = g * q_.group_cols, end = q_.end_of_group(g);
        const float unit = scale * distance_, zero = q_.format().zero_point ? grid.now.zero : 0.0f;
        const float low = scale * (lowest_ - zero) - unit / 2, high = scale * (highest_ - zero) + unit / 2;
        double by_scale = 0, by_zero = 0;
        for (Index c = first; c < end; ++c) {
          const float s = slope(r, c), x = base_(r, c) + unit * offset_(r, c), value = values_(r, c);
          if (x >= low && x <= high) {
            by_scale += double{s} * double{value - base_(r, c)};
            const float step = s > 0 ? rate : s < 0 ? -rate : 0.0f;
            offset_(r, c) = std::clamp(offset_(r, c) - step, -0.5f, 0.5f);
          } else {
            by_scale += double{s} * double{value};
            by_zero -= double{s} * double{scale};
          }
        }
        if (learn_ends_) move_ends(grid, by_scale / double{scale}, by_zero, ends_rate);
      }
  }

 private:
  /// `high` and `low` multiply the ends of the grid that it started with; a format without a zero point has `high` alone.
  struct Grid {
    Affine start, now;
    float high, low;
  };
  static constexpr float least_end = 0.05f, greatest_end = 2;

  Grid& at(Index r, Index g) { return grids_[static_cast<std::size_t>(r * q_.groups_per_row + g)]; }
  const Grid& at(Index r, Index g) const { return grids_[static_cast<std::size_t>(r * q_.groups_per_row + g)]; }
  std::byte* code(Index r, Index c) { return codes_.data() + (r * cols_ + c) * q_.code_bytes(); }

  /// What rounding starts from: the weight, or where its code is not the nearest one (error feedback chose it) the point of the
  /// code's own interval that is closest to the weight.
  void find_base(ConstMatrix w, Index r, Index g) {
    const Affine a = at(r, g).start;
    const Index first = g * q_.group_cols, count = q_.end_of_group(g) - first;
    const float most = 0.499f * a.scale * distance_;
    const auto same = [&](const std::byte* x, const std::byte* y) { return std::equal(x, x + q_.code_bytes(), y); };
    std::vector<float> level(static_cast<std::size_t>(count));
    q_.format().decode(q_.code(begin_ + r, first), count, a, level.data());
    for (Index i = 0; i < count; ++i) {
      const std::byte* const own = q_.code(begin_ + r, first + i);
      const float weight = w(begin_ + r, first + i), value = level[static_cast<std::size_t>(i)];
      float base = value;
      for (const float candidate : {weight, value + std::clamp(weight - value, -most, most)}) {
        alignas(2) std::byte nearest[2];
        q_.format().encode(&candidate, 1, a, nearest);
        if (!same(nearest, own)) continue;
        base = candidate;
        break;
      }
      base_(r, first + i) = base;
    }
  }

  /// The affine of a grid with its ends where the factors put them, as stored.
  Affine moved(const Grid& g) const {
    if (!learn_ends_ || (g.high == 1 && g.low == 1) || !(g.start.scale > 0)) return g.start;
    Affine a = g.start;
    if (move_zeros_) {
      const float width = highest_ - lowest_;
      const float high = g.high * (highest_ - g.start.zero), low = g.low * (lowest_ - g.start.zero);
      const float share = (high - low) / width;
      a.scale = g.start.scale * share;
      a.zero = std::clamp(round_half_even(-low / share), lowest_, highest_);
    } else {
      a.scale *= g.high;
    }
    a = q_.scheme.stored(a);
    return a.scale > 0 && is_finite(a.scale) ? a : g.start;
  }

  /// `by_scale`, `by_zero`: slopes by the scale and the zero point of the grid as it is.
  void move_ends(Grid& g, double by_scale, double by_zero, float rate) const {
    const auto move = [rate](float& factor, double slope) {
      factor = std::clamp(factor - (slope > 0 ? rate : slope < 0 ? -rate : 0.0f), least_end, greatest_end);
    };
    if (!move_zeros_) return move(g.high, by_scale);
    // s = (p h - m l) / N and z = -m l / s, with the ends h and l of the first grid and their factors p and m.
    const double start = double{g.start.scale}, width = double{highest_ - lowest_};
    const double h = start * double{highest_ - g.start.zero}, l = start * double{lowest_ - g.start.zero};
    const double s = double{g.now.scale}, ml = double{g.low} * l;
    const double by_s = by_scale + by_zero * ml / (s * s);
    move(g.high, by_s * h / width);
    move(g.low, by_s * -l / width - by_zero * l / s);
  }

  const AnyQuantized& q_;
  Index begin_, rows_, cols_;
  bool learn_ends_, move_zeros_;
  float distance_, lowest_ = 0, highest_ = 0;
  Matrix base_, offset_, values_;
  std::vector<Grid> grids_;
  std::vector<std::byte> codes_;
};

}  // namespace ANYBIT_CODE
}  // namespace anybit::learned

#include <anybit/core/macros_end.hpp>
