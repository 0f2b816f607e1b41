#pragma once
// Decides which tiles are folded (folded_tiles.hpp), and with which steps.

#include <anybit/core/macros_begin.hpp>

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>

#include <anybit/exec/executor.hpp>
#include <anybit/kernel/activations.hpp>
#include <anybit/kernel/folded_tiles.hpp>
#include <anybit/kernel/matrix_activations.hpp>
#include <anybit/kernel/row_decoder.hpp>

namespace anybit::kernel {
inline namespace ANYBIT_CODE {

namespace detail {

/// Folds one row. `u` are its bytes, `scales` and `zeros` (what u lacks to a level) those of the groups, `cell_errors` the mean
/// square error of rounding to each u, in squares of a level. Returns the row's step and its factors, and in `added` the error's
/// energy as a part of the quantization error's.
struct RowFold {
  float step = 0;
  double added = 0;
};
inline RowFold fold_row(const TiledWeights& w, const std::uint8_t* u, const float* scales, const std::int32_t* zeros,
                        const std::array<double, 256>& cell_errors, std::int16_t* factors, Index factor_stride) {
  const Index cols = w.extents.cols;
  double largest = 0, quantization = 0, largest_scale = 0;
  int most = 1;
  Index s = 0;
  for (Segment g(cols, w.group, w.segment_cols); !g.done(); g.next(), ++s) {
    const double scale = std::fabs(static_cast<double>(scales[s]));
    int level = 0;
    double errors = 0;
    for (Index k = g.first; k < g.end(); ++k) {
      level = std::max(level, std::abs(u[k] - zeros[s]));
      errors += cell_errors[u[k]];
    }
    quantization += scale * scale * errors;
    largest = std::max(largest, scale * level);
    if (level > 0 && scale > largest_scale) largest_scale = scale, most = level;
  }
  RowFold best;
  if (!(largest > 0) || !(largest < 3e38)) {  // all zeros; or scales that are no numbers
    best.added = largest == 0 ? 0 : 2;
    best.step = 1;
    for (Index i = 0; i < s; ++i) factors[i * factor_stride] = 0;
    return best;
  }
  const auto factor_of = [&](Index i, double step) {
    return static_cast<std::int16_t>(
        std::clamp(std::nearbyint(static_cast<double>(scales[i]) / step * (1 << fold_bits)), -32767.0, 32767.0));
  };
  best.added = std::numeric_limits<double>::infinity();
  const int multiple = std::max(1, 127 / most);
  for (const double wanted : {largest / 127, largest_scale / multiple}) {
    const float rounded = static_cast<float>(wanted);
    const double step = static_cast<double>(rounded);
    if (!(step > 0)) continue;
    double error = 0;
    Index i = 0;
    for (Segment g(cols, w.group, w.segment_cols); !g.done(); g.next(), ++i) {
      const int factor = factor_of(i, step);
      const double scale = static_cast<double>(scales[i]);
      for (Index k = g.first; k < g.end(); ++k) {
        const int level = u[k] - zeros[i];
        const double off = scale * level - step * folded_byte(level, factor);
        error += off * off;
      }
    }
    const double added = error <= 1e-12 * largest * largest ? 0 : error / quantization;
    if (added < best.added) best = {rounded, added};
  }
  for (Index i = 0; i < s; ++i) factors[i * factor_stride] = factor_of(i, static_cast<double>(best.step));
  return best;
}

/// The mean square error of rounding to each of the levels u in `used`, where weights lie evenly between neighbours.
inline std::array<double, 256> rounding_errors(const std::array<bool, 256>& used) {
  std::array<double, 256> errors{};
  int before = -1;
  for (int u = 0, after; u < 256; ++u) {
    if (!used[static_cast<std::size_t>(u)]) continue;
    for (after = u + 1; after < 256 && !used[static_cast<std::size_t>(after)]; ++after) {
    }
    double a = before < 0 ? 0 : (u - before) / 2.0, b = after > 255 ? 0 : (after - u) / 2.0;
    if (before < 0) a = b;
    if (after > 255) b = a;
    errors[static_cast<std::size_t>(u)] = (a * a - a * b + b * b) / 3;
    before = u;
  }
  return errors;
}

/// Folds the tiles of w all of whose rows take it with at most `bound` of added error. `bytes(row, first, n, out)` reads u of a
/// row of the weights. Nothing where levels do not fit a signed byte, or where there would be nothing to start sums from.
template <class ReadBytes, Executor E>
std::shared_ptr<const FoldedTiles> fold_tiles(const TiledWeights& w, const std::array<bool, 256>& used, double bound,
                                              ReadBytes&& bytes, E&& executor) {
  const bool fits = w.zero_points ? w.max_byte <= 127 : w.lowest >= -128 && w.max_byte + w.lowest <= 127;
  if (!fits || !(bound > 0) || w.extents.cols == 0) return nullptr;
  auto made = std::make_shared<FoldedTiles>();
  FoldedTiles& f = *made;
  const Index segments = w.segments(), tiles = w.tiles();
  f.chunks.extents = w.extents, f.chunks.half_scales = false, f.chunks.bits = 8;
  const auto steps_of = [&w](Index s) { return Index{w.steps[static_cast<std::size_t>(s)]}; };
  for (Index first = 0, last; first < segments; first = last) {
    last = chunk_end(first, segments, steps_of);
    std::int32_t steps = 0;
    for (Index s = first; s < last; ++s) steps += w.steps[static_cast<std::size_t>(s)];
    f.segments.push_back(static_cast<std::int32_t>(last - first));
    f.chunks.steps.push_back(steps);
  }
  const Index chunks = f.chunks.segments();
  f.is_folded.resize(static_cast<std::size_t>(tiles));
  f.factors.resize(static_cast<std::size_t>(tiles * segments * tile_rows));
  f.steps.resize(static_cast<std::size_t>(tiles * chunks * tile_rows));
  const auto errors = rounding_errors(used);
  executor.parallel_for(tiles, 1, [&](Index begin, Index end) {
    std::vector<std::uint8_t> u(static_cast<std::size_t>(w.extents.cols + decode_slack));
    std::vector<float> scales(static_cast<std::size_t>(segments));
    std::vector<std::int32_t> zeros(static_cast<std::size_t>(segments));
    for (Index tile = begin; tile < end; ++tile) {
      const Index first = tile * tile_rows, rows = std::min(tile_rows, w.extents.rows - first);
      bool folds = true;
      for (Index r = 0; r < rows && folds; ++r) {
        for (Index at = 0; at < w.extents.cols; at += block_cols)
          bytes(first + r, at, std::min(block_cols, w.extents.cols - at), u.data() + at);
        for (Index s = 0; s < segments; ++s) {
          std::int32_t all[static_cast<std::size_t>(tile_rows)];
          read_zeros(w, w.tile(tile), s, all);
          zeros[static_cast<std::size_t>(s)] = all[r];
          scales[static_cast<std::size_t>(s)] = read_scale(w, w.tile(tile), s, r);
          folds = folds && all[r] <= 128;
        }
        const RowFold row = fold_row(w, u.data(), scales.data(), zeros.data(), errors,
                                     f.factors.data() + tile * segments * tile_rows + r, tile_rows);
        folds = folds && row.added <= bound;
        for (Index c = 0; c < chunks; ++c) f.steps[static_cast<std::size_t>((tile * chunks + c) * tile_rows + r)] = row.step;
      }
      f.is_folded[static_cast<std::size_t>(tile)] = folds;
    }
  });
  for (Index tile = 0; tile < tiles; ++tile)
    if (f.is_folded[static_cast<std::size_t>(tile)] != 0) {
      ++f.tiles;
      f.rows += std::min(tile_rows, w.extents.rows - tile * tile_rows);
    }
  return made;
}

}  // namespace detail

}  // namespace ANYBIT_CODE
}  // namespace anybit::kernel

#include <anybit/core/macros_end.hpp>
