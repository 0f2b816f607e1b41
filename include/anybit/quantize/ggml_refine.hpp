#pragma once
// After error feedback: codes, scales and minima of ggml's blocks move in turn, all others fixed, to the least layer error e H
// e^T of their row, e = w - q. Rows share only H.

#include <anybit/core/macros_begin.hpp>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <span>
#include <vector>

#include <anybit/core/finite.hpp>
#include <anybit/core/half.hpp>
#include <anybit/core/matrix.hpp>
#include <anybit/io/ggml_encode_search.hpp>
#include <anybit/quantize/ggml_grid.hpp>

namespace anybit {
inline namespace ANYBIT_CODE {

namespace ggml_blocks {

/// One row. `pull_` is e H, half the slope of the error; a change of q by v lowers the error by 2 v (e H)^T - v H v^T.
class RowRefiner {
 public:
  RowRefiner(const GgmlGrid& grid, ConstMatrix hessian, std::span<float> errors, std::span<GgmlBlock> blocks)
      : grid_(grid),
        h_(hessian),
        e_(errors),
        blocks_(blocks),
        pull_(errors.size(), 0.0f),
        change_(static_cast<std::size_t>(grid.group)) {
    for (std::size_t i = 0; i < e_.size(); ++i)
      if (e_[i] != 0) add(pull_, e_[i], i);
  }

  /// One pass over all groups; false if nothing moved.
  bool pass() {
    bool moved = false;
    for (std::size_t b = 0; b < blocks_.size(); ++b)
      for (int g = 0; g < grid_.groups; ++g) {
        moved |= move_scale(blocks_[b], b, g);
        if (grid_.minimum) moved |= move_low(blocks_[b], b, g);
        moved |= move_levels(blocks_[b], b, g);
      }
    return moved;
  }
  double error() const {
    double sum = 0;
    for (std::size_t i = 0; i < e_.size(); ++i) sum += static_cast<double>(e_[i]) * static_cast<double>(pull_[i]);
    return sum;
  }

 private:
  void add(std::vector<float>& to, float share, std::size_t column) const {
    const float* const h = h_.row(static_cast<Index>(column)).data();
    for (std::size_t j = 0; j < to.size(); ++j) to[j] += share * h[j];
  }
  std::size_t first(std::size_t block, int g) const {
    return block * static_cast<std::size_t>(grid_.values()) + static_cast<std::size_t>(g * grid_.group);
  }
  bool one_scale() const { return grid_.scale_high == 1; }
  float level_value(const GgmlBlock& block, int k) const {
    const int level = block.levels[static_cast<std::size_t>(k)];
    return static_cast<float>(grid_.iq4 ? io::ggml::iq4_levels[level] : level);
  }
  float scale(const GgmlBlock& block, int g) const {
    return block.d * static_cast<float>(block.scales[static_cast<std::size_t>(g)]);
  }

  /// The error along `change_`: a step v lowers it by 2 v slope - v^2 curve.
  struct Parabola {
    double slope = 0, curve = 0;
    /// Where the error is least.
    float best() const { return curve > 0 ? static_cast<float>(slope / curve) : 0.0f; }
  };
  Parabola along_change(std::size_t at) const {
    Parabola p;
    for (std::size_t i = 0; i < change_.size(); ++i) {
      p.slope += static_cast<double>(change_[i]) * static_cast<double>(pull_[at + i]);
      p.curve += static_cast<double>(change_[i]) * through(at, i);
    }
    return p;
  }
  /// q of the group at `at` moves by `by` times `change_`, if that lowers the error.
  bool move(std::size_t at, const Parabola& p, float by) {
    const auto v = static_cast<double>(by);
    if (!(2 * v * p.slope - v * v * p.curve > 0)) return false;
    for (std::size_t i = 0; i < change_.size(); ++i)
      if (change_[i] != 0) add(pull_, -by * change_[i], at + i), e_[at + i] -= by * change_[i];
    return true;
  }
  /// Entry i of `change_` times H.
  double through(std::size_t at, std::size_t i) const {
    const float* const h = h_.row(static_cast<Index>(at + i)).data() + at;
    double sum = 0;
    for (std::size_t j = 0; j < change_.size(); ++j) sum += static_cast<double>(change_[j]) * static_cast<double>(h[j]);
    return sum;
  }

  bool move_scale(GgmlBlock& block, std::size_t b, int g) {
    const std::size_t at = first(b, g);
    for (int i = 0; i < grid_.group; ++i) change_[static_cast<std::size_t>(i)] = level_value(block, g * grid_.group + i);
    const Parabola p = along_change(at);
    const float wanted = scale(block, g) + p.best();
    int& multiple = block.scales[static_cast<std::size_t>(g)];
    if (one_scale()) {
      const float d = f16_to_f32(f32_to_f16(wanted));
      if (!is_finite(d) || !move(at, p, d - block.d)) return false;
      block.d = d;
      return true;
    }
    const int next = io::ggml::nearest_code(wanted * io::ggml::inverse(block.d), grid_.scale_low, grid_.scale_high);
    if (next == multiple || !move(at, p, block.d * static_cast<float>(next - multiple))) return false;
    multiple = next;
    return true;
  }
  bool move_low(GgmlBlock& block, std::size_t b, int g) {
    const std::size_t at = first(b, g);
    std::fill(change_.begin(), change_.end(), -1.0f);
    int& multiple = block.lows[static_cast<std::size_t>(g)];
    const Parabola p = along_change(at);
    const float wanted = block.dmin * static_cast<float>(multiple) + p.best();
    if (one_scale()) {
      const float d = f16_to_f32(f32_to_f16(wanted));
      if (!is_finite(d) || !move(at, p, d - block.dmin)) return false;
      block.dmin = d;
      return true;
    }
    const int next = io::ggml::nearest_code(wanted * io::ggml::inverse(block.dmin), 0, grid_.minimum_high);
    if (next == multiple || !move(at, p, block.dmin * static_cast<float>(next - multiple))) return false;
    multiple = next;
    return true;
  }
  bool move_levels(GgmlBlock& block, std::size_t b, int g) {
    const std::size_t at = first(b, g);
    const GgmlRounder rounder{grid_, scale(block, g), block.dmin * static_cast<float>(block.lows[static_cast<std::size_t>(g)])};
    if (rounder.scale == 0) return false;
    bool moved = false;
    for (int i = 0; i < grid_.group; ++i) {
      const std::size_t k = at + static_cast<std::size_t>(i);
      std::int8_t& level = block.levels[static_cast<std::size_t>(g * grid_.group + i)];
      const float h = h_(static_cast<Index>(k), static_cast<Index>(k));
      if (!(h > 0)) continue;
      const float now = rounder.value(level);
      const int next = rounder.level(now + pull_[k] / h);
      const float by = rounder.value(next) - now;
      if (next == level || !(by * (2 * pull_[k] - by * h) > 0)) continue;
      level = static_cast<std::int8_t>(next);
      e_[k] -= by;
      add(pull_, -by, k);
      moved = true;
    }
    return moved;
  }

  const GgmlGrid& grid_;
  ConstMatrix h_;
  std::span<float> e_;
  std::span<GgmlBlock> blocks_;
  std::vector<float> pull_, change_;
};

/// `errors` are w - q of rows in `blocks`, row by row; both change. `row_errors`, where it is not empty, gets e H e^T of each
/// row.
inline void refine(const GgmlGrid& grid, ConstMatrix hessian, MutableMatrix errors, std::span<GgmlBlock> blocks,
                   std::span<double> row_errors) {
  constexpr int most_passes = 8;
  const std::size_t in_row = blocks.size() / static_cast<std::size_t>(std::max<Index>(1, errors.rows));
  for (Index r = 0; r < errors.rows; ++r) {
    const auto at = static_cast<std::size_t>(r);
    RowRefiner row(grid, hessian, errors.row(r), blocks.subspan(at * in_row, in_row));
    for (int pass = 0; pass < most_passes && row.pass(); ++pass) {
    }
    if (!row_errors.empty()) row_errors[at] = row.error();
  }
}

}  // namespace ggml_blocks

}  // namespace ANYBIT_CODE
}  // namespace anybit

#include <anybit/core/macros_end.hpp>
