#pragma once
// The nearest loop of a bitshift trellis to a sequence of weights: Viterbi's search over all states, in two passes or exactly.
// Readable twin: reference/trellis.hpp.

#include <anybit/core/macros_begin.hpp>

#include <algorithm>
#include <array>
#include <bit>
#include <cstdint>
#include <span>
#include <vector>

#include <anybit/core/aligned_buffer.hpp>
#include <anybit/simd/trellis_step.hpp>

namespace anybit::simd {
inline namespace ANYBIT_CODE {

/// The values of all 2^L states, V a state, in the order of trellis_step(). Searches on any number of threads share one.
template <int K, Index V>
class TrellisValues {
 public:
  /// values: those of a state side by side.
  TrellisValues(int state_bits, std::span<const float> values)
      : edges_(Index{1} << (state_bits - K)), table_(static_cast<std::size_t>(blocks() * count * V * width) * sizeof(float)) {
    for (Index b = 0; b < blocks(); ++b)
      for (Index j = 0; j < count; ++j)
        for (Index v = 0; v < V; ++v)
          for (Index i = 0; i < std::min(width, edges_); ++i)
            table_.as<float>()[((b * count + j) * V + v) * width + i] =
                values[static_cast<std::size_t>((j * edges_ + b * width + i) * V + v)];
  }
  static constexpr Index count = Index{1} << K;
  Index edges() const { return edges_; }
  Index blocks() const { return ceil_div(edges_, width); }
  const float* table() const { return table_.as<float>(); }
  float value(Index state, Index v) const {
    const Index j = state / edges_, m = state % edges_;
    return table()[((m / width * count + j) * V + v) * width + m % width];
  }

 private:
  Index edges_;
  AlignedBuffer table_;
};

/// The buffers of a search; one a thread. The steps of a loop are counted from 0; the edge before step 0 is the one after the
/// last.
template <int K, Index V>
class TrellisSearch {
 public:
  /// `values` must outlive this.
  TrellisSearch(const TrellisValues<K, V>& values, Index steps)
      : values_(values),
        steps_(steps),
        costs_(static_cast<std::size_t>(2 * line()) * sizeof(float)),
        choices_(static_cast<std::size_t>((steps + 1) * row()), AlignedBuffer::Uninitialized{}),
        roots_(static_cast<std::size_t>(steps)),
        targets_(static_cast<std::size_t>(steps)) {}

  /// The sequence to be met: weight i costs (root[i] value - root[i] target[i])^2. A root of 0 leaves it free. Targets are
  /// finite, roots 0 to 1.
  void aim(std::span<const float> target, std::span<const float> root) {
    for (std::size_t i = 0; i < target.size(); ++i) {
      roots_[i / V][i % V] = root[i];
      targets_[i / V][i % V] = root[i] * target[i];
    }
  }

  /// A loop found in two passes: the first, through the sequence turned by half, tells the edge at which the second starts and
  /// ends. Returns its cost.
  double two_passes(std::span<std::uint16_t> loop) {
    start_anywhere();
    const Index half = steps_ / 2;
    Index edge = cheapest(run(half, steps_ - half));
    for (Index t = steps_; t-- > steps_ - half;) edge = before(t, edge);
    return through(edge, loop);
  }

  /// The best loop of all. From the two passes' result on: a run from a set of edges bounds from below the cost of every loop
  /// through an edge of the set; edges that cannot be better are dropped, and the set is halved, the most promising half first.
  double exact(std::span<std::uint16_t> loop) {
    double least = two_passes(loop);
    struct Set {
      float bound;
      std::vector<std::uint16_t> edges;
      bool operator<(const Set& other) const { return bound > other.bound; }
    };
    std::vector<Set> open(1, {0.0f, {}});
    for (Index e = 0; e < values_.edges(); ++e) open[0].edges.push_back(static_cast<std::uint16_t>(e));
    std::vector<std::uint16_t> trial(loop.size());
    while (!open.empty()) {
      std::pop_heap(open.begin(), open.end());
      const Set set = std::move(open.back());
      open.pop_back();
      if (static_cast<double>(set.bound) >= least) break;
      if (set.edges.size() == 1) {
        if (const double cost = through(set.edges[0], trial); cost < least) {
          least = cost;
          std::copy(trial.begin(), trial.end(), loop.begin());
        }
        continue;
      }
      std::fill_n(at(0), line(), impossible);
      for (const std::uint16_t e : set.edges) at(0)[e] = 0;
      const float* const cost = run(0, steps_);
      std::uint16_t differ = 0, first = 0;
      std::vector<std::uint16_t> left;
      for (const std::uint16_t e : set.edges) {
        if (static_cast<double>(cost[e]) >= least) continue;
        if (left.empty()) first = e;
        differ = static_cast<std::uint16_t>(differ | (e ^ first));
        left.push_back(e);
      }
      const unsigned bit = std::bit_floor(static_cast<unsigned>(differ));
      for (const bool upper : {false, true}) {
        Set half{impossible, {}};
        for (const std::uint16_t e : left)
          if (((e & bit) != 0) == upper) half.edges.push_back(e), half.bound = std::min(half.bound, cost[e]);
        if (half.edges.empty()) continue;
        open.push_back(std::move(half));
        std::push_heap(open.begin(), open.end());
      }
    }
    return least;
  }

 private:
  static constexpr float impossible = 1e30f;
  Index line() const { return round_up(values_.edges(), width) + 2 * width; }
  Index row() const { return values_.blocks() * PredecessorChoice<K>::bytes; }
  float* at(Index which) { return costs_.as<float>() + which * line(); }
  void start_anywhere() { std::fill_n(at(0), line(), 0.0f); }

  /// All steps, the first of them `first`; costs by the edge that is reached. The choices of the first `forget` steps are not
  /// kept.
  const float* run(Index first, Index forget) {
    for (Index i = 0; i < steps_; ++i) {
      const auto t = static_cast<std::size_t>((first + i) % steps_);
      std::uint8_t* const kept = choices_.as<std::uint8_t>() + (i < forget ? steps_ : i) * row();
      trellis_step<K, V>(values_.table(), values_.edges(), at(i % 2), roots_[t], targets_[t], at((i + 1) % 2), kept);
    }
    return at(steps_ % 2);
  }
  Index cheapest(const float* cost) const { return std::min_element(cost, cost + values_.edges()) - cost; }
  /// The state of step i of the last run that leads to an edge.
  Index state_of(Index i, Index edge) const {
    const std::uint8_t* const kept = choices_.as<std::uint8_t>() + i * row() + edge / width * PredecessorChoice<K>::bytes;
    return static_cast<Index>(PredecessorChoice<K>::read(kept, edge % width)) * values_.edges() + edge;
  }
  Index before(Index i, Index edge) const { return state_of(i, edge) >> K; }

  /// The best loop through an edge, and its cost.
  double through(Index edge, std::span<std::uint16_t> loop) {
    std::fill_n(at(0), line(), impossible);
    at(0)[edge] = 0;
    run(0, 0);
    double cost = 0;
    for (Index t = steps_; t-- > 0;) {
      const Index state = state_of(t, edge);
      const auto i = static_cast<std::size_t>(t);
      loop[i] = static_cast<std::uint16_t>(state);
      for (Index v = 0; v < V; ++v) {
        const auto u = static_cast<std::size_t>(v);
        const double d = double{roots_[i][u]} * double{values_.value(state, v)} - double{targets_[i][u]};
        cost += d * d;
      }
      edge = state >> K;
    }
    return cost;
  }

  using Weights = std::array<float, static_cast<std::size_t>(V)>;
  const TrellisValues<K, V>& values_;
  Index steps_;
  AlignedBuffer costs_, choices_;
  std::vector<Weights> roots_, targets_;
};

}  // namespace ANYBIT_CODE
}  // namespace anybit::simd

#include <anybit/core/macros_end.hpp>
